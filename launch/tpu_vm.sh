#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Google Cloud TPU virtual machines, one host or a whole pod slice, started from
# your own machine. The repository must be installed on every host, and
# --workdir be a folder that all of them see (Filestore or NFS).
#
#   TPU_NAME=my-tpu ZONE=us-central2-b \
#     launch/tpu_vm.sh --config=configs/digits_lt.py --workdir=/mnt/runs/digits
#
# TPU_NAME, ZONE          as given to `gcloud compute tpus tpu-vm create`.
# PROJECT                 if it is not gcloud's default.
# REPOSITORY (~/tgt_jax)  where the repository lies on the hosts.
#
# On the only host of a small TPU simply run
#   python -m tgt_jax.main --config=... --workdir=...
set -euo pipefail
: "${TPU_NAME:?set TPU_NAME to the name of the TPU}"
: "${ZONE:?set ZONE to its zone}"

# JAX finds the other hosts of the slice by itself; --multihost=auto sees how
# many there are. The quoting survives the two shells in between.
arguments=""
(($# == 0)) || arguments="$(printf ' %q' "$@")"

exec gcloud compute tpus tpu-vm ssh "$TPU_NAME" --zone="$ZONE" \
  ${PROJECT:+--project="$PROJECT"} --worker=all \
  --command="cd ${REPOSITORY:-~/tgt_jax} && python -m tgt_jax.main$arguments"
