"""One phase: a LoadGen test over the served replicas."""

from __future__ import annotations

import contextlib
import os
import time

from sut import _core
from sut.errors import RunError
from sut.machine.other_work import OtherWork
from sut.machine.wall_clock import WallClock
from sut.plan import mlperf_conf
from sut.plan.plan import Mode, Test
from sut.results import sample_log
from sut.results.measured import Measured
from sut.results.progress import Progress
from sut.run.budget import BudgetWatch
from sut.run.hang import LoadGenWatch
from sut.run.loss_log import LossLog
from sut.run.replicas import POLL_S, Replicas
from sut.rundir import RunDir, write_atomic

FLUSH_S = 5.0


def run_phase(
    test: Test,
    replicas: Replicas,
    run_dir: RunDir,
    progress: Progress,
    *,
    chosen_qps: float | None = None,
    stop_when_hopeless: bool = False,
) -> Measured:
    """Run LoadGen's ``test``, with the load ``chosen_qps`` where the plan leaves it to the run
    (:meth:`Plan.chosen_qps`). The files ``user.conf`` and ``audit.config`` are for readers: LoadGen
    is given the text.

    With ``stop_when_hopeless``, a test that can no longer be VALID ends at LoadGen's next query:
    samples in flight complete, those queued are withdrawn, and another test may follow.

    Raises RunError when it cannot finish. LoadGen's thread is then still in its test, and this
    process must end by :func:`os._exit`.
    """
    plan = replicas.plan
    log_dir = run_dir.loadgen(test.name)
    log_dir.mkdir(parents=True, exist_ok=True)
    user_conf = plan.user_conf(chosen_qps)
    audit_conf = mlperf_conf.audit_config(plan.compliance_test(test.mode), plan.dataset.num_samples)
    write_atomic(run_dir.user_conf_of(test.name) if plan.sweep else run_dir.user_conf, user_conf)
    if audit_conf:
        write_atomic(run_dir.audit_conf(test.name), audit_conf)
    running = _core.LoadGenTest(
        replicas.dispatcher,
        model=plan.loadgen_name,
        scenario=plan.scenario.loadgen,
        mode=Mode.PERFORMANCE if audit_conf else test.mode,
        user_conf=user_conf,
        audit_conf=audit_conf,
        log_dir=str(log_dir),
        sut_name=f"{plan.site} x{len(plan.replicas)} {plan.engine.kind}",
        qsl_name=plan.dataset.name,
    )
    replicas.begin_measuring(progress)
    budget = BudgetWatch(running, replicas.dispatcher, log_dir, stop=stop_when_hopeless)
    kept = replicas.nodes.kept
    others = OtherWork([os.getpid(), *([kept.pid] if kept else [])])
    start_unix_s, start, wall_clock = time.time(), time.monotonic(), WallClock()
    try:
        running.start()
        losses = LossLog(replicas)
        hang = LoadGenWatch(replicas.dispatcher, log_dir, plan, chosen_qps)
        while not running.wait(POLL_S):
            replicas.check()
            _require_steady(wall_clock, test)
            hang.look()
            losses.print_news()
            budget.look(time.monotonic() - start)
            if progress.due(test.name):
                stats = replicas.dispatcher.live_stats()
                progress.phase(test.name, stats, budget.num_over, budget.hopeless)
        losses.print_news()
        if not (running.finished or running.ended):
            replicas.check()
        _require_steady(wall_clock, test)
    except BaseException as error:
        replicas.dispatcher.fail("interrupted", str(error))  # has no effect after another failure
        running.wait(FLUSH_S)  # LoadGen writes what it has logged so far, unless it hangs
        with contextlib.suppress(OSError):  # report the first error
            sample_log.write(run_dir.samples(test.name), replicas.dispatcher.samples())
        raise
    stats = replicas.dispatcher.stats()
    sample_log.write(run_dir.samples(test.name), replicas.dispatcher.samples())
    progress.phase(test.name, stats, budget.num_over, budget.hopeless, last=True)
    return Measured(
        stats,
        start_unix_s,
        duration_s=stats.elapsed_ns / 1e9,
        hopeless=budget.hopeless,
        losses=replicas.losses(),
        other_cpus=others.cpus(),
    )


def _require_steady(wall_clock: WallClock, test: Test) -> None:
    """Raise RunError if the system's clock was set. LoadGen's times are then wrong, and after a
    step back it would wait for as long before its next query."""
    step_s = wall_clock.step_s()
    if step_s is not None:
        raise RunError(
            f"the clock of this machine was set by {step_s:+,.1f} s during {test.name}: LoadGen "
            "measures with it, so the test has no result",
            hint="keep the time service from stepping the clock during a run (chrony: makestep), "
            "and run again",
            code="clock_set",
        )
