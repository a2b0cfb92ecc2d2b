#!/usr/bin/env bash
# Usage: tools/python_env.sh VENV
#
# Makes VENV, the checkout's Python environment, in a second on top of one that holds every
# package of requirements/ and is shared by all checkouts: CACHE/env-KEY, where KEY is the hash of
# the lock files and of the Python that runs them. Does nothing where VENV is already that.
#
# VENV/made-of holds KEY; it is written last, and only when it changes.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly venv=$1
readonly cache=${XDG_CACHE_HOME:-$HOME/.cache}/mlperf-sut
readonly locks=(requirements/{build,torch-cpu,cpu,test}.lock)
# Only what the locks name goes in, whatever this shell's own Python settings are.
unset PYTHONPATH PYTHONHOME
export PIP_USER=0 PYTHONNOUSERSITE=1 PIP_DISABLE_PIP_VERSION_CHECK=1

die() {
  printf 'error: %s\n' "$@" >&2
  exit 1
}

find_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3; do
    "$candidate" -c '
import sys
assert sys.version_info[:2] == (3, 11)
print(sys._base_executable)' 2>/dev/null && return
  done
  die "Python 3.11 is needed (the lock files are for it) and was not found." \
    "Install it, or name it: make PYTHON=/path/to/python3.11"
}

pip_install() { # ARGUMENT...: what pip says goes to the log, its progress to the terminal
  "$env/bin/python" -m pip install --no-deps --no-build-isolation --no-compile --require-hashes \
    --progress-bar off "$@" 2>&1 | tee -a "$log" |
    awk -v total="$total" '
      /^Collecting / && ++n % 25 == 0 { printf "    %d of %d packages\n", n, total; fflush() }
      /^Installing collected/ { print "    installing"; fflush() }'
}

install_torch() {
  # The version names the CPU build (+cpu), so no source can hand us the CUDA build in its place.
  # Where the sources pip is set up with have none, PyTorch's own index has it.
  local -r lock=requirements/torch-cpu.lock
  pip_install -r $lock || pip_install --index-url https://download.pytorch.org/whl/cpu -r $lock
}

make_env() {
  echo "==> Python packages, about 650 MB (2 to 4 minutes, once; kept in $env)"
  rm -rf "$env"
  mkdir -p "$env"
  "$python" -m venv "$env" &>"$log" || die "$(cat "$log")" "can't make a Python environment in $env"
  total=$(cat "${locks[@]}" | grep -c '==')
  if ! { pip_install -r requirements/build.lock && install_torch &&
    pip_install -r requirements/cpu.lock -r requirements/test.lock; }; then
    die "$(tail -n 20 "$log")" "the Python packages could not be installed; the whole log: $log"
  fi
  echo "    compiling"
  # One file of theirs that does not compile is none of our business.
  "$env/bin/python" -m compileall -q -j 0 "$env/lib" &>/dev/null || true
  touch "$env/complete"
}

python=$(find_python)
key=$({ cat "${locks[@]}" && "$python" -c 'import sys; print(sys.version, sys._base_executable)'; } |
  sha256sum | cut -c1-16)
readonly python key env=$cache/env-$key log=$cache/env-$key.log

if [ ! -e "$env/complete" ]; then
  mkdir -p "$cache" || die "$cache must be writable; XDG_CACHE_HOME moves it"
  exec {lock}>"$env.lock"
  flock -n "$lock" || { echo "==> Waiting for another set-up of the same packages" && flock "$lock"; }
  [ -e "$env/complete" ] || make_env
  exec {lock}>&-
fi

if [ "$(cat "$venv/made-of" 2>/dev/null)" != "$key" ] || ! "$venv/bin/python" -c ''; then
  rm -rf "$venv"
  "$python" -m venv --without-pip "$venv"
  site=$(cd "$env" && echo "$PWD"/lib/python3.11/site-packages)
  echo "import site; site.addsitedir('$site')" >"$venv/lib/python3.11/site-packages/packages.pth"
  echo "$key" >"$venv/made-of"
fi
