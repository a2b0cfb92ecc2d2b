#!/usr/bin/env bash
# Usage: tests/cluster/root.sh
#
# Prints the folder of the root file system of the test cluster's nodes, made on first use (about a
# minute): Debian 13 with Slurm, its accounting, Apptainer, and an ordinary user, bench. It uses
# this machine's mirror and apt settings.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/cluster/common.sh
source tests/cluster/common.sh

readonly packages=(apptainer ca-certificates fakeroot fuse-overlayfs git iproute2 iputils-ping less
  mariadb-server munge nano procps python3 slurm-wlm slurmdbd squashfs-tools squashfuse)

make_root() { # SCRATCH
  root=$1/made
  mkdir "$root"
  debootstrap --variant=minbase trixie "$root" "$(debian_mirror)"
  cp /etc/apt/apt.conf.d/* "$root/etc/apt/apt.conf.d/" 2>/dev/null || true
  rm -f "$root"/etc/apt/apt.conf.d/docker*
  # Only Apptainer comes from unstable; Debian 13 does not have it.
  cat >"$root/etc/apt/sources.list" <<END
deb $(debian_mirror) trixie main
deb $(debian_mirror) sid main
END
  printf 'Package: *\nPin: release n=sid\nPin-Priority: 100\n' >"$root/etc/apt/preferences.d/sid"
  # No service starts while packages are installed.
  printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
  chmod +x "$root/usr/sbin/policy-rc.d"
  mount -t proc proc "$root/proc"
  trap 'umount "$root/proc"' EXIT
  in_root apt-get -qq update
  in_root apt-get -qq install --no-install-recommends -y "${packages[@]}"
  in_root apt-get -qq clean
  rm -rf "$root"/var/lib/apt/lists/*
  in_root useradd --uid 1500 --create-home --shell /bin/bash bench
  # Root owns the checkout that bench reads.
  in_root git config --system --add safe.directory '*'
  make_host_python
}

in_root() { # COMMAND...: in the new root, with this machine's network
  chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
    DEBIAN_FRONTEND=noninteractive "$@"
}

make_host_python() { # for login and compute nodes, outside containers
  python3 -m pip install --quiet --no-deps --require-hashes -r requirements/host.lock \
    --target "$root/usr/local/lib/python3.13/dist-packages" --python-version 3.13 \
    --only-binary :all: --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
    --platform manylinux2014_x86_64
  ln -s /usr/bin/python3 "$root/usr/local/bin/python"
  echo /opt/mlperf-sut >"$root/usr/local/lib/python3.13/dist-packages/mlperf-sut.pth"
}

key=$(hash_of tests/cluster/root.sh requirements/host.lock)
readonly root_folder=$cache/cluster-root-$key
make_once "$root_folder" "The test cluster's Debian, Slurm and Apptainer (a minute, once)" make_root
touch "$root_folder"
keep_newest 2 cluster-root
echo "$root_folder"
