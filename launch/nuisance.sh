#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Embeddings with growing shares of nuisance: runs, a table, and a curve.
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
"$python" -m tgt_jax.compare "${folders[@]}" --metric=accuracy \
  --over=data.share --curve="$workdir/curve.png"
