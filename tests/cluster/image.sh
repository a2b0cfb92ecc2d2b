#!/usr/bin/env bash
# Usage: tests/cluster/image.sh ROOT
#
# Prints the path of this checkout's CPU image. If the sources have changed, containers/build.sh
# builds it on ROOT, as an ordinary user, without a network. Its base, Debian 12 with all packages,
# is built on first use (about five minutes).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/cluster/common.sh
source tests/cluster/common.sh

readonly root=$1 bench=1500 ccache=$cache/cluster-ccache
readonly packages=(ca-certificates ccache cmake g++ libmsgpack-cxx-dev libnuma1 libzmq3-dev
  ninja-build pkg-config python3-dev python3-venv util-linux)

make_base() { # SCRATCH
  local wheels
  wheels=$(containers/wheelhouse.sh cpu)
  debootstrap --variant=minbase --include="$(IFS=, && echo "${packages[*]}")" \
    bookworm "$1/debian" "$(debian_mirror)"
  # An ordinary user copies it, so it has no devices and no unreadable files.
  rm -rf "$1"/debian/{dev/*,var/cache/apt/archives/*.deb,var/lib/apt/lists/*}
  rm -rf "$1"/debian/usr/share/{doc,locale,man}
  chown -R $bench:$bench "$1/debian"
  build "$1" "$wheels" /wheels ro -- --only packages --base debian --wheels /wheels
}

make_image() { # SCRATCH
  [ -d "$ccache" ] || install -d --owner $bench --group $bench "$ccache"
  SUT_CCACHE=/ccache build "$1" "$base" /base.sif ro "$ccache" /ccache rw -- \
    --only project --base /base.sif
}

build() { # SCRATCH [SOURCE TARGET ro|rw]... -- OPTION...
  local -r scratch=$1
  shift
  mkdir "$scratch/memory"
  chown $bench:$bench "$scratch"
  unshare --mount --uts --pid --ipc --net --fork --kill-child \
    tests/cluster/builder.sh "$root" "$scratch/memory" "$scratch" /build rw \
    "$PWD" /opt/mlperf-sut ro "$@" --output /build/made
  chown 0:0 "$scratch/made"
}

base_key=$(hash_of tests/cluster/image.sh containers/{install_packages,wheelhouse}.sh \
  tools/helpers.sh requirements/{build,torch-cpu,cpu}.lock)
readonly base=$cache/cluster-base-$base_key
key=$(hash_of <(echo "$base_key") <(containers/build.sh --print-sources))
readonly image=$cache/cluster-image-$key

if [ ! -e "$image" ]; then
  SUT_REVISION=$(containers/build.sh --print-revision)
  export SUT_REVISION
  make_once "$base" "Packages of the test cluster's image (five minutes, once)" make_base
  make_once "$image" "The test cluster's image of this checkout (a minute)" make_image
fi
touch "$image" "$base"
keep_newest 4 cluster-image
keep_newest 2 cluster-base
echo "$image"
