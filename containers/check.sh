#!/usr/bin/env bash
# Usage: check.sh   (in the image, by %test of cpu.def and cuda.def)
#
# A complete run in the image, without a model: LoadGen, the dispatcher and the replay engine. Its
# verdict must be VALID.
set -euo pipefail

# The value of TMPDIR comes from the host.
scratch=$(mktemp -d -p /tmp)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
export XDG_CACHE_HOME=$scratch/cache TMPDIR=$scratch

python3 -c 'import sut._core, torch, vllm'
python3 -m sut.submit --config replay --scenario offline \
  --set scenarios.offline.target_qps=10000 --set scenarios.offline.min_duration_ms=500 \
  --set engine.replay.step_base_us=200 --set engine.replay.step_per_sequence_us=0 \
  --set engine.replay.prefill_tokens_per_s=10000000
