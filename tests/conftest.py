"""Fixtures of several test files."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from cluster.cluster import COMPUTE, Cluster
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# Of a test file that starts the test cluster or a vLLM engine.
FILLS_THE_MACHINE = re.compile(r"\bmark\.vllm\b|\bcluster\.cluster\b|\bon_cluster\b")

# Other processes may take a core's time for as long as they like.
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")


def pytest_configure() -> None:
    # A shell ignores SIGINT in a background process, and every child process inherits that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # The package's own umask would hide the test cluster's files from its users.
    importlib.import_module("sut")
    os.umask(0o022)


@cache
def _fills_the_machine(file: Path) -> bool:
    return FILLS_THE_MACHINE.search(file.read_text()) is not None


class OneMachine(LoadScopeScheduling):
    """With several workers: a file's tests, and all that fill the machine, stay in one of them."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "the machine" if _fills_the_machine(self.config.rootpath / file) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneMachine | None:
    return OneMachine(config, log) if config.getoption("dist") == "load" else None


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The test cluster of this checkout, up. If it was up before, it stays up with its jobs."""
    if os.geteuid() != 0:
        pytest.skip("the test cluster needs root")
    ours = Cluster()
    was_up = ours.is_up()
    ours.up()
    yield ours
    if not was_up:
        ours.down()


@pytest.fixture
def idle(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster without jobs, before and after."""
    cluster.wait_until_idle()
    yield cluster
    cluster.run("scancel --user bench; scrontab -r")
    for node in COMPUTE:
        cluster.power_on(node)
        cluster.restore_link(node)
    cluster.wait_until_idle()


@pytest.fixture(scope="session")
def fake_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with libnvidia-ml.so.1 and libcuda.so.1."""
    folder = tmp_path_factory.mktemp("driver")
    source = Path(__file__).with_name("fake_driver.c")
    library = folder / "libnvidia-ml.so.1"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    shutil.copy(library, folder / "libcuda.so.1")
    return folder
