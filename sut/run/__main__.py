"""A run on one of its nodes: ``python -m sut.run RUN_DIR``, started on every node.

The first node is the head. It serves the replicas of all nodes, runs each phase under LoadGen, and
writes the record and the report, also after a failure. It exits with the record's exit code. The
other nodes run engines for the head and exit with 0 when it ends the run.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from sut import messages, output
from sut.cluster import sbatch
from sut.cluster.allocation import Allocation, check, of_process
from sut.command import run_dir_of
from sut.errors import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_VALID, RunError, SutError
from sut.plan.placement import on_nodes
from sut.plan.plan import Mode, Plan, load_plan
from sut.report.summary import summary
from sut.results import attempts, record
from sut.run.measure import measure
from sut.run.recorder import Recorder
from sut.run.signals import Signals, keep_code_in_memory
from sut.rundir import RunDir
from sut.serving import follower

MAX_DESCRIPTORS = 2**17  # some programs that inherit it close as many, one by one


def main(argv: Sequence[str] | None = None) -> NoReturn:
    output.protect(is_the_result=False)
    run_dir = run_dir_of(argv, "sut.run", "Run a plan on this node of its job.")
    signals = Signals()
    with contextlib.suppress(OSError, ValueError):  # a precaution
        keep_code_in_memory()
    _raise_descriptor_limit()
    allocation = of_process()
    try:
        plan = load_plan(run_dir.plan)
        check(plan, allocation, run_dir)
        if plan.mode is not Mode.PREFLIGHT:  # of sut.doctor, which has nothing to keep
            signals.continuing = sbatch.continuing(plan, run_dir)
        if allocation.node > 0:
            _leave(_follow(plan, run_dir, allocation))
        recorder = Recorder(plan, run_dir, allocation)
        recorder.begin()
        failure = _attempt(recorder, allocation, signals)
        result = recorder.finish(failure)
    except SutError as error:
        _leave(error.exit_code, f"error: {error}")
    except OSError as error:
        _leave(EXIT_FAILED, f"error: {error.filename or run_dir}: {error.strerror}")
    except Exception as error:
        traceback.print_exc()
        _leave(EXIT_FAILED, f"error: internal error: {error!r}")
    _leave(result.exit_code, _text(result, run_dir))


def _text(result: record.Record, run_dir: RunDir) -> str:
    """The result for people. A bug in it must not change the exit code."""
    try:
        return summary(result, run_dir)
    except Exception:
        traceback.print_exc()
        return f"{result.headline}  {run_dir.record}"


def _raise_descriptor_limit() -> None:
    """Each connection of a stranger takes a descriptor for up to 3 s. With the usual 1,024, a
    program of another user could end a run."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _follow(plan: Plan, run_dir: RunDir, allocation: Allocation) -> int:
    """Run a node other than the head. Raises InputError where the head does."""
    # Without phases left, the head may end before this node starts.
    if _head_is_done(run_dir, allocation) or attempts.earlier(plan, run_dir).all_done(plan):
        return EXIT_VALID
    return follower.serve(on_nodes(plan, allocation.nodes), run_dir, allocation)


def _head_is_done(run_dir: RunDir, allocation: Allocation) -> bool:
    if not run_dir.record.is_file():
        return False
    found = record.read(run_dir.record)
    this = (allocation.job_id, allocation.attempt)
    attempted = [(each.job_id, each.restart) for each in found.attempts]
    return found.status == "completed" and attempted[-1:] == [this]


def _attempt(recorder: Recorder, allocation: Allocation, signals: Signals) -> SutError | None:
    """Measure, and return the failure instead of raising it."""
    try:
        recorder.report_progress()
        if not recorder.all_done:
            measure(recorder, allocation, signals)
    except SutError as error:
        return error
    except OSError as error:
        where = error.filename or recorder.run_dir
        return RunError(f"{where}: {error.strerror or error}", code="os_error")
    except Exception as error:
        traceback.print_exc()
        return RunError(f"internal error: {error!r}; see the job's log", code="internal_error")
    return None


def _leave(code: int, message: str = "") -> NoReturn:
    """End the process without destructors: LoadGen's thread may still be in its test."""
    if message and code in (EXIT_BAD_INPUT, EXIT_FAILED):
        messages.report(message)
    elif message:
        print(message)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
