"""One phase: a LoadGen test over the served replicas."""

from __future__ import annotations

import contextlib
import time

from sut import _core
from sut.plan import mlperf_conf
from sut.plan.plan import Mode
from sut.results import sample_log
from sut.results.phase_record import Measured
from sut.results.progress import Progress
from sut.run.replicas import POLL_S, Replicas
from sut.rundir import RunDir, write_atomic

FLUSH_S = 5.0


def run_phase(
    mode: Mode, replicas: Replicas, run_dir: RunDir, user_conf: str, progress: Progress
) -> Measured:
    """Run LoadGen's test of ``mode`` with the settings ``user_conf``. The files ``user.conf`` and
    ``audit.config`` are for readers: LoadGen is given the text.

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
    replicas.dispatcher.reset_stats()
    start_unix_s = time.time()
    try:
        test.start()
        while not test.wait(POLL_S):
            replicas.check()
            if progress.due(mode):
                progress.phase(mode, replicas.dispatcher.stats(), _num_over(replicas, test))
        if not test.finished:
            replicas.check()
    except BaseException as error:
        replicas.dispatcher.fail("interrupted", str(error))  # has no effect after another failure
        test.wait(FLUSH_S)  # LoadGen writes what it has logged so far
        with contextlib.suppress(OSError):  # report the first error
            sample_log.write(run_dir.samples(mode), replicas.dispatcher.samples())
        raise
    stats = replicas.dispatcher.stats()
    sample_log.write(run_dir.samples(mode), replicas.dispatcher.samples())
    progress.phase(mode, stats, _num_over(replicas, test), last=True)
    return Measured(stats, start_unix_s, stats.elapsed_ns / 1e9)


def _num_over(replicas: Replicas, test: _core.LoadGenTest) -> tuple[int, int] | None:
    """The number of samples over LoadGen's limits on TTFT and on TPOT; None without limits."""
    limits = test.limits_ns
    if limits is None:
        return None
    ttft_ns, tpot_ns = limits
    return replicas.dispatcher.num_over(ttft_ns=ttft_ns, tpot_ns=tpot_ns)
