"""Watching a job of a real Slurm by its id, from the login node."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

from cli import fast, set_arguments
from cluster.cluster import Cluster


def test_watches_a_job_from_pending_to_finished(cluster: Cluster) -> None:
    cluster.wait_until_idle()
    options = [*fast(), *set_arguments(["scenarios.server.min_duration_ms=15000"])]
    command = f"python -m sut.submit --nodes all --begin now+1hour {' '.join(options)}"
    submitted = cluster.run(command)
    found = re.search(r"job (\d+)", submitted.stdout)
    assert found, submitted.stdout + submitted.stderr
    job = found[1]

    pending = look(cluster, job)
    assert pending["state"] == "pending"
    assert pending["job"]["reason"] == "BeginTime" and pending["job"]["since"]
    assert pending["job"]["start"] > pending["job"]["since"]

    assert cluster.run(f"scontrol update JobId={job} StartTime=now").returncode == 0
    running = until(cluster, job, lambda state: bool(state["phases"][0]["completed"]))
    assert running["state"] == "running" and running["job"]["nodes"] == "jw[2-3]"
    assert [replica["node"] for replica in running["phases"][0]["replicas"]] == ["jw2", "jw3"]

    shown = cluster.run(f"python -m sut.watch {job}")
    assert shown.returncode == 0 and "VALID  replay, server" in shown.stdout, shown.stderr
    over = look(cluster, job)
    assert (over["state"], over["verdict"], over["run"]) == ("finished", "VALID", pending["run"])
    listed = json.loads(cluster.run("python -m sut.history --node jw3 --json").stdout)
    assert pending["run"].endswith(listed[0]["path"]) and listed[0]["nodes"] == "jw2,jw3"


def look(cluster: Cluster, job: str) -> dict[str, Any]:
    shown = cluster.run(f"python -m sut.watch {job} --json")
    assert shown.returncode == 0, shown.stderr
    return dict(json.loads(shown.stdout))


def until(
    cluster: Cluster, job: str, true: Callable[[dict[str, Any]], bool], timeout_s: float = 120
) -> dict[str, Any]:
    deadline = time.monotonic() + timeout_s
    while not true(state := look(cluster, job)):
        assert time.monotonic() < deadline, state
        time.sleep(1)
    return state
