#!/usr/bin/env bash
# Every night, on both nodes: sbatch --begin=02:00 slurm/nightly.sh [options of python -m sut.submit]
# Exits with 1 if a result is worse than earlier ones of its plan. Runs never overlap.
#SBATCH --job-name=sut-nightly
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gres=gpu:1
#SBATCH --mem=0
#SBATCH --time=04:00:00
#SBATCH --signal=USR2@120
#SBATCH --requeue
#SBATCH --dependency=singleton
#SBATCH --open-mode=append
set -euo pipefail
exec python3 -m sut.nightly "$@"
