#!/usr/bin/env bash
# Usage: containers/wheelhouse.sh cpu|cuda [FOLDER]
#
# Downloads the packages and assets of an image to FOLDER and prints its path: the Python packages
# of the lock files, LoadGen's sources, the embedded model and texts. Every file's hash is checked.
# Needs a network and pip; containers/build.sh then needs neither. FOLDER is by default in the
# cache, where the next call finds it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tools/helpers.sh
source tools/helpers.sh

case ${1:-} in
cpu) # Debian 12
  readonly python_version=3.11 glibc_minor=36
  readonly locks=(requirements/{build,cpu}.lock) torch=requirements/torch-cpu.lock
  ;;
cuda) # vLLM's image: Ubuntu 22.04
  readonly python_version=3.12 glibc_minor=35
  readonly locks=(requirements/cuda-image.lock) torch=
  ;;
*)
  die "unknown device '${1:-}': expected cpu or cuda" "containers/wheelhouse.sh cpu|cuda [FOLDER]"
  ;;
esac
readonly cache=${XDG_CACHE_HOME:-$HOME/.cache}/mlperf-sut
key=$(cat "${locks[@]}" ${torch:+"$torch"} containers/wheelhouse.sh sut/inputs/wheels.py \
  tools/loadgen_source.py | sha256sum | cut -c1-16)
readonly folder=${2:-$cache/wheels-$1-$key}
[ $# -gt 1 ] || { mkdir -p "$cache" && chmod go-w "$cache"; } # a run refuses what others may change

python=${PYTHON:-.venv/bin/python}
[ -x "$python" ] || python=python3
"$python" -c 'import msgspec' 2>/dev/null ||
  die "$python lacks packages" "make env, or: pip install -r requirements/host.lock"
[ -e "$folder/complete" ] || "$python" -m pip --version &>/dev/null ||
  die "$python has no pip, which downloads the packages" \
    "make env, or name a Python that has it: PYTHON=/path/to/python containers/wheelhouse.sh $1"

platforms=()
for ((minor = glibc_minor; minor >= 5; minor--)); do
  platforms+=(--platform "manylinux_2_${minor}_x86_64")
done

download() { # -r LOCK [ARGUMENT]...
  # One package has no wheel, so sources are allowed.
  echo "    $2" >&2
  "$python" -m pip download --quiet --no-deps --prefer-binary --require-hashes \
    --disable-pip-version-check --python-version "$python_version" "${platforms[@]}" \
    --platform manylinux2014_x86_64 --platform linux_x86_64 --dest "$folder" "$@"
}

if [ ! -e "$folder/complete" ]; then
  echo "==> Wheelhouse for the $1 image (once; kept in $folder)" >&2
  mkdir -p "$folder/assets"
  [ -z "$torch" ] || with_torch_index download -r "$torch"
  for lock in "${locks[@]}"; do
    download -r "$lock"
  done
  "$python" -m sut.assets "$folder/assets" >/dev/null
  "$python" tools/loadgen_source.py --sdist "$folder/assets"
  touch "$folder/complete"
fi
realpath "$folder"
