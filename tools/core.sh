#!/usr/bin/env bash
# Usage: tools/core.sh PYTHON
#
# Builds the C++ core in place and, in parallel, converts the demo's model for vLLM. Logs:
# build/core.log and build/model.log.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tools/helpers.sh
source tools/helpers.sh
# shellcheck source=tools/progress.sh
source tools/progress.sh

readonly python=$1 log=build/core.log model_log=build/model.log

build_core() {
  SUT_BUILD_DIR=build/release "$python" -m pip install --verbose --no-deps --no-build-isolation \
    --editable . &>"$log"
}

convert_model() { "$python" -m sut.assets --convert &>"$model_log"; }

steps() { # of ninja, from the last of its lines "[N/M] Building ..."
  echo "    $(sed -nE 's|^ *\[([0-9]+)/([0-9]+)\].*|\1 of \2 steps|p' "$log" | tail -n 1 | grep . ||
    echo preparing)"
}

echo "==> C++ core (about a minute the first time); the demo's model, converted for vLLM (20 s, once)"
mkdir -p build
in_background convert_model
model=$!
with_progress steps build_core || {
  tail -n 60 "$log" >&2
  die "the C++ core does not build" "read the log: $PWD/$log"
}
wait "$model" || {
  echo "warning: no model yet; the first run that needs it tries again" >&2
  cat "$model_log" >&2
}
