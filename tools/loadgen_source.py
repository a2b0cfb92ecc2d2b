"""Print the folder of LoadGen's sources, downloaded on first use.

Usage: loadgen_source.py [--sdist FOLDER]. With a folder, only copy the sdist there.

The sources are those of the pinned PyPI sdist, unmodified and with a checked hash. They are kept in
the user's cache folder, never in the repository. Without a network, set SUT_LOADGEN_SDIST to a copy
of the sdist.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VERSION = "6.0.17"
SDIST = f"mlcommons_loadgen-{VERSION}.tar.gz"
SHA256 = "a2e85d09e3cc0c606f89bfe1fbf97537c8b5b238ae0afbd923ad9c710fcf2ca8"


def main() -> None:
    if sys.argv[1:2] == ["--sdist"]:
        with tempfile.TemporaryDirectory() as temporary:
            shutil.copy(checked(find_sdist(Path(temporary))), sys.argv[2])
        return
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlperf-sut"
    target = cache / f"loadgen-{VERSION}-{SHA256[:12]}"
    if not target.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        cache.chmod(cache.stat().st_mode & ~0o022)  # a run refuses what others may change
        with tempfile.TemporaryDirectory(dir=cache) as temporary:
            unpack(checked(find_sdist(Path(temporary))), Path(temporary))
            try:
                (Path(temporary) / SDIST.removesuffix(".tar.gz")).rename(target)
            except OSError:  # another build was faster
                if not target.is_dir():
                    raise
    print(target)


def find_sdist(folder: Path) -> Path:
    given = os.environ.get("SUT_LOADGEN_SDIST")
    if given:
        return Path(given)
    # pip uses the package index that this machine is configured with.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-binary", ":all:", "--dest", str(folder)]
    command += [f"mlcommons_loadgen=={VERSION}"]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(
            f"{run.stderr.strip()}\nerror: pip could not download LoadGen's sources ({SDIST})\n"
            f"hint: download the file elsewhere, then: export SUT_LOADGEN_SDIST=/path/to/{SDIST}"
        )
    return folder / SDIST


def checked(sdist: Path) -> Path:
    try:
        digest = hashlib.sha256(sdist.read_bytes()).hexdigest()
    except OSError as error:
        sys.exit(f"error: {sdist}: {error.strerror}")
    if digest != SHA256:
        sys.exit(f"error: wrong sha256 ({sdist}): {digest}; LoadGen {VERSION} has {SHA256}")
    return sdist


def unpack(sdist: Path, folder: Path) -> None:
    with tarfile.open(sdist) as archive:
        # The data filter needs Python 3.11.4 and Debian 12 has 3.11.2. The file's hash is checked.
        if hasattr(tarfile, "data_filter"):
            archive.extraction_filter = tarfile.data_filter
        archive.extractall(folder)


if __name__ == "__main__":
    main()
