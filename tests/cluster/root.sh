#!/usr/bin/env bash
# Usage: tests/cluster/root.sh
#
# Prints the folder of the root file system that the test cluster's nodes run on, made on first use
# (about two minutes): Debian 13 with Slurm, its accounting, Apptainer, and an ordinary user, bench.
# Mirror and apt settings are this machine's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly cache=${XDG_CACHE_HOME:-$HOME/.cache}/mlperf-sut
key=$(cat tests/cluster/root.sh requirements/host.lock | sha256sum | cut -c1-16)
readonly root=$cache/cluster-root-$key log=$cache/cluster-root-$key.log

if [ -e "$root/complete" ]; then
  echo "$root"
  exit
fi

mirror=$(grep -hoP '^(URIs:|deb) *(\[.*\] *)?\Khttps?://\S+' /etc/apt/sources.list \
  /etc/apt/sources.list.d/* 2>/dev/null | grep -v security | head -n 1) || true
readonly mirror=${mirror:-http://deb.debian.org/debian}

in_root() { # COMMAND...: in the new root, with this machine's network and pip settings
  chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
    DEBIAN_FRONTEND=noninteractive "$@"
}

make_root() {
  rm -rf --one-file-system "$root"
  mkdir -p "$root"
  debootstrap --variant=minbase trixie "$root" "$mirror"
  cp /etc/apt/apt.conf.d/* "$root/etc/apt/apt.conf.d/" 2>/dev/null || true
  rm -f "$root"/etc/apt/apt.conf.d/docker*
  # Apptainer is in unstable alone; nothing else is taken from there.
  cat >"$root/etc/apt/sources.list" <<END
deb $mirror trixie main
deb $mirror sid main
END
  printf 'Package: *\nPin: release n=sid\nPin-Priority: 100\n' >"$root/etc/apt/preferences.d/sid"
  # No service starts while packages are installed.
  printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
  chmod +x "$root/usr/sbin/policy-rc.d"
  mount -t proc proc "$root/proc"
  in_root apt-get -qq update
  in_root apt-get -qq install --no-install-recommends -y apptainer ca-certificates fuse-overlayfs \
    iproute2 iputils-ping mariadb-server munge procps python3 python3-venv slurm-wlm slurmdbd \
    squashfuse
  in_root useradd --uid 1500 --create-home --shell /bin/bash bench
  make_host_python
  umount "$root/proc"
  touch "$root/complete"
}

make_host_python() { # what runs outside of containers, for login and compute nodes
  local -r wheels=$root/tmp/wheels
  python3 -m pip download --quiet --no-deps --only-binary :all: --python-version 3.13 \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
    --platform manylinux2014_x86_64 --dest "$wheels" \
    --require-hashes -r requirements/host.lock
  in_root python3 -m venv /opt/host
  in_root bash -c '/opt/host/bin/python -m pip install --quiet --no-index --no-deps /tmp/wheels/*.whl'
  rm -rf "$wheels"
}

mkdir -p "$cache"
exec {lock}>"$root.lock"
flock "$lock"
if [ ! -e "$root/complete" ]; then
  echo "==> The test cluster's root file system (about two minutes, once; kept in $root)" >&2
  if ! (make_root) &>"$log"; then
    mountpoint -q "$root/proc" && umount "$root/proc"
    tail -n 20 "$log" >&2
    echo "error: it could not be made; the whole log: $log" >&2
    exit 1
  fi
fi
echo "$root"
