# shellcheck shell=bash
# Sourced by the scripts that make the test cluster's large files. The files are kept in the user's
# cache, each named by the hash of its inputs.
# shellcheck source=tools/helpers.sh
source tools/helpers.sh

readonly cache=${XDG_CACHE_HOME:-$HOME/.cache}/mlperf-sut

hash_of() { # FILE...: 16 digits
  cat "$@" | sha256sum | cut -c1-16
}

debian_mirror() { # the mirror that this machine uses
  local found
  found=$(grep -hoP '^(URIs:|deb) *(\[.*\] *)?\Khttps?://\S+' /etc/apt/sources.list \
    /etc/apt/sources.list.d/* 2>/dev/null | grep debian | grep -v security | head -n 1) || true
  echo "${found:-http://deb.debian.org/debian}"
}

make_once() { # TARGET TITLE COMMAND...: COMMAND FOLDER makes FOLDER/made, which becomes TARGET
  local -r target=$1 title=$2
  shift 2
  local lock scratch told status=0
  [ ! -e "$target" ] || return 0
  mkdir -p "$cache"
  exec {lock}>"$cache/cluster.lock"
  flock -n "$lock" || { echo "==> Waiting for another set-up of the cluster" >&2 && flock "$lock"; }
  rm -rf --one-file-system "$cache"/cluster-scratch-* # left by a killed set-up
  if [ ! -e "$target" ]; then
    echo "==> $title; kept in $target" >&2
    scratch=$(mktemp -d "$cache/cluster-scratch-XXXXXX")
    : >"$target.log"
    tell_progress "$target.log" >/dev/null {lock}>&- &
    told=$!
    # In a condition, set -e would have no effect.
    set +e
    (set -e && "$@" "$scratch") &>"$target.log" {lock}>&-
    status=$?
    set -e
    kill "$told"
    wait "$told" 2>/dev/null || true
    [ $status -ne 0 ] || mv "$scratch/made" "$target"
    rm -rf --one-file-system "$scratch"
  fi
  exec {lock}>&-
  if [ $status -ne 0 ]; then
    tail -n 30 "$target.log" >&2
    die "could not make $target" "read the log: $target.log"
  fi
}

tell_progress() { # LOG: print its last line now and then
  local -r log=$1
  local line last=""
  SECONDS=0
  while sleep 20 2>/dev/null; do
    line=$(tail -n 1 "$log" | tr -d '\r' | cut -c 1-90)
    [ "$line" != "$last" ] || line="still at it"
    echo "    $SECONDS s: $line" >&2
    last=$line
  done
}

keep_newest() { # COUNT PREFIX: remove the other files, except the root of a running cluster
  local path
  while read -r path; do
    grep -qsxF "$path" /var/tmp/mlperf-sut-*-cluster/root ||
      rm -rf --one-file-system "$path" "$path.log"
  done < <(find "$cache" -maxdepth 1 -name "$2-????????????????" -printf '%T@ %p\n' |
    sort -rn | tail -n +$(($1 + 1)) | cut -d' ' -f2-)
}
