# shellcheck shell=bash
# Sourced by the scripts that run C++ tests.

# With ThreadSanitizer a program may fail to start under strong address randomization.
at_fixed_addresses() { # COMMAND...
  if setarch -R true 2>/dev/null; then
    setarch -R "$@"
  else
    "$@"
  fi
}

# Builds a target in FOLDER; its output is printed only if it fails.
cmake_build() { # FOLDER TARGET CMAKE_OPTION...
  local folder=$1 target=$2
  shift 2
  mkdir -p "$folder"
  if ! {
    cmake -S . -B "$folder" -G Ninja "$@" &&
      cmake --build "$folder" --parallel "$(nproc)" --target "$target"
  } >"$folder/build.log" 2>&1; then
    tail -n 60 "$folder/build.log" >&2
    exit 1
  fi
}

# Builds the C++ tests (or one of them) plain, with the objects of sut._core; with address, with
# AddressSanitizer and UndefinedBehaviorSanitizer; with thread, with ThreadSanitizer.
build_tests() { # PYTHON plain|address|thread [TARGET]; sets `build` to the folder
  # -O1 halves the build time of the sanitized tests; assertions stay on.
  local options=(-DSUT_PYTHON=OFF "-DSUT_SANITIZE=$2" -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-O1 -g1")
  build=build/$2
  if [ "$2" = plain ]; then
    build=build/release options=(-DCMAKE_BUILD_TYPE=Release)
  fi
  cmake_build "$build" "${3:-cpp_tests}" -DSUT_TESTS=ON -DPython3_EXECUTABLE="$1" "${options[@]}"
}
