#!/usr/bin/env bash
# Usage: install_packages.sh cpu|cuda   (in the image, by %post of cpu.def and cuda.def)
#
# Installs everything the project needs except what the base has. Python packages come only from the
# wheelhouse, Debian packages from the base's own mirror.
set -euo pipefail
cd /usr/src/mlperf-sut/source
# shellcheck source=tools/helpers.sh
source tools/helpers.sh

readonly device=$1 wheels=/usr/src/mlperf-sut/wheels assets=/opt/mlperf-sut/assets

install_debian_packages() {
  need_build_packages
  case $device in
  cpu)
    need cmake command -v cmake
    need ninja-build command -v ninja
    need python3-venv python3 -c 'import ensurepip, venv'
    ;;
  cuda) need_python_headers python3.12-dev python3 ;;
  esac
  [ ${#missing[@]} -gt 0 ] || return 0
  # In a build without root, apt's sandbox user does not exist.
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq -o APT::Sandbox::User=root update
  apt-get -qq -o APT::Sandbox::User=root install --no-install-recommends -y "${missing[@]}"
  rm -rf /var/lib/apt/lists/*
}

install_lock() { # LOCK
  pip_install "$python" --no-index --find-links "$wheels" --no-cache-dir --root-user-action ignore \
    --quiet -r "$1"
}

install_python_packages() {
  local lock
  case $device in
  cpu)
    [ -e /opt/venv/bin/python ] || python3 -m venv /opt/venv
    python=/opt/venv/bin/python
    for lock in build torch-cpu cpu; do
      install_lock "requirements/$lock.lock"
    done
    ;;
  cuda)
    # vLLM's image was tested with its own versions: only missing packages are added.
    python=$(command -v python3)
    lock=$(mktemp)
    "$python" containers/missing.py requirements/cuda-image.lock >"$lock"
    PIP_BREAK_SYSTEM_PACKAGES=1 install_lock "$lock"
    rm "$lock"
    ;;
  esac
  compile_packages "$python" \
    "$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
}

install_assets() { # the model, the articles, nltk's data and LoadGen's sources
  [ ! -d "$assets" ] || return 0
  mkdir -p "$(dirname "$assets")"
  cp -r "$wheels/assets" "$assets"
  chmod -R a+rX "$assets"
}

install_debian_packages
install_python_packages
install_assets
