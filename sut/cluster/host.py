"""The host side of a run on one node: start its process, in a container or not, and wait for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from sut.cluster import allocation, claims, container, image, sbatch, slurm
from sut.errors import InputError
from sut.inputs import cache
from sut.plan.plan import Plan, load_plan
from sut.plan.site import Container
from sut.rundir import RunDir

OF_RUN = (signal.SIGTERM, signal.SIGUSR2)


def run_node(run_dir: RunDir, module: str = "sut.run", claim: str = "") -> int:
    """Run ``python -m MODULE RUN_DIR`` on this node as the plan wants it, in a container or not, to
    its end. ``claim`` is the token of this attempt's claim. Returns its exit code. Raises SutError.
    """
    plan = load_plan(run_dir.plan)
    of_job = slurm.forwarded_env(os.environ)
    given = {claims.TOKEN: claim, sbatch.SCRIPTS: sbatch.scripts()}
    environment = {**os.environ, **of_job, **given}
    here = allocation.of_process(environment)
    allocation.check(plan, here, run_dir)
    if plan.container is not None:
        node = here.nodes[here.node]
        return _run_in_container(plan, plan.container, run_dir, node, environment, module)
    argv = [sys.executable, "-m", module, str(run_dir)]
    return wait(argv, {**environment, cache.CACHE_VARIABLE: str(cache.cache_of(plan))})


def _run_in_container(
    plan: Plan,
    wanted: Container,
    run_dir: RunDir,
    node: str,
    environment: Mapping[str, str],
    module: str,
) -> int:
    source = Path(wanted.image)
    sha256 = image.sha256_of(source)
    staged = image.staged(source, sha256, wanted.node_cache)
    if wanted.verify:
        image.require_signature(wanted.command, staged)
    cache.cache_of(plan).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sut-", ignore_cleanup_errors=True) as scratch:
        inside = ["python3", "-m", module, str(run_dir)]
        argv = container.argv(plan, run_dir.root, staged, Path(scratch), inside)
        host = {**environment, allocation.IMAGE_SHA256: sha256}
        return wait(argv, container.environment(plan, host, node))


def wait(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command to its end. Returns its exit code, as a shell reports it.

    Slurm signals every process of a step. The run has its own handlers; this process and Apptainer
    must survive the signal, and a program that is started with a signal ignored keeps ignoring it.
    A blocked one is kept until the run, which may be signalled before it has its handlers, unblocks
    it. The terminal sends Ctrl-C to the run.
    """
    for each in OF_RUN:
        signal.signal(each, signal.SIG_IGN)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: None)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, OF_RUN)
    try:
        process = subprocess.Popen(command, env=dict(environment))
    except OSError as error:
        node = os.uname().nodename
        raise InputError(f"cannot start {command[0]} on {node}: {error.strerror}") from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    code = process.wait()
    return code if code >= 0 else 128 - code
