#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# SST-2 with few labels, all cells: 250 and 2 500 labels, a labeler that saw
# all labels or the student's, a student from random weights or BERT-Tiny's.
#
#   launch/text_study.sh --workdir=runs/sst2 \
#     --config.data.data_dir=DIR --config.data.tokenizer=words.json \
#     --config.labeler_weights=labeler.safetensors
#
# The runs are WORKDIR/2500, WORKDIR/2500,same and so on; each ends with its
# table. Teachers are in WORKDIR/teacher-2500, WORKDIR/teacher-2500,same and so
# on; a generator is trained once for each number of labels, since what is held
# out goes with them. The same command again resumes.
#
# CELLS ("2500 250 2500,same 250,same ...")  arguments of configs/sst2_low.py.
# TINY                                       weights of BERT-Tiny for ,tiny.
# PYTHON (python)                            the interpreter.
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

python="${PYTHON:-python}"
cells="${CELLS:-2500 250 2500,same 250,same}"
if [[ -z "${CELLS:-}" && -n "${TINY:-}" ]]; then
  cells+=" 2500,tiny 250,tiny 2500,same,tiny 250,same,tiny"
fi
for cell in $cells; do
  teacher="$workdir/teacher-${cell%%,*}" more=()
  other="$teacher,same"
  if [[ ",$cell," == *,same,* ]]; then
    # Its labeler has the student's labels; the generator is the same.
    other="$teacher" teacher="$teacher,same"
  fi
  if [[ -f "$other/generator.safetensors" &&
    ! -f "$teacher/generator.safetensors" ]]; then
    mkdir -p "$teacher"
    cp "$other/generator.safetensors" "$teacher"
  fi
  if [[ ",$cell," == *,tiny,* ]]; then
    more=(--config.student_weights="${TINY:?weights of BERT-Tiny}")
  fi
  "$python" -m tgt_jax.main --config="configs/sst2_low.py:$cell" \
    --config.teacher_dir="$teacher" "${more[@]}" "${rest[@]}" \
    --workdir="$workdir/$cell"
  # A run that was asked to stop has no results, and says how to resume.
  [[ -s "$workdir/$cell/results.json" ]] || exit 0
done
