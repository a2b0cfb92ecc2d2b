#!/usr/bin/env bash
# Usage: tools/lock.sh [--upgrade]
#
# Resolves pyproject.toml's extras into requirements/*.lock: exact versions with hashes. Without
# --upgrade it keeps locked versions that satisfy the requirements. Reads only metadata.
#
# uv does not read pip's settings: behind a mirror, set UV_DEFAULT_INDEX.
# requirements/torch-cpu.lock is written by hand; see its comment.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly tool=build/lock-tool
python3 -m venv "$tool"
"$tool/bin/python" -m pip install --quiet --require-hashes -r requirements/lock-tool.lock

compile() { # NAME PYTHON_VERSION ARGUMENT...
  local -r name=$1 version=$2
  shift 2
  echo "==> requirements/$name.lock"
  "$tool/bin/python" -m uv pip compile --quiet --generate-hashes --no-emit-index-url \
    --python-platform x86_64-manylinux_2_28 --python-version "$version" \
    --custom-compile-command "make lock" --output-file "requirements/$name.lock" "$@"
}

compile build 3.11 "$@" requirements/build.in
compile cpu 3.11 "$@" --constraint requirements/build.lock --excludes requirements/cpu.exclude \
  --extra cpu pyproject.toml requirements/torch-cpu.in
compile test 3.11 "$@" --constraint requirements/build.lock --constraint requirements/cpu.lock \
  --group test
# For login and compute nodes, outside containers: Debian 13.
compile host 3.13 "$@" pyproject.toml
# The Python of vLLM's own image.
compile cuda 3.12 "$@" --extra cuda pyproject.toml
# The packages to add to that image where it lacks them; never vLLM itself.
compile cuda-image 3.12 "$@" --constraint requirements/cuda.lock \
  --excludes requirements/cuda-image.exclude --extra run pyproject.toml requirements/cuda-image.in
