"""What tests of several files share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from cluster.cluster import COMPUTE, Cluster


def pytest_configure() -> None:
    # A shell that starts us in the background has us ignore it, and so would all that we start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The test cluster of this checkout, up. One that was up before is left up, with its jobs."""
    if os.geteuid() != 0:
        pytest.skip("a network of its own needs root")
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
