#!/usr/bin/env bash
# Usage: containers/build.sh cpu|cuda [OPTION VALUE]...
#
# Builds an image of the project as the calling user. Options:
#   --output FILE    default: mlperf-sut-cpu.sif or mlperf-sut-cuda.sif in the current folder
#   --base IMAGE     the base: docker://NAME@DIGEST, a SIF or a folder with a root file system.
#                    cpu: a Debian 12 with Python 3.11, by default one from Docker Hub.
#                    cuda: vllm/vllm-openai:v0.32.0 by digest, or an image built on it
#   --wheels FOLDER  from containers/wheelhouse.sh; downloaded by default. A base that was built
#                    with --only packages needs none
#   --only PART      packages: a base for other images, without the project; project: the project
#                    on such a base, in about a minute
#
# With a base that has the Debian packages the build needs no network; see docs/images.md.
set -euo pipefail
readonly here=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
umask 022
# shellcheck source=tools/helpers.sh
source tools/helpers.sh

sources() { # the part of the checkout that goes into an image, as a tar archive
  tar --create --file - --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner \
    --mode=u+rwX,go+rX,go-w --exclude=__pycache__ --exclude='*.so' --exclude=sut/replay_engine \
    --anchored --no-wildcards --exclude-from=<(users_sites) \
    CMakeLists.txt LICENSE README.md pyproject.toml setup.py configs containers csrc \
    requirements sut tools
}

users_sites() { # untracked, one a line: a run's plan contains its own. None outside a checkout
  [ ! -e .git ] || git ls-files --others -z -- configs/sites 2>/dev/null | tr '\0' '\n'
}

revision() { # the commit, -dirty with changes, or unknown
  if [ -n "${SUT_REVISION:-}" ]; then
    echo "$SUT_REVISION"
  else
    python3 sut/machine/checkout.py
  fi
}

usage="containers/build.sh cpu|cuda [--output FILE] [--base IMAGE] [--wheels FOLDER] [--only PART]"
readonly usage

parse() {
  device=${1:-} output='' base='' wheels='' parts='packages project'
  case $device in
  cpu | cuda) shift ;;
  *) die "unknown device '$device': expected cpu or cuda" "$usage" ;;
  esac
  while [ $# -gt 0 ]; do
    case $1 in
    --output) output=$(from_here "${2:?--output FILE}") ;;
    --base) base=${2:?--base IMAGE} ;;
    --wheels) wheels=$(from_here "${2:?--wheels FOLDER}") ;;
    --only)
      parts=${2:-}
      [[ $parts =~ ^(packages|project)$ ]] ||
        die "invalid value '$parts' for --only: expected packages or project"
      ;;
    *) die "unknown option $1" "$usage" ;;
    esac
    shift 2
  done
  output=${output:-$here/mlperf-sut-$device.sif}
}

from_here() { # PATH: absolute, relative to the caller's folder
  case $1 in /*) echo "$1" ;; *) echo "$here/$1" ;; esac
}

check() {
  [ -z "${SLURM_JOB_ID:-}" ] ||
    die "an image cannot be built inside a job: the job's wall limit would end the build" \
      "build it on a login node and set container.image in the site file"
  [ "$device" = cpu ] || [ -n "$base" ] ||
    die "the cuda image needs --base docker://vllm/vllm-openai@sha256:DIGEST" \
      "skopeo inspect --format '{{.Digest}}' docker://docker.io/vllm/vllm-openai:v0.32.0"
  command -v apptainer >/dev/null || die "apptainer not found (tested with 1.4.5)" \
    "install it: https://apptainer.org/docs/admin/main/installation.html"
  check_base
  [ -n "$base" ] || [ -n "$wheels" ] || wheels=$(containers/wheelhouse.sh "$device")
  [ -z "$wheels" ] || [ -e "$wheels/complete" ] ||
    die "not a wheelhouse: $wheels" "containers/wheelhouse.sh $device $wheels"
}

check_base() {
  local -r digest='@sha256:[0-9a-f]{64}$'
  case $base in
  '') ;;
  docker://*)
    [[ $base =~ $digest ]] || die "--base $base has no digest of 64 hexadecimal digits" \
      "skopeo inspect --format '{{.Digest}}' $(sed 's#://\([^/]*\)/#://docker.io/\1/#; s#@.*##' <<<"$base")"
    ;;
  *) [ -e "$(from_here "$base")" ] || die "no such base: $(from_here "$base")" \
    "give a SIF, a folder with a root file system, or docker://NAME@DIGEST" ;;
  esac
}

build() {
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  local -r project=$scratch/mlperf-sut
  mkdir -p "$project"/{source,wheels,ccache}
  sources | tar --extract --file - --directory "$project/source"

  local arguments=(--build-arg "parts=$parts" --build-arg "revision=$(revision)"
    --build-arg "sources=$(sources | sha256sum | cut -d' ' -f1)"
    --mksquashfs-args "-comp zstd -Xcompression-level 3")
  case $base in
  '') ;;
  docker://*) arguments+=(--build-arg "base=${base#docker://}") ;;
  *) arguments+=(--build-arg bootstrap=localimage --build-arg "base=$(from_here "$base")") ;;
  esac
  [ -z "$wheels" ] || arguments+=(--bind "$wheels:/usr/src/mlperf-sut/wheels:ro")
  [ -z "${SUT_CCACHE:-}" ] || arguments+=(--bind "$SUT_CCACHE:/usr/src/mlperf-sut/ccache")

  mkdir -p "$(dirname "$output")"
  # A run that uses the existing image keeps it.
  local -r next=$output.next.$$
  (cd "$scratch" && apptainer build --force "${arguments[@]}" "$next" \
    "$OLDPWD/containers/$device.def") || { rm -f "$next" && die "apptainer could not build the image"; }
  mv "$next" "$output"
  echo "$output"
}

case ${1:-} in
# For a cache of images with keys made of their sources.
--print-sources) sources | sha256sum | cut -d' ' -f1 ;;
--print-revision) revision ;;
*)
  parse "$@"
  check
  build
  ;;
esac
