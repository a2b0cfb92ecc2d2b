# shellcheck shell=bash
# Sourced by the scripts of tools/, containers/ and tests/cluster/, on the host and in an image.
# The package list below is part of what an image is built from, so the keys of cached images
# include this file.

die() { # MESSAGE [HINT]...
  printf 'error: %s\n' "$1" >&2
  shift
  [ $# -eq 0 ] || printf 'hint: %s\n' "$@" >&2
  exit 1
}

missing=()
need() { # PACKAGE COMMAND...: add PACKAGE to `missing` if COMMAND fails
  "${@:2}" &>/dev/null || missing+=("$1")
}

need_build_packages() { # to compile the C++ core, and to run it
  # Ubuntu 22.04 has the C++ headers in the package of the C library.
  local msgpack=libmsgpack-cxx-dev
  ! grep -qs VERSION_CODENAME=jammy /etc/os-release || msgpack=libmsgpack-dev
  need g++ command -v g++
  need "$msgpack" eval '[ -e /usr/include/msgpack.hpp ] || [ -e /usr/local/include/msgpack.hpp ]'
  need libnuma1 grep -q libnuma.so.1 <(ldconfig -p)
  need libzmq3-dev pkg-config --exists libzmq
  need pkg-config command -v pkg-config
  need util-linux command -v lscpu
}

need_python_headers() { # PACKAGE PYTHON
  need "$1" "$2" -c 'import os, sysconfig
os.stat(os.path.join(sysconfig.get_path("include"), "Python.h"))'
}

pip_install() { # PYTHON ARGUMENT...: install the packages of a lock file and nothing else
  "$1" -m pip install --no-deps --no-build-isolation --no-compile --require-hashes \
    --disable-pip-version-check --progress-bar off "${@:2}"
}

# The version of torch in the lock file names the CPU build (+cpu), so no index can serve another.
with_torch_index() { # COMMAND...: with pip's configured index, then with PyTorch's own
  "$@" || "$@" --index-url https://download.pytorch.org/whl/cpu
}

compile_packages() { # PYTHON FOLDER
  # Some packages contain a file that does not compile; it is ignored.
  "$1" -m compileall -q -j 0 "$2" &>/dev/null || true
}
