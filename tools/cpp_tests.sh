#!/usr/bin/env bash
# Usage: tools/cpp_tests.sh PYTHON plain|address|thread...
#
# Builds the C++ tests of each kind in build/ and runs them (tools/cpp_build.sh).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tools/cpp_build.sh
source tools/cpp_build.sh

readonly python=$PWD/$1
shift

for kind in "$@"; do
  echo "    $kind"
  build_tests "$python" "$kind"
  at_fixed_addresses ctest --test-dir "$build" --output-on-failure --no-tests=error
done
