#!/usr/bin/env bash
# Usage: builder.sh ROOT FOLDER [SOURCE TARGET ro|rw]... -- OPTION...
#
# Run by image.sh as the first process of new namespaces, without a network: runs
# containers/build.sh cpu OPTION... on ROOT as bench, with each SOURCE bound to TARGET. All other
# writes go to an overlay in memory, mounted at FOLDER.
set -euo pipefail
# shellcheck source=tests/cluster/rootfs.sh
source "$(dirname "${BASH_SOURCE[0]}")/rootfs.sh"

root=$1 folder=$2
shift 2
binds=()
while [ "$1" != -- ]; do
  binds+=("$1")
  shift
done
shift

become_root_file_system "$folder" "$root" "${binds[@]}"
ip link set lo up
cd /build
export HOME=/build TMPDIR=/build APPTAINER_TMPDIR=/build
unset XDG_CACHE_HOME
exec setpriv --reuid=bench --regid=bench --init-groups /opt/mlperf-sut/containers/build.sh cpu "$@"
