"""What the plots of a phase are drawn of."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from sut.report.evidence import Evidence
from sut.results.record import Record


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """A phase: its evidence, and what its plan and its verdict say."""

    evidence: Evidence
    limits: Mapping[str, float]  # in ms, by TTFT and TPOT
    nodes: Mapping[int, str]  # each replica's
    max_num_seqs: int | None = None  # what an engine can run at once

    def name(self, replica: int) -> str:
        """A replica, with its node where there are several."""
        node = self.nodes.get(replica, "")
        return f"replica {replica}" + (f" ({node})" if len(set(self.nodes.values())) > 1 else "")


def subject_of(record: Record, name: str, evidence: Evidence) -> Subject:
    """The phase ``name`` of a run. The limits of one that was not finished are the plan's."""
    plan, settings = record.plan, record.plan.loadgen_settings
    phase = next((phase for phase in record.phases if phase.name == name), None)
    replicas = (
        phase.replicas if phase else record.interrupted.replicas if record.interrupted else ()
    )
    limits: dict[str, float | None]
    if phase is None:
        limits = {"TTFT": settings.ttft_latency_ms, "TPOT": settings.tpot_latency_ms}
    else:
        checks = {check.code: check.limit for check in phase.verdict.checks}
        limits = {"TTFT": checks.get("ttft_p99"), "TPOT": checks.get("tpot_p99")}
    return Subject(
        evidence=evidence,
        limits={name: limit for name, limit in limits.items() if limit is not None},
        nodes={replica.index: replica.group for replica in replicas},
        max_num_seqs=plan.engine.max_num_seqs,
    )
