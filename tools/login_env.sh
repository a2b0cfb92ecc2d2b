#!/usr/bin/env bash
# Usage: tools/login_env.sh VENV
#
# Creates VENV, the small Python environment of a cluster's login and compute nodes: it submits
# runs, starts containers and reads results. No torch, nothing to compile. It must be on the file
# system that the nodes share.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tools/helpers.sh
source tools/helpers.sh
readonly venv=$1 lock=requirements/host.lock
unset PYTHONPATH PYTHONHOME
export PIP_USER=0

key=$(cat $lock tools/login_env.sh | sha256sum | cut -c1-16)
[ "$(cat "$venv/made-of" 2>/dev/null)" != "$key" ] || exit 0

for python in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11; do
  "$python" -c 'import sys, venv; assert sys.version_info >= (3, 11)' 2>/dev/null && break
  python=
done
[ -n "$python" ] || die "Python 3.11 or newer not found" "make login PYTHON=/path/to/python3"

echo "==> $venv, the environment of a login node"
rm -rf "$venv"
"$python" -m venv "$venv"
pip_install "$venv/bin/python" --quiet --compile --only-binary :all: -r $lock
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo "$PWD" >"$site/mlperf-sut.pth"
# What pip makes of [project.scripts] where the project is installed.
cat >"$venv/bin/sut" <<'SCRIPT'
#!/bin/sh
# PYTHON_ARGCOMPLETE_OK
exec "$(dirname "$0")/python" -m sut "$@"
SCRIPT
chmod +x "$venv/bin/sut"
echo "$key" >"$venv/made-of"
