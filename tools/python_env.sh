#!/usr/bin/env bash
# Usage: tools/python_env.sh VENV
#
# Creates VENV, the checkout's Python environment, in about a second: it refers to CACHE/env-KEY,
# which has every package of requirements/ and is shared by all checkouts. KEY is the hash of the
# lock files and of the Python version. Does nothing if VENV is up to date.
#
# VENV/made-of contains KEY; it is written last, and only when it changes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tools/helpers.sh
source tools/helpers.sh
# shellcheck source=tools/progress.sh
source tools/progress.sh

readonly venv=$1
readonly cache=${XDG_CACHE_HOME:-$HOME/.cache}/mlperf-sut
readonly locks=(requirements/{build,torch-cpu,cpu,test}.lock)
# Only the packages of the locks, whatever this shell's own Python settings are.
unset PYTHONPATH PYTHONHOME
export PIP_USER=0 PYTHONNOUSERSITE=1

mkdir -p "$cache"
chmod go-w "$cache" # a run refuses a cache that others may change

find_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3; do
    "$candidate" -c '
import sys
assert sys.version_info[:2] == (3, 11)
print(sys._base_executable)' 2>/dev/null && return
  done
  die "Python 3.11 not found (the lock files are for it)" \
    "install it, or name it: make PYTHON=/path/to/python3.11"
}

install_packages() { # pip's output
  install -r requirements/build.lock &&
    with_torch_index install -r requirements/torch-cpu.lock &&
    install -r requirements/cpu.lock -r requirements/test.lock
}

install() { pip_install "$env/bin/python" "$@" 2>&1; }

progress() { # TOTAL: of pip's output
  awk -v total="$1" '
    /^(Collecting|Processing|Requirement already satisfied:?) / && (++n % 25 == 0 || n == total) {
      printf "    %d of %d packages\n", n, total; fflush()
    }
    /^Installing collected/ && n >= total { print "    installing"; fflush() }'
}

number_of_packages() { # LOCK...: that one call of pip installs
  sed -n 's/^\([^ #]*\)==.*/\1/p' "$@" | sort -u | wc -l
}

make_env() {
  echo "==> Python packages, about 650 MB (2 to 4 minutes, once; kept in $env)"
  rm -rf "$env"
  mkdir -p "$env"
  "$python" -m venv "$env" &>"$log" ||
    die "could not create a Python environment ($env): $(cat "$log")"
  local -r total=$(($(number_of_packages requirements/build.lock) +
    $(number_of_packages requirements/torch-cpu.lock) +
    $(number_of_packages requirements/{cpu,test}.lock)))
  install_with_progress() { install_packages | tee -a "$log" | progress "$total"; }
  in_background install_with_progress
  if ! wait $!; then
    tail -n 20 "$log" >&2
    die "could not install the Python packages" "read the log: $log"
  fi
  echo "    compiling them (a minute)"
  with_progress still compile_packages "$env/bin/python" "$env/lib"
  touch "$env/complete"
}

python=$(find_python)
key=$({ cat "${locks[@]}" && "$python" -c 'import sys; print(sys.version, sys._base_executable)'; } |
  sha256sum | cut -c1-16)
readonly python key env=$cache/env-$key log=$cache/env-$key.log

if [ ! -e "$env/complete" ]; then
  mkdir -p "$cache" || die "$cache is not writable" "set XDG_CACHE_HOME to another folder"
  exec {lock}>"$env.lock"
  flock -n "$lock" || {
    echo "==> Waiting for another set-up of the same packages ($log)"
    with_progress still flock "$lock"
  }
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
