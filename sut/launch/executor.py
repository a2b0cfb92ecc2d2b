"""Submits a run through submitit: to Slurm, or to a process on this machine."""

from __future__ import annotations

import io
import os
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any, NamedTuple

from sut import interrupts
from sut.cluster import partitions, sbatch, slurm
from sut.cluster.sbatch import Submission
from sut.errors import InputError, SutError
from sut.launch import node
from sut.machine import modules
from sut.plan.benchmark import EngineKind
from sut.plan.plan import Plan
from sut.plan.site import Device
from sut.results import diagnosis
from sut.rundir import RunDir
from sut.units import quantity

FOREVER_MIN = 60 * 24 * 365  # by default, submitit's local executor ends a job after two minutes

_GPU = re.compile(r"\d+|(GPU|MIG)-[0-9A-Za-z/-]+")


class Submitted(NamedTuple):
    """A submitted run. ``log`` is the output of its first node. ``exited`` is whether its process
    on this machine has; None for a job of Slurm."""

    job_id: str
    log: Path
    exited: Callable[[], bool] | None = None


def check_submission(plan: Plan, submission: Submission) -> None:
    """Raise InputError for options of Slurm where the plan's site has none."""
    if plan.slurm is None and submission != Submission():
        raise InputError(
            f"--begin and --dependency need a Slurm site; site {plan.site} is a single machine",
            hint="leave out --begin and --dependency",
        )


def check(plan: Plan, submission: Submission) -> None:
    """Raise InputError if this machine cannot submit the plan."""
    check_submission(plan, submission)
    if plan.slurm is not None and not slurm.is_here():
        raise InputError(
            f"site {plan.site} is a Slurm cluster, but sbatch was not found on this machine",
            hint="run the command on the cluster's login node, or use --site local",
        )
    if plan.container is None:  # an image has its own Python
        of_engine = modules.OF_VLLM if plan.engine.kind is EngineKind.VLLM else ()
        modules.require(modules.OF_EVERY_RUN + of_engine)
    if plan.slurm is None and plan.device is Device.CUDA:
        _check_gpus(_visible_gpus(), sum(node.gpus for node in plan.nodes))


def submit(plan: Plan, run_dir: RunDir, submission: Submission) -> Submitted:
    """Start the run, or queue it. Raises SutError."""
    here = plan.slurm is None
    job = _submit_here(plan, run_dir) if here else _submit_to_slurm(plan, run_dir, submission)
    return Submitted(str(job.job_id), Path(job.paths.stdout), job.done if here else None)


def load_submitit() -> Any:
    """Import submitit without its logging handlers.

    They would keep the standard streams of the first import and write each warning to both, so
    also into the output of ``--json``. Without them, Python prints warnings to standard error.
    """
    name = "SUBMITIT_LOG_LEVEL"
    before = os.environ.get(name)
    os.environ[name] = "NOCONFIG"
    try:
        import submitit
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
    return submitit


def _submit_here(plan: Plan, run_dir: RunDir) -> Any:
    submitit = load_submitit()
    executor = submitit.LocalExecutor(folder=run_dir.job)
    log = shlex.quote(str(run_dir.controller_log))
    executor.update_parameters(
        timeout_min=FOREVER_MIN,
        stderr_to_stdout=True,
        # The job outlives the terminal: it keeps no pipe of it open and ignores its Ctrl-C,
        # which ends only the follower.
        setup=[
            "trap '' INT HUP",
            f"exec </dev/null >>{log} 2>&1",
            sbatch.only_from_own_folder(run_dir),
            *_with_gpus(plan),
        ],
    )
    try:
        with interrupts.held():  # in its first moments the job does not ignore Ctrl-C yet
            return executor.submit(node.launch, str(run_dir))
    except OSError as error:
        raise SutError(
            f"cannot start the run ({error.filename or run_dir}): {error.strerror}", code="submit"
        ) from None


def _with_gpus(plan: Plan) -> list[str]:
    """The shell command that gives a run its GPUs. submitit hides all of them from a local job, and
    knows only numbers."""
    if plan.device is not Device.CUDA:
        return []
    number = sum(node.gpus for node in plan.nodes)
    names = _visible_gpus() or [str(gpu) for gpu in range(number)]
    return [f"export CUDA_VISIBLE_DEVICES={shlex.quote(','.join(names[:number]))}"]


def _check_gpus(visible: list[str], count: int) -> None:
    if other := [gpu for gpu in visible if not _GPU.fullmatch(gpu)]:
        raise InputError(
            "CUDA_VISIBLE_DEVICES is not a list of GPU numbers or UUIDs: "
            f"{', '.join(map(repr, other))}",
            hint="export CUDA_VISIBLE_DEVICES=0,1 (as nvidia-smi -L lists them)",
        )
    if visible and len(visible) < count:
        raise InputError(
            f"the run needs {quantity(count, 'GPUs')}, but CUDA_VISIBLE_DEVICES lists "
            f"{len(visible)}",
            hint="unset CUDA_VISIBLE_DEVICES, or run fewer replicas: --set site.num_replicas=1",
        )


def _visible_gpus() -> list[str]:
    """The GPUs in CUDA_VISIBLE_DEVICES; empty if it is not set."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return [gpu.strip() for gpu in listed if gpu.strip()]


def _submit_to_slurm(plan: Plan, run_dir: RunDir, submission: Submission) -> Any:
    submitit = load_submitit()
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    executor = submitit.SlurmExecutor(folder=run_dir.job)
    executor.update_parameters(**sbatch.parameters(plan, run_dir, submission, _excluded(plan)))
    try:
        # submitit prints what sbatch prints, which is in its error too.
        with _own_environment(), interrupts.held(), redirect_stderr(io.StringIO()):
            return executor.submit(node.launch, str(run_dir))
    except (FailedJobError, FailedSubmissionError, OSError) as error:
        lines = (line.removeprefix("sbatch: error: ") for line in str(error).splitlines())
        known = diagnosis.known(str(error))
        raise SutError(
            f"Slurm refused the job ({run_dir.job}): {'; '.join(filter(None, lines))}",
            hint=known.remedy if known else f"correct {_what_sbatch_got(plan, submission)}",
            code="submit",
        ) from None


def _what_sbatch_got(plan: Plan, submission: Submission) -> str:
    given = {"--begin": submission.begin, "--dependency": submission.dependency}
    options = [name for name, value in given.items() if value]
    return (
        " or ".join([*options, f"slurm: in the file of site {plan.site}"])
        + "; to leave an option out: docs/sites.md"
    )


def _excluded(plan: Plan) -> list[str]:
    """The nodes of the partition that Slurm must not choose; empty if Slurm does not answer."""
    candidates = {node.name for node in plan.candidates}
    if plan.slurm is None or not candidates:
        return []
    partition = partitions.chosen(plan.slurm, partitions.known(plan.slurm.clusters))
    return [name for name in partition.nodes if name not in candidates] if partition else []


@contextmanager
def _own_environment() -> Iterator[None]:
    """Hide the Slurm settings of this shell, and of a job it runs in, from a new job."""
    kept = dict(os.environ)
    for name in kept:
        if name.startswith(("SBATCH_", "SRUN_")) or (
            name.startswith("SLURM_") and name != "SLURM_CONF"
        ):
            del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(kept)
