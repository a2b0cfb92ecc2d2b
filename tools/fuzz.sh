#!/usr/bin/env bash
# Usage: tools/fuzz.sh PYTHON SECONDS cpp|python|schedules [TARGET...]
#
# Runs each target for SECONDS, by default all of the kind:
#   cpp        of csrc/fuzz, with libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer
#   python     of tests/fuzz, with atheris
#   schedules  csrc/tests/exactly_once_test.cc: plain, address, thread
# An input that fails ends it and stays in build/fuzz/found. build/fuzz/corpus has the inputs that
# reached more code; the next call starts with them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tools/helpers.sh
source tools/helpers.sh
# shellcheck source=tools/cpp_build.sh
source tools/cpp_build.sh

readonly python=$PWD/$1 seconds=$2 kind=$3
shift 3

# A length that a wire or a file claims must become neither memory nor time.
readonly limits=(-rss_limit_mb=2048 -malloc_limit_mb=256 -timeout=20)

fuzz() { # TARGET INPUTS COMMAND...
  local name=$1 inputs=$2 new=build/fuzz/corpus/$1 log=build/fuzz/$1.log
  shift 2
  mkdir -p "$new" build/fuzz/found
  if ! "$@" "$new" "$inputs" "${limits[@]}" -max_total_time="$seconds" \
    -artifact_prefix="build/fuzz/found/$name-" &>"$log"; then
    tail -n 40 "$log" >&2
    die "fuzz target $name fails" "repeat it with the file in build/fuzz/found: $* FILE"
  fi
  # Its last line of progress has the executions, the edges and the features of the code reached.
  printf '    %-10s %s\n' "$name" "$(grep -E '^#[0-9]+\s+DONE' "$log" | tr -s '\t ' ' ')"
}

case $kind in
cpp)
  command -v clang++ >/dev/null || die "clang++ not found" "sudo apt-get install clang libclang-rt-dev"
  cmake_build build/fuzz/cpp fuzz_targets -DSUT_PYTHON=OFF -DSUT_FUZZ=ON -DSUT_SANITIZE=address \
    -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-O1 -g1" \
    -DPython3_EXECUTABLE="$python"
  [ $# -gt 0 ] || set -- outputs handshake requests dispatcher
  for name in "$@"; do
    # The allocations of other threads look like leaks between two inputs of the dispatcher.
    [ "$name" != dispatcher ] || leaks=-detect_leaks=0
    fuzz "$name" "csrc/fuzz/corpus/$name" "build/fuzz/cpp/csrc/fuzz/${name}_fuzz" "${leaks:--detect_leaks=1}"
  done
  ;;
python)
  if [ ! -d build/atheris ]; then
    pip_install "$python" --quiet --target build/atheris -r tests/fuzz/requirements.txt
  fi
  export PYTHONPATH=$PWD/tests:$PWD/build/atheris
  [ $# -gt 0 ] || mapfile -t names < <(ls tests/fuzz/corpus)
  for name in "${@:-${names[@]}}"; do
    # The corpus has longer inputs, which pytest runs too; on average short ones reach more.
    fuzz "$name" "tests/fuzz/corpus/$name" "$python" -m fuzz "$name" -max_len=400
  done
  ;;
schedules)
  [ $# -gt 0 ] || set -- plain address thread
  for sanitizer in "$@"; do
    samples=20000
    [ "$sanitizer" = plain ] || samples=5000
    build_tests "$python" "$sanitizer" exactly_once_test
    log=build/fuzz/schedules-$sanitizer.log
    mkdir -p build/fuzz
    export TSAN_OPTIONS="suppressions=$PWD/csrc/tests/tsan.supp halt_on_error=1 report_thread_leaks=0"
    if ! at_fixed_addresses "$build/csrc/tests/exactly_once_test" \
      "$build/csrc/replay_engine/replay_engine" "$RANDOM" "$seconds" "$samples" &>"$log"; then
      tail -n 40 "$log" >&2
      die "exactly_once_test fails ($sanitizer)" "read the log, with its seed: $log"
    fi
    printf '    %-10s %s\n' "$sanitizer" "$(tail -n 1 "$log")"
  done
  ;;
*) die "invalid kind '$kind': expected cpp, python or schedules" ;;
esac
