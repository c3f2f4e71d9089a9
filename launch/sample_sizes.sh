#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# One experiment at several sample sizes: runs, a table, and a curve.
#
#   launch/sample_sizes.sh --config=configs/fashion_mnist_fraction.py \
#     --config.data.data_dir=DIR --workdir=runs/fraction
#
# The config's argument is the percentage of labels; --config=FILE.py:OPTIONS
# passes further options to every size. The runs are WORKDIR/1, WORKDIR/3, ...
# and share the teacher in WORKDIR/teacher, unless --config.teacher_dir names
# another. The same command again resumes.
#
# SIZES ("1 3 10 30 100")  percentages.
# METRIC (accuracy)        of the table and the curve.
# PYTHON (python)          the interpreter.
set -euo pipefail

config="" workdir="" rest=()
for argument in "$@"; do
  case "$argument" in
    --config=*) config="${argument#--config=}" ;;
    --workdir=*) workdir="${argument#--workdir=}" ;;
    *) rest+=("$argument") ;;
  esac
done
if [[ -z "$config" || -z "$workdir" ]]; then
  echo "usage: $0 --config=FILE.py[:OPTIONS] --workdir=DIR [FLAG...]" >&2
  exit 2
fi

python="${PYTHON:-python}"
file="${config%%:*}" options="${config#"$file"}" folders=()
for size in ${SIZES:-1 3 10 30 100}; do
  folders+=("$workdir/$size")
  "$python" -m tgt_jax.main \
    --config="$file:$size${options:+,${options#:}}" \
    --config.teacher_dir="$workdir/teacher" "${rest[@]}" \
    --workdir="$workdir/$size"
  # A run that was asked to stop has no results, and says how to resume.
  [[ -s "$workdir/$size/results.json" ]] || exit 0
done
"$python" -m tgt_jax.compare "${folders[@]}" --metric="${METRIC:-accuracy}" \
  --curve="$workdir/curve.png"
