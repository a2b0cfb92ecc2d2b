#!/usr/bin/env bash
# Usage: tools/debian_packages.sh [cluster]
#
# Installs the system packages that are missing, or names them and stops. Looks for the things
# themselves, not for Debian's packages, so any system that has them will do. With cluster: what the
# test cluster needs besides; it needs root, too, so an ordinary user is asked for nothing.
set -euo pipefail

has_header() { [ -e "/usr/include/$1" ] || [ -e "/usr/local/include/$1" ]; }

missing=()
need() { # PACKAGE COMMAND...: PACKAGE is missing if COMMAND fails
  local -r package=$1
  shift
  "$@" &>/dev/null || missing+=("$package")
}

# apt-get and its tools need sbin, which an ordinary user's PATH may lack.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

need ccache command -v ccache
need cmake command -v cmake
need g++ command -v g++
need git command -v git
need libmsgpack-cxx-dev has_header msgpack.hpp
need libnuma1 grep -q libnuma.so.1 <(ldconfig -p)
need ninja-build command -v ninja
need pkg-config command -v pkg-config
need libzmq3-dev pkg-config --exists libzmq
need shellcheck command -v shellcheck
need util-linux command -v lscpu

python=${PYTHON:-$(command -v python3.11 || command -v python3 || true)}
need python3-venv "$python" -c 'import ensurepip, venv'
need python3-dev "$python" -c '
import os, sysconfig
os.stat(os.path.join(sysconfig.get_path("include"), "Python.h"))'

if [ "${1:-}" = cluster ] && [ "$(id -u)" -eq 0 ]; then
  need debootstrap command -v debootstrap
  need iproute2 command -v ip
fi

[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  as_root=(sudo -n)
fi
if ! command -v apt-get >/dev/null || ! "${as_root[@]}" true 2>/dev/null; then
  cat >&2 <<END
error: these system packages are missing (Debian's names): ${missing[*]}
Install them, then run make again:
  sudo apt-get update && sudo apt-get install --no-install-recommends -y ${missing[*]}
END
  exit 1
fi

echo "==> Debian packages: ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq "$@" &>>"$log"; }
# A stale list of another source must not stop us: what counts is the installation.
apt update || true
if ! apt install --no-install-recommends -y "${missing[@]}"; then
  cat "$log" >&2
  echo "error: apt-get could not install: ${missing[*]}" >&2
  exit 1
fi
