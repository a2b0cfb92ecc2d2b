"""What reads files, the output of commands and the network is fuzzed: docs/testing.md."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz.targets import TARGETS

ROOT = Path(__file__).parents[1]
CORPUS = Path(__file__).parent / "fuzz" / "corpus"
INPUTS = sorted(CORPUS.glob("*/*"))
SECONDS = "2"  # of each target


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_input_of_the_corpus(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


def test_every_target_has_inputs() -> None:
    assert {path.parent.name for path in INPUTS} == set(TARGETS)
    assert all(path.stat().st_size < 16_384 for path in INPUTS)


def fuzz(kind: str, *targets: str) -> None:
    python = os.path.relpath(sys.executable, ROOT)
    found = subprocess.run(
        [ROOT / "tools" / "fuzz.sh", python, SECONDS, kind, *targets],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr


def has_libfuzzer() -> bool:
    if not shutil.which("clang++"):
        return False
    found = subprocess.run(["clang++", "-print-resource-dir"], capture_output=True, text=True)
    return any(Path(found.stdout.strip()).glob("lib/*/libclang_rt.fuzzer*"))


@pytest.mark.skipif(
    not has_libfuzzer(), reason="needs clang and libFuzzer: make fuzz installs them"
)
@pytest.mark.timeout(1800)  # it compiles LoadGen and the dispatcher
def test_libfuzzer_finds_nothing_in_seconds() -> None:
    fuzz("cpp")


@pytest.mark.skipif(
    not (ROOT / "build" / "atheris").is_dir(), reason="needs atheris: make fuzz installs it"
)
@pytest.mark.parametrize("target", TARGETS)
def test_atheris_finds_nothing_in_seconds(target: str) -> None:
    fuzz("python", target)
