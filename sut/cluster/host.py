"""The host side of a run: starts ``sut.run`` on one node, in a container or not, and waits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from sut.cluster import allocation, container, image, slurm
from sut.cluster.allocation import Allocation
from sut.command import command
from sut.errors import InputError
from sut.inputs import cache
from sut.plan.plan import Plan, load_plan
from sut.rundir import RunDir


def launch(run_dir: str) -> None:
    """What submitit pickles and runs in its job; leaves with the exit code of :func:`run_node`.

    submitit's own handler of SIGUSR2 would requeue the job at the wall limit, in the middle of
    everything; it gives way to ours.
    """
    code = command(run_node)(RunDir(run_dir))
    if code != 0:
        sys.exit(code)


def run_node(run_dir: RunDir) -> int:
    """This node's part of a run, to its end. Returns its exit code. Raises SutError."""
    plan = load_plan(run_dir.plan)
    environment = {**os.environ, **slurm.handed_on(os.environ)}
    here = allocation.of_process(environment)
    allocation.check(plan, here)
    return _run(plan, run_dir, here, environment)


def _run(plan: Plan, run_dir: RunDir, here: Allocation, environment: Mapping[str, str]) -> int:
    cache_folder = cache.cache_of(plan)
    if plan.container is None:
        argv = [sys.executable, "-m", "sut.run", str(run_dir)]
        return wait(argv, {**environment, cache.CACHE_VARIABLE: str(cache_folder)})
    source = Path(plan.container.image)
    sha256 = image.sha256_of(source)
    staged = image.staged(source, sha256, plan.container.node_cache)
    environment = {**environment, allocation.IMAGE_SHA256: sha256}
    cache_folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sut-", ignore_cleanup_errors=True) as scratch:
        inside = container.run_command(run_dir.root)
        argv = container.argv(plan, run_dir.root, staged, Path(scratch), inside)
        added = container.environment(plan, environment, here.nodes[here.node])
        return wait(argv, {**environment, **added})


def wait(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run it to its end. Slurm signals every process of a step: the run has handlers of its own,
    and what stands between, this process and Apptainer's, must not die of it. A program that is
    started with a signal ignored goes on ignoring it. Ctrl-C reaches the run from the terminal."""
    for each in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(each, signal.SIG_IGN)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: None)
    try:
        code = subprocess.call(command, env=dict(environment))
    except OSError as error:
        raise InputError(
            f"{command[0]} can't be started on {os.uname().nodename}: {error.strerror}"
        ) from None
    return code if code >= 0 else 128 - code
