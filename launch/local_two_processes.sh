#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Several processes on one machine, joined as if they were several: for trying
# out on a laptop what a cluster does.
#
#   launch/local_two_processes.sh --config=configs/digits_lt.py:smoke \
#     --workdir=runs/two
#
# PROCESSES (2)    how many.
# PORT (12355)     where process 0 waits for the others.
# PYTHON (python)  the interpreter.
#
# Ctrl-C and SIGTERM are passed on: the run saves and ends, and the same command
# resumes it. If one process fails, the others are ended.
set -euo pipefail
cd "$(dirname "$0")/.."

processes="${PROCESSES:-2}"
export JAX_COORDINATOR_ADDRESS="127.0.0.1:${PORT:-12355}"
export JAX_NUM_PROCESSES="$processes"

pids=()
stop() { kill -TERM "${pids[@]}" 2>/dev/null || true; }
trap stop TERM INT

for ((id = 0; id < processes; id++)); do
  # Process 0 prints; the others only where something is wrong.
  out=/dev/stdout
  ((id == 0)) || out=/dev/null
  JAX_PROCESS_ID="$id" \
    "${PYTHON:-python}" -m tgt_jax.main "$@" >"$out" &
  pids+=("$!")
done

# wait returns early when a signal arrives; then the processes are still saving.
status=0
for pid in "${pids[@]}"; do
  while kill -0 "$pid" 2>/dev/null; do
    code=0
    wait "$pid" || code=$?
    kill -0 "$pid" 2>/dev/null && continue
    ((code == 0)) || { status=$code; stop; }
  done
done
exit "$status"
