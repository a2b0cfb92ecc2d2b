#!/usr/bin/env bash
# Usage: tools/login_env.sh VENV
#
# Makes VENV, the small Python environment of a cluster's login and compute nodes: what submits
# runs, starts their containers and reads their results. No torch, nothing to compile. It must be
# on the file system the nodes share.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly venv=$1 lock=requirements/host.lock
unset PYTHONPATH PYTHONHOME
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1

key=$(sha256sum $lock | cut -c1-16)
[ "$(cat "$venv/made-of" 2>/dev/null)" != "$key" ] || exit 0

for python in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11; do
  "$python" -c 'import sys, venv; assert sys.version_info >= (3, 11)' 2>/dev/null && break
  python=
done
if [ -z "$python" ]; then
  echo "error: Python 3.11 or newer is needed and was not found." >&2
  echo "Name one: make login PYTHON=/path/to/python3" >&2
  exit 1
fi

echo "==> $venv, the environment of a login node"
rm -rf "$venv"
"$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --no-deps --only-binary :all: --require-hashes -r $lock
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo "$PWD" >"$site/mlperf-sut.pth"
echo "$key" >"$venv/made-of"
