#!/usr/bin/env bash
# Usage: tools/debian_packages.sh [cluster|fuzz]
#
# Installs missing system packages with apt-get, or names them and stops. It checks for commands,
# headers and libraries, so systems other than Debian work too. With cluster: also the packages of
# the test cluster, for root only, because the cluster needs root. With fuzz: also clang
# and libFuzzer.
set -euo pipefail
# shellcheck source=tools/helpers.sh
source "$(dirname "${BASH_SOURCE[0]}")/helpers.sh"

# apt-get needs sbin, which an ordinary user's PATH may lack.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

has_libfuzzer() { ls "$(clang++ -print-resource-dir)"/lib/*/libclang_rt.fuzzer*; }

need_build_packages
need ccache command -v ccache
need cmake command -v cmake
need git command -v git
need ninja-build command -v ninja
need openssh-client command -v ssh-keygen
need shellcheck command -v shellcheck
python=${PYTHON:-$(command -v python3.11 || command -v python3 || true)}
need python3-venv "$python" -c 'import ensurepip, venv'
need_python_headers python3-dev "$python"
if [ "${1:-}" = cluster ] && [ "$(id -u)" -eq 0 ]; then
  need debootstrap command -v debootstrap
  need iproute2 command -v ip
  need bindfs command -v bindfs
fi
if [ "${1:-}" = fuzz ]; then
  need clang command -v clang++
  need libclang-rt-dev has_libfuzzer
fi
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo -n)
if ! command -v apt-get >/dev/null || ! "${as_root[@]}" true 2>/dev/null; then
  die "system packages are missing (Debian's names): ${missing[*]}" \
    "sudo apt-get update && sudo apt-get install --no-install-recommends -y ${missing[*]}"
fi

echo "==> Debian packages: ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq "$@" &>>"$log"; }
# The list of an unrelated source may be out of date: only a failed installation is an error.
apt update || true
if ! apt install --no-install-recommends -y "${missing[@]}"; then
  cat "$log" >&2
  die "apt-get could not install: ${missing[*]}"
fi
