"""A record as one row of a list: decoded in part, so quickly and from any schema version."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import msgspec

from sut.plan.plan import Mode
from sut.results import integrity
from sut.results.measures import measure
from sut.results.record import INTERIM, WITHOUT_HASHES, headline
from sut.values import UNDECODABLE


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What lists show of one record. ``path`` is the run's folder under the root.

    ``verdict`` is VALID or INVALID; FAILED, TRUNCATED or another status in capitals if the run has
    no verdict; UNFINISHED if phases remain or it was killed in one; UNREADABLE if the file is not
    a record, ALTERED if it does not have its own digest: ``why`` is then the cause. Latencies and
    rates are from the performance test; None if it has none.
    """

    path: str
    mtime_ns: int
    size: int
    run_id: str = ""
    created_utc: str = ""
    verdict: str = "UNREADABLE"
    why: str = ""  # codes of the failed checks, or of the failure
    exit_code: int | None = None
    benchmark: str = ""
    scenario: str = ""
    mode: str = ""
    preset: str = ""
    official: bool = False
    site: str = ""
    nodes: str = ""  # names with commas
    num_replicas: int = 0
    plan_digest: str = ""
    target_qps: float | None = None
    tokens_per_s: float | None = None
    cost_per_million_tokens: float | None = None
    samples_per_s: float | None = None
    ttft_p99_ms: float | None = None
    tpot_p99_ms: float | None = None
    latency_p90_ms: float | None = None

    @property
    def headline(self) -> str:
        return headline(self.verdict, self.mode) if self.mode else self.verdict


# The fields of a record that a row needs; unknown fields are ignored.


class _Reason(msgspec.Struct):
    code: str


class _Verdict(msgspec.Struct):
    reasons: list[_Reason] = []
    official: bool | None = None


class _Work(msgspec.Struct):
    node: str = ""
    nodes: list[str] = []


class _Phase(msgspec.Struct):
    name: str
    verdict: _Verdict
    loadgen: dict[str, Any] = {}
    cost_per_million_tokens: float | None = None
    replicas: list[_Work] = []


class _Attempt(msgspec.Struct, frozen=True):
    nodes: list[str] = []


class _Load(msgspec.Struct, frozen=True):
    target_qps: float | None = None


class _Settings(msgspec.Struct, frozen=True):
    target_qps: float | str | None = None


class _Plan(msgspec.Struct):
    benchmark: str
    scenario: str
    mode: str
    preset: str
    official: bool
    site: str
    replicas: list[Any]
    loadgen_settings: _Settings = _Settings()
    sweep: list[float] = []


class _Record(msgspec.Struct):
    schema_version: int
    run_id: str
    created_utc: str
    status: str
    exit_code: int
    verdict: str | None
    plan_digest: str
    plan: _Plan
    failure: _Reason | None = None
    phases: list[_Phase] = []
    attempts: list[_Attempt] = []
    load: _Load | None = None


_decoder = msgspec.json.Decoder(_Record)


def read_row(root: Path, path: str, stat: os.stat_result) -> Row:
    """The row of the record at ``path``. An unreadable file has a row too, so that it is read
    again only after a change."""
    row = Row(path=path, mtime_ns=stat.st_mtime_ns, size=stat.st_size, run_id=path)
    try:
        content = (root / path / "record.json").read_bytes()
        record = _decoder.decode(content)
    except (OSError, *UNDECODABLE) as error:
        return msgspec.structs.replace(row, why=str(error))
    if record.schema_version != WITHOUT_HASHES and not integrity.is_intact(content):
        why_not = "changed since it was written"
        return msgspec.structs.replace(
            row, verdict="ALTERED", why=why_not, created_utc=record.created_utc
        )
    plan, why = record.plan, record.failure and record.failure.code
    preflight = plan.mode == Mode.PREFLIGHT
    reasons = [reason.code for phase in record.phases for reason in phase.verdict.reasons]
    performance = _shown(record)
    measures = measure(performance.loadgen if performance else {})
    nodes = {n for p in record.phases for work in p.replicas for n in (work.node, *work.nodes)}
    if not nodes and record.attempts:  # it failed before a phase was complete
        nodes = set(record.attempts[-1].nodes)
    return msgspec.structs.replace(
        row,
        run_id=record.run_id,
        created_utc=record.created_utc,
        verdict="UNFINISHED" if why == INTERIM else record.verdict or record.status.upper(),
        why=why or ", ".join(dict.fromkeys(reasons)),
        exit_code=record.exit_code,
        benchmark=plan.benchmark,
        scenario="preflight" if preflight else plan.scenario,
        mode=plan.mode,
        preset="" if preflight else plan.preset,
        official=plan.official and all(p.verdict.official for p in record.phases),
        site=plan.site,
        nodes=",".join(sorted(nodes - {""})),
        num_replicas=len(plan.replicas),
        plan_digest=record.plan_digest,
        target_qps=None if preflight else measures.target_qps or _asked_qps(record),
        tokens_per_s=measures.tokens_per_s,
        cost_per_million_tokens=performance.cost_per_million_tokens if performance else None,
        samples_per_s=measures.samples_per_s,
        ttft_p99_ms=measures.ttft_ms.p99,
        tpot_p99_ms=measures.tpot_ms.p99,
        latency_p90_ms=measures.latency_ms.p90,
    )


def _shown(record: _Record) -> _Phase | None:
    """The performance test whose figures stand for the run: of a sweep the one at the highest load
    below the first that is not VALID, else the first."""
    tests = [p for p in record.phases if p.name.partition("-")[0] == Mode.PERFORMANCE]
    if not record.plan.sweep:
        return next(iter(tests), None)
    load_of = {id(p): measure(p.loadgen).target_qps or 0.0 for p in tests}
    first_bad = min((load_of[id(p)] for p in tests if p.verdict.reasons), default=math.inf)
    valid = [p for p in tests if load_of[id(p)] < first_bad]
    return max(valid, key=lambda p: load_of[id(p)], default=None) or next(iter(tests), None)


def _asked_qps(record: _Record) -> float | None:
    """The load of a run that did not come to offer it; None: unknown."""
    chosen = record.load.target_qps if record.load else None
    asked = record.plan.loadgen_settings.target_qps
    return chosen or (float(asked) if isinstance(asked, int | float) else None)
