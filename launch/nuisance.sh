#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Embeddings with growing shares of nuisance: runs, a table, and two pictures.
#
#   launch/nuisance.sh --workdir=runs/nuisance [FLAG...]
#
# Further flags are passed on to tgt_jax.main; the same command again resumes.
#
# SHARES ("0 50 80 90 95 99")  percentages.
# OPTIONS ("")                 of the config, such as ",smoke".
# PYTHON (python)              the interpreter.
set -euo pipefail

workdir="" rest=()
for argument in "$@"; do
  case "$argument" in
    --workdir=*) workdir="${argument#--workdir=}" ;;
    *) rest+=("$argument") ;;
  esac
done
if [[ -z "$workdir" ]]; then
  echo "usage: $0 --workdir=DIR [FLAG...]" >&2
  exit 2
fi

python="${PYTHON:-python}" folders=()
for share in ${SHARES:-0 50 80 90 95 99}; do
  folders+=("$workdir/$share")
  "$python" -m tgt_jax.main --config="configs/nuisance.py:$share${OPTIONS:-}" \
    "${rest[@]}" --workdir="$workdir/$share"
  # A run that was asked to stop has no results, and says how to resume.
  [[ -s "$workdir/$share/results.json" ]] || exit 0
done
compare() {
  "$python" -m tgt_jax.compare "${folders[@]}" --metric=accuracy "$@"
}
curve() {
  compare --over=data.share --curve="$workdir/$1.png" --arms="$2" >/dev/null
}
curve shares no_teacher,kd,east_dcor,ec_dcor_16,pca_16,random,autoencoder
curve widths ec_dcor_4,pca_4,ec_dcor,pca,ec_dcor_16,pca_16,ec_dcor_64,pca_64
compare --across
