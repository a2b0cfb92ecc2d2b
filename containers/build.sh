#!/usr/bin/env bash
# Usage: containers/build.sh cpu|cuda [OPTION VALUE]...
#
# Builds an image of the project as the user who calls it. Options:
#   --output FILE    default: mlperf-sut-cpu.sif or mlperf-sut-cuda.sif here
#   --base IMAGE     what it is built on: docker://NAME@DIGEST, a SIF or a folder with a root file
#                    system. cpu: a Debian 12 with Python 3.11, by default one from Docker Hub.
#                    cuda: vllm/vllm-openai:v0.32.0 by digest, or what was built on it
#   --wheels FOLDER  from containers/wheelhouse.sh; fetched when it is needed and not given. A
#                    base that was built with --only packages needs none
#   --only PART      packages: leave out the project, for a base of other images; project: on such a
#                    base, which takes a minute
#
# A base that has the Debian packages needs no network; see docs/images.md.
set -euo pipefail
readonly here=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
umask 022

die() {
  printf 'error: %s\n' "$@" >&2
  exit 1
}

# What an image is made of, besides its base and packages.
sources() {
  tar --create --file - --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner \
    --mode=u+rwX,go+rX,go-w --exclude=__pycache__ --exclude='*.so' --exclude=sut/replay_engine \
    CMakeLists.txt LICENSE README.md pyproject.toml setup.py configs containers csrc \
    requirements sut tools
}

revision() { # the commit, or why there is none
  if [ -n "${SUT_REVISION:-}" ]; then
    echo "$SUT_REVISION"
  elif git rev-parse HEAD &>/dev/null; then
    echo "$(git rev-parse HEAD)$([ -z "$(git status --porcelain)" ] || echo -dirty)"
  else
    echo unknown
  fi
}

parse() {
  device=${1:-} output='' base='' wheels='' parts='packages project'
  case $device in
  cpu | cuda) shift ;;
  *) die "usage: containers/build.sh cpu|cuda [--output FILE] [--base IMAGE] [--wheels FOLDER]" \
    "  [--only packages|project]" ;;
  esac
  while [ $# -gt 0 ]; do
    case $1 in
    --output) output=$(from_here "${2:?--output FILE}") ;;
    --base) base=${2:?--base IMAGE} ;;
    --wheels) wheels=$(from_here "${2:?--wheels FOLDER}") ;;
    --only)
      parts=${2:-}
      [[ $parts =~ ^(packages|project)$ ]] || die "--only packages, or --only project"
      ;;
    *) die "unknown option $1; containers/build.sh's first lines list them" ;;
    esac
    shift 2
  done
  output=${output:-$here/mlperf-sut-$device.sif}
}

from_here() { # PATH: as the caller's folder has it
  case $1 in /*) echo "$1" ;; *) echo "$here/$1" ;; esac
}

check() {
  [ -z "${SLURM_JOB_ID:-}" ] ||
    die "an image is not built inside of a job: its wall limit would end the build." \
      "Build it on a login node and name it in the site file."
  [ "$device" = cpu ] || [ -n "$base" ] ||
    die "the cuda image needs --base docker://vllm/vllm-openai@sha256:DIGEST." \
      "The digest of v0.32.0 for linux/amd64: skopeo inspect --format '{{.Digest}}' \\" \
      "  docker://docker.io/vllm/vllm-openai:v0.32.0"
  command -v apptainer >/dev/null || die "apptainer is not installed (tried: 1.4.5)"
  [ -n "$base" ] || [ -n "$wheels" ] || wheels=$(containers/wheelhouse.sh "$device")
  [ -z "$wheels" ] || [ -e "$wheels/complete" ] ||
    die "$wheels is no wheelhouse: containers/wheelhouse.sh $device $wheels"
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
  # Who runs from the image that is there keeps it.
  local -r next=$output.next.$$
  (cd "$scratch" && apptainer build --force "${arguments[@]}" "$next" \
    "$OLDPWD/containers/$device.def") || { rm -f "$next" && die "the image could not be built"; }
  mv "$next" "$output"
  echo "$output"
}

case ${1:-} in
# For who keeps images by what they are made of.
--print-sources) sources | sha256sum | cut -d' ' -f1 ;;
--print-revision) revision ;;
*)
  parse "$@"
  check
  build
  ;;
esac
