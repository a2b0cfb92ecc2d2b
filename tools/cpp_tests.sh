#!/usr/bin/env bash
# Usage: tools/cpp_tests.sh PYTHON plain|address|thread...
#
# Builds the C++ tests of each kind in build/ and runs them: plain, with the objects of sut._core;
# with AddressSanitizer and UndefinedBehaviorSanitizer; with ThreadSanitizer.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly python=$PWD/$1
shift
jobs=$(nproc)
readonly jobs

# With ThreadSanitizer a program may fail to start under strong address randomization.
fixed_addresses=()
if setarch -R true 2>/dev/null; then
  fixed_addresses=(setarch -R)
fi

for kind in "$@"; do
  # -O1 halves the build time of the sanitized tests; assertions stay on.
  case $kind in
  plain) build=build/release options=(-DCMAKE_BUILD_TYPE=Release) ;;
  *) build=build/$kind options=(
    -DSUT_PYTHON=OFF -DSUT_SANITIZE="$kind" -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-O1 -g1") ;;
  esac
  echo "    $kind"
  mkdir -p "$build"
  if ! {
    cmake -S . -B "$build" -G Ninja -DSUT_TESTS=ON -DPython3_EXECUTABLE="$python" "${options[@]}" &&
      cmake --build "$build" --parallel "$jobs" --target cpp_tests
  } >"$build/build.log" 2>&1; then
    tail -n 60 "$build/build.log" >&2
    exit 1
  fi
  "${fixed_addresses[@]}" ctest --test-dir "$build" --output-on-failure --no-tests=error
done
