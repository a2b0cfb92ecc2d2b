# shellcheck shell=bash
# Sourced by what makes the test cluster's large files. They are kept in the user's cache, each
# named by the hash of what it is made from.

readonly cache=${XDG_CACHE_HOME:-$HOME/.cache}/mlperf-sut

hash_of() { # FILE...: 16 digits
  cat "$@" | sha256sum | cut -c1-16
}

debian_mirror() { # this machine's
  local found
  found=$(grep -hoP '^(URIs:|deb) *(\[.*\] *)?\Khttps?://\S+' /etc/apt/sources.list \
    /etc/apt/sources.list.d/* 2>/dev/null | grep debian | grep -v security | head -n 1) || true
  echo "${found:-http://deb.debian.org/debian}"
}

make_once() { # TARGET WHAT COMMAND...: COMMAND FOLDER makes FOLDER/made, which becomes TARGET
  local -r target=$1 what=$2
  shift 2
  local lock scratch status=0
  [ ! -e "$target" ] || return 0
  mkdir -p "$cache"
  exec {lock}>"$cache/cluster.lock"
  flock -n "$lock" || { echo "==> Waiting for another set-up of the cluster" >&2 && flock "$lock"; }
  rm -rf --one-file-system "$cache"/cluster-scratch-* # of one that was killed
  if [ ! -e "$target" ]; then
    echo "==> $what; kept in $target" >&2
    scratch=$(mktemp -d "$cache/cluster-scratch-XXXXXX")
    # As a condition it would not end at the first error.
    set +e
    (set -e && "$@" "$scratch") &>"$target.log" {lock}>&-
    status=$?
    set -e
    [ $status -ne 0 ] || mv "$scratch/made" "$target"
    rm -rf --one-file-system "$scratch"
  fi
  exec {lock}>&-
  if [ $status -ne 0 ]; then
    tail -n 30 "$target.log" >&2
    echo "error: it could not be made; the whole log: $target.log" >&2
    exit 1
  fi
}

keep_newest() { # COUNT PREFIX: remove the others, but for what a cluster runs on
  local path
  while read -r path; do
    grep -qsxF "$path" /var/tmp/mlperf-sut-*-cluster/root ||
      rm -rf --one-file-system "$path" "$path.log"
  done < <(find "$cache" -maxdepth 1 -name "$2-????????????????" -printf '%T@ %p\n' |
    sort -rn | tail -n +$(($1 + 1)) | cut -d' ' -f2-)
}
