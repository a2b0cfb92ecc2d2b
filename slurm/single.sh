#!/usr/bin/env bash
# One node: sbatch slurm/single.sh [RUN | options of python -m sut.submit]
# Without arguments: MLPerf's Server scenario. Options of sbatch go before the script.
#SBATCH --job-name=sut-single
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gres=gpu:1
#SBATCH --mem=0
#SBATCH --time=04:00:00
#SBATCH --signal=USR2@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
exec python3 -m sut.batch "$@"
