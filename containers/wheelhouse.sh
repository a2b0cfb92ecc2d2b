#!/usr/bin/env bash
# Usage: containers/wheelhouse.sh cpu|cuda [FOLDER]
#
# Fetches what an image is made of into FOLDER and prints it: the Python packages that the lock files
# name, LoadGen's sources, the embedded model and texts. All are checked by their hashes. Needs a
# network and pip; containers/build.sh needs neither after it. FOLDER: by default in the cache,
# where a second run finds it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() {
  printf 'error: %s\n' "$@" >&2
  exit 1
}

case ${1:-} in
cpu) # Debian 12
  readonly python_version=3.11 glibc_minor=36
  readonly locks=(requirements/{build,cpu}.lock) torch=requirements/torch-cpu.lock
  ;;
cuda) # vLLM's image: Ubuntu 22.04
  readonly python_version=3.12 glibc_minor=35
  readonly locks=(requirements/cuda-image.lock) torch=
  ;;
*) die "usage: containers/wheelhouse.sh cpu|cuda [FOLDER]" ;;
esac
readonly cache=${XDG_CACHE_HOME:-$HOME/.cache}/mlperf-sut
key=$(cat "${locks[@]}" ${torch:+"$torch"} containers/wheelhouse.sh sut/inputs/wheels.py \
  tools/loadgen_source.py | sha256sum | cut -c1-16)
readonly folder=${2:-$cache/wheels-$1-$key}

python=${PYTHON:-.venv/bin/python}
[ -x "$python" ] || python=python3
"$python" -c 'import msgspec' 2>/dev/null ||
  die "$python lacks packages: make build, or pip install -r requirements/host.lock"

platforms=()
for ((minor = glibc_minor; minor >= 5; minor--)); do
  platforms+=(--platform "manylinux_2_${minor}_x86_64")
done

download() { # ARGUMENT...
  # One package has no wheel, so sources are taken too.
  "$python" -m pip download --quiet --no-deps --prefer-binary --require-hashes \
    --disable-pip-version-check --python-version "$python_version" "${platforms[@]}" \
    --platform manylinux2014_x86_64 --platform linux_x86_64 --dest "$folder" "$@"
}

if [ ! -e "$folder/complete" ]; then
  echo "==> Wheelhouse for the $1 image (once; kept in $folder)" >&2
  mkdir -p "$folder/assets"
  # Where the sources pip is set up with have no CPU build of torch, PyTorch's own index has it.
  [ -z "$torch" ] || download -r "$torch" ||
    download --index-url https://download.pytorch.org/whl/cpu -r "$torch"
  for lock in "${locks[@]}"; do
    download -r "$lock"
  done
  "$python" -m sut.assets "$folder/assets"
  "$python" tools/loadgen_source.py --sdist "$folder/assets"
  touch "$folder/complete"
fi
realpath "$folder"
