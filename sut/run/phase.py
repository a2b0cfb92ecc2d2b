"""One phase: a LoadGen test over the served replicas."""

from __future__ import annotations

import contextlib
import sys
import time

from sut import _core
from sut.plan import mlperf_conf
from sut.plan.plan import Mode
from sut.results import sample_log
from sut.results.measured import Measured
from sut.results.progress import Progress
from sut.run.budget import BudgetWatch
from sut.run.replicas import POLL_S, Replicas
from sut.rundir import RunDir, write_atomic

FLUSH_S = 5.0


def run_phase(
    mode: Mode,
    replicas: Replicas,
    run_dir: RunDir,
    user_conf: str,
    progress: Progress,
    *,
    stop_when_hopeless: bool = False,
) -> Measured:
    """Run LoadGen's test of ``mode`` with the settings ``user_conf``. The files ``user.conf`` and
    ``audit.config`` are for readers: LoadGen is given the text.

    With ``stop_when_hopeless``, a test that can no longer be VALID ends at LoadGen's next query:
    samples in flight complete, those queued are withdrawn, and another test may follow.

    Raises RunError when it cannot finish. LoadGen's thread is then still in its test, and this
    process must end by :func:`os._exit`.
    """
    plan = replicas.plan
    log_dir = run_dir.loadgen(mode)
    log_dir.mkdir(parents=True, exist_ok=True)
    is_audit = mode is Mode.COMPLIANCE
    audit_conf = mlperf_conf.AUDIT_CONFIG if is_audit else ""
    write_atomic(run_dir.user_conf, user_conf)
    if is_audit:
        write_atomic(run_dir.audit_conf, audit_conf)
    test = _core.LoadGenTest(
        replicas.dispatcher,
        model=plan.loadgen_name,
        scenario=plan.scenario.loadgen,
        mode=Mode.PERFORMANCE if is_audit else mode,
        user_conf=user_conf,
        audit_conf=audit_conf,
        log_dir=str(log_dir),
        sut_name=f"{plan.site} x{len(plan.replicas)} {plan.engine.kind}",
        qsl_name=plan.dataset.name,
    )
    replicas.begin_measuring()
    budget = BudgetWatch(test, replicas.dispatcher, log_dir, stop=stop_when_hopeless)
    start_unix_s, start = time.time(), time.monotonic()
    try:
        test.start()
        num_lost = 0
        while not test.wait(POLL_S):
            replicas.check()
            num_lost = _report_losses(replicas, num_lost)
            budget.look(time.monotonic() - start)
            if progress.due(mode):
                stats = replicas.dispatcher.stats()
                progress.phase(mode, stats, budget.num_over, budget.hopeless)
        if not (test.finished or test.ended):
            replicas.check()
    except BaseException as error:
        replicas.dispatcher.fail("interrupted", str(error))  # has no effect after another failure
        test.wait(FLUSH_S)  # LoadGen writes what it has logged so far
        with contextlib.suppress(OSError):  # report the first error
            sample_log.write(run_dir.samples(mode), replicas.dispatcher.samples())
        raise
    stats = replicas.dispatcher.stats()
    sample_log.write(run_dir.samples(mode), replicas.dispatcher.samples())
    progress.phase(mode, stats, budget.num_over, budget.hopeless, last=True)
    duration_s = stats.elapsed_ns / 1e9
    return Measured(stats, start_unix_s, duration_s, budget.hopeless, replicas.losses())


def _report_losses(replicas: Replicas, num_known: int) -> int:
    """Print the losses after the first ``num_known``; return how many there are."""
    if len(replicas.dispatcher.losses()) == num_known:
        return num_known
    losses = replicas.losses()
    for loss in losses[num_known:]:
        if loss.at_s >= 0:
            print(
                f"warning: {loss.text} The run continues without it.", file=sys.stderr, flush=True
            )
    return len(losses)
