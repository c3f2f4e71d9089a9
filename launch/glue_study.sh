#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# LGTM and its ten baselines on tasks of GLUE with small public networks, and
# their table, methods by tasks.
#
#   launch/glue_study.sh --workdir=runs/glue --data_dir=GLUE \
#     --teacher=BERT_TINY --tokenizer=tokenizer.json
#
# GLUE has the folders MRPC, RTE, SST-2 and STS-B; BERT_TINY is the folder or file of
# public weights. Words that a task does not use are left out of its networks.
# Further flags are passed on to tgt_jax.main; the same command again resumes.
#
# TASKS ("sst2 mrpc rte")  what to run; also stsb.
# SIZE (tiny)              tiny: BERT-Tiny teaches its first layer;
#                          minilm: MiniLM-L6 teaches its layers 1, 3 and 5.
# PYTHON (python)          the interpreter.
set -euo pipefail

workdir="" data="" teacher="" tokenizer="" rest=()
for argument in "$@"; do
  case "$argument" in
    --workdir=*) workdir="${argument#*=}" ;;
    --data_dir=*) data="${argument#*=}" ;;
    --teacher=*) teacher="${argument#*=}" ;;
    --tokenizer=*) tokenizer="${argument#*=}" ;;
    *) rest+=("$argument") ;;
  esac
done
if [[ -z "$workdir" || -z "$data" || -z "$teacher" || -z "$tokenizer" ]]; then
  echo "usage: $0 --workdir=DIR --data_dir=GLUE --teacher=WEIGHTS" \
    "--tokenizer=FILE [FLAG...]" >&2
  exit 2
fi

case "${SIZE:=tiny}" in
  tiny) converter=bert_tiny_tf layers=0 suffix="" ;;
  minilm) converter=minilm_l6 layers=1,3,5 suffix=",minilm" ;;
  *) echo "SIZE: expected tiny or minilm, got $SIZE" >&2 && exit 2 ;;
esac

for file in "$teacher" "$tokenizer"; do
  [[ -e "$file" ]] || { echo "there is no $file" >&2 && exit 2; }
done
# Other weights or words make other files, and a run of its own.
contents="$(find "$teacher" "$tokenizer" -type f -exec sha256sum {} + |
  cut -d' ' -f1 | sort)"
made="$(sha256sum <<<"$SIZE $contents")"

python="${PYTHON:-python}" tasks="${TASKS:-sst2 mrpc rte}" runs=()
files="$workdir/files/${made:0:12}"
mkdir -p "$files"

# Makes a file once: NAME MODULE ARGUMENT...
once() {
  local file="$files/$1"
  shift
  [[ -f "$file" ]] || "$python" -m "$@" --out="$file"
}

once teacher.safetensors tgt_jax.weights convert "$teacher" --to="$converter"
once student.safetensors tgt_jax.weights convert "$teacher" --to="$converter" \
  --layers="$layers"
for task in $tasks; do
  once "$task.json" tgt_jax.data.vocabulary --tokenizer="$tokenizer" \
    --data="{\"name\": \"glue\", \"task\": \"$task\", \"data_dir\": \"$data\"}"
  for name in teacher student; do
    once "$task-$name.safetensors" tgt_jax.weights words \
      "$files/$name.safetensors" --old="$tokenizer" --new="$files/$task.json"
  done
  "$python" -m tgt_jax.main --config="configs/glue_small.py:$task$suffix" \
    --config.data.data_dir="$data" \
    --config.data.tokenizer="$files/$task.json" \
    --config.labeler_weights="$files/$task-teacher.safetensors" \
    --config.student_weights="$files/$task-student.safetensors" \
    "${rest[@]}" --workdir="$workdir/$task"
  # A run that was asked to stop has no results, and says how to resume.
  [[ -s "$workdir/$task/results.json" ]] || exit 0
  runs+=("$workdir/$task")
done
"$python" -m tgt_jax.compare "${runs[@]}" --across
