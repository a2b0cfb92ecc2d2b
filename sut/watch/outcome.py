"""A submitted run and its result, for programs: ``python -m sut.submit --json``."""

from __future__ import annotations

import contextlib

from sut.errors import InputError
from sut.plan.plan import Mode, Plan
from sut.results import record
from sut.results.measures import measure
from sut.results.record import Failure
from sut.rundir import RunDir
from sut.values import Struct


class Result(Struct, frozen=True, kw_only=True):
    """How a run ended. Figures are those of the performance test; None without one."""

    verdict: str | None  # VALID or INVALID; None if the run failed or was truncated
    status: str
    exit_code: int
    failure: Failure | None
    why: tuple[str, ...]  # codes of the rules that are not met
    target_qps: float | None
    tokens_per_s: float | None
    samples_per_s: float | None
    ttft_p99_ms: float | None
    tpot_p99_ms: float | None
    record: str  # paths
    report: str


class Outcome(Struct, frozen=True, kw_only=True):
    """A submitted run. ``result`` is None while it has none, and without --wait."""

    name: str | None  # in a campaign
    run_dir: str
    job_id: str  # Slurm's; on this machine, a process id
    plan_digest: str
    benchmark: str
    site: str
    scenario: str
    mode: str
    preset: str
    official: bool
    nodes: tuple[str, ...]  # names; empty for a node that Slurm chooses
    num_replicas: int
    result: Result | None = None


def of(run_dir: RunDir, job_id: str, plan: Plan, name: str = "") -> Outcome:
    """What was submitted, and its result if it has one."""
    return Outcome(
        name=name or None,
        run_dir=str(run_dir),
        job_id=job_id,
        plan_digest=plan.digest(),
        benchmark=plan.benchmark,
        site=plan.site,
        scenario=plan.scenario,
        mode=plan.mode,
        preset=plan.preset,
        official=plan.official,
        nodes=tuple(node.name for node in plan.nodes),
        num_replicas=len(plan.replicas),
        result=_result(run_dir),
    )


def _result(run_dir: RunDir) -> Result | None:
    found = None
    with contextlib.suppress(InputError):
        found = record.read(run_dir.record)
    if found is None or found.interim:
        return None
    phases = found.phases
    measured = measure(next((p.loadgen for p in phases if p.name == Mode.PERFORMANCE), {}))
    codes = dict.fromkeys(check.code for phase in phases for check in phase.verdict.reasons)
    return Result(
        verdict=found.verdict,
        status=found.status,
        exit_code=found.exit_code,
        failure=found.failure,
        why=tuple(codes),
        target_qps=measured.target_qps,
        tokens_per_s=measured.tokens_per_s,
        samples_per_s=measured.samples_per_s,
        ttft_p99_ms=measured.ttft_ms.p99,
        tpot_p99_ms=measured.tpot_ms.p99,
        record=str(run_dir.record),
        report=str(run_dir.report_html),
    )
