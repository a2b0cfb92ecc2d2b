#!/usr/bin/env bash
# Usage: tools/core.sh PYTHON
#
# Builds the C++ core in place, and beside it converts the demo's model for vLLM. A long build says
# every 20 seconds how far it is. Output of the build: build/core.log.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tools/helpers.sh
source tools/helpers.sh

readonly python=$1 log=build/core.log model_log=build/model.log

steps_done() { # of ninja, as "N of M": the last of its lines "[N/M] Building ..."
  sed -nE 's|^ *\[([0-9]+)/([0-9]+)\].*|\1 of \2|p' "$log" | tail -n 1
}

echo "==> C++ core (about a minute the first time); the demo's model, converted for vLLM (20 s, once)"
mkdir -p build
: >"$log"
"$python" -m sut.assets --convert &>"$model_log" &
model=$!
SUT_BUILD_DIR=build/release "$python" -m pip install --verbose --no-deps --no-build-isolation \
  --editable . &>"$log" &
core=$!
trap 'kill "$core" "$model" 2>/dev/null || true' EXIT

told=$SECONDS
while kill -0 "$core" 2>/dev/null; do
  sleep 0.2
  if ((SECONDS - told >= 20)); then
    told=$SECONDS
    echo "    compiling: $(steps_done) steps"
  fi
done
wait "$core" || {
  tail -n 60 "$log" >&2
  die "the C++ core does not build" "read the log: $PWD/$log"
}
wait "$model" || {
  echo "warning: no model yet; the first run that needs it tries again" >&2
  cat "$model_log" >&2
}
