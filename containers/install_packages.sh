#!/usr/bin/env bash
# Usage: install_packages.sh cpu|cuda   (in the image, by %post of cpu.def and cuda.def)
#
# Everything the project needs. What the base has already is left as it is; Python packages come
# from the wheelhouse alone, Debian packages from the base's own mirror.
set -euo pipefail
cd /usr/src/mlperf-sut/source

readonly device=$1 wheels=/usr/src/mlperf-sut/wheels assets=/opt/mlperf-sut/assets

has_header() { [ -e "/usr/include/$1" ] || [ -e "/usr/local/include/$1" ]; }

missing=()
need() { # PACKAGE COMMAND...: PACKAGE is missing if COMMAND fails
  local -r package=$1
  shift
  "$@" &>/dev/null || missing+=("$package")
}

install_debian_packages() {
  need g++ command -v g++
  need util-linux command -v lscpu
  need libnuma1 grep -q libnuma.so.1 <(ldconfig -p)
  need pkg-config command -v pkg-config
  need libzmq3-dev pkg-config --exists libzmq
  if ! has_header msgpack.hpp; then
    # Debian 12 and Ubuntu 24.04; before them the C++ headers were in the C library's package.
    missing+=("$(grep -q VERSION_CODENAME=jammy /etc/os-release && echo libmsgpack-dev ||
      echo libmsgpack-cxx-dev)")
  fi
  case $device in
  cpu)
    need cmake command -v cmake
    need ninja-build command -v ninja
    need python3-venv python3 -c 'import ensurepip, venv'
    ;;
  cuda) need python3.12-dev python3 -c '
import os, sysconfig
os.stat(os.path.join(sysconfig.get_path("include"), "Python.h"))' ;;
  esac
  [ ${#missing[@]} -gt 0 ] || return 0
  # In a build without root, apt's own user does not exist.
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq -o APT::Sandbox::User=root update
  apt-get -qq -o APT::Sandbox::User=root install --no-install-recommends -y "${missing[@]}"
  rm -rf /var/lib/apt/lists/*
}

pip_install() {
  "$python" -m pip install --no-deps --no-build-isolation --no-compile --require-hashes \
    --no-index --find-links "$wheels" --disable-pip-version-check --no-cache-dir \
    --root-user-action ignore --progress-bar off --quiet "$@"
}

install_python_packages() {
  local lock
  case $device in
  cpu)
    [ -e /opt/venv/bin/python ] || python3 -m venv /opt/venv
    python=/opt/venv/bin/python
    for lock in build torch-cpu cpu; do
      pip_install -r "requirements/$lock.lock"
    done
    ;;
  cuda)
    # vLLM's image is tested as it is: only what it lacks is added, and no version is changed.
    python=$(command -v python3)
    lock=$(mktemp)
    "$python" containers/missing.py requirements/cuda-image.lock >"$lock"
    PIP_BREAK_SYSTEM_PACKAGES=1 pip_install -r "$lock"
    rm "$lock"
    ;;
  esac
  # One file of theirs that does not compile is none of our business.
  "$python" -m compileall -q -j 0 "$("$python" -c '
import sysconfig
print(sysconfig.get_path("purelib"))')" &>/dev/null || true
}

install_assets() { # the model, articles and nltk's data, and LoadGen's sources
  [ ! -d "$assets" ] || return 0
  mkdir -p "$(dirname "$assets")"
  cp -r "$wheels/assets" "$assets"
  chmod -R a+rX "$assets"
}

install_debian_packages
install_python_packages
install_assets
