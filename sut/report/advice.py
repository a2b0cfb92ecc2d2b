"""What to try next, from what a run shows. Each piece of advice names what it was seen in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sut.errors import CANCELLED, TRUNCATED
from sut.plan.benchmark import Preset, Scenario
from sut.plan.plan import Mode, Plan
from sut.report.evidence import Evidence
from sut.report.phases import percent
from sut.results.record import Failure, PhaseRecord, Record
from sut.results.rules import Check
from sut.results.sample_log import SampleLog
from sut.results.work import quantiles
from sut.units import number, quantity

FULL = 0.95  # of a KV cache
ROOM = 0.5  # of a limit or a KV cache
UNEVEN = 1.15  # between replicas
SLOWED = 0.05  # of the readings
FEW = 50  # samples that say nothing yet


def of(record: Record, evidence: Mapping[str, Evidence]) -> list[str]:
    """Sentences in Markdown, the most pressing first; none where nothing stands out."""
    advice = []
    if record.failure is not None:
        advice.append(_after(record.failure))
    for name, seen in evidence.items():
        if name not in {phase.name for phase in record.phases} and seen.samples is not None:
            advice += _of_cut_off(record.plan, seen.samples)
    if record.failure is None and record.plan.preset is Preset.QUICK:
        advice.append(
            "Preset quick stops after ten samples, which can't be VALID: `--preset smoke` is the "
            "least that can."
        )
    for phase in record.phases:
        advice += _remedies(phase)
        if phase.name == Mode.PERFORMANCE:
            advice += _of_load(record.plan, phase, evidence.get(phase.name, Evidence()))
        advice += _of_nodes(phase)
    if record.verdict == "VALID":
        advice += _further(record.plan)
    return list(dict.fromkeys(advice))


def _after(failure: Failure) -> str:
    again = "`python -m sut.submit --again RUN_DIR` runs the same plan once more."
    if failure.code in (CANCELLED, TRUNCATED):
        return again
    log = "logs" if failure.replica is None else f"logs/replica-{failure.replica}.log"
    return f"Read `{log}` in the run's folder and mend what it names; {again}"


def _of_cut_off(plan: Plan, samples: SampleLog) -> Iterator[str]:
    """A load that is too high is often why a run does not come to its end."""
    if plan.scenario in (Scenario.SERVER, Scenario.INTERACTIVE) and len(samples) >= FEW:
        growing = _growing_queue(plan, samples)
        if growing:
            yield growing


def _remedies(phase: PhaseRecord) -> Iterator[str]:
    """What the verdict itself says would pass."""
    for check in phase.verdict.reasons:
        if check.remedy:
            yield f"`{check.code}` ({phase.name}): {check.remedy}"


def _of_load(plan: Plan, phase: PhaseRecord, evidence: Evidence) -> Iterator[str]:
    samples = evidence.samples
    if samples is None or len(samples) < FEW:
        return
    checks = {check.code: check for check in phase.verdict.checks}
    ttft, tpot = checks.get("ttft_p99"), checks.get("tpot_p99")
    yield from _of_kv_cache(plan, phase, evidence, samples, tpot is None or _has_room(tpot))
    if plan.scenario not in (Scenario.SERVER, Scenario.INTERACTIVE) or not ttft or not tpot:
        return
    estimate = phase.verdict.qps_estimate
    estimated = estimate.qps if estimate else None
    growing = _growing_queue(plan, samples)
    if growing and estimated is None:  # else the verdict's remedy has a better number
        yield growing
    if not tpot.met:
        yield (
            f"TPOT is over its limit: a lower `engine.max_num_seqs` (it is "
            f"{plan.engine.max_num_seqs}) makes each step shorter, a lower "
            f"`engine.max_num_batched_tokens` (it is {plan.engine.max_num_batched_tokens}) keeps "
            "long prompts from holding up decoding."
        )
    elif not ttft.met and not growing and _has_room(tpot):
        yield (
            f"TTFT is over its limit while TPOT has room ({_of_limit(tpot)}): a higher "
            f"`engine.max_num_batched_tokens` (it is {plan.engine.max_num_batched_tokens}) gets "
            "through prompts sooner."
        )
    elif ttft.met and not growing and _has_room(ttft) and _has_room(tpot):
        qps = max(1.2 * (plan.loadgen_settings.target_qps or 1.0), estimated or 0.0)
        yield (
            f"There is room: TTFT p99 was {_of_limit(ttft)}, TPOT p99 {_of_limit(tpot)}. Try a "
            f"higher load: `--set scenarios.{plan.scenario}.target_qps={qps:.3g}`."
        )


def _growing_queue(plan: Plan, samples: SampleLog) -> str | None:
    """Whether samples waited longer and longer for a place in a replica."""
    waits = sorted(
        (issued, admitted - issued)
        for issued, admitted in zip(samples.issued_ms, samples.admitted_ms, strict=True)
    )
    quarter = len(waits) // 4
    first, last = waits[:quarter], waits[-quarter:]
    early_ms, late_ms = (sum(wait for _, wait in part) / quarter for part in (first, last))
    if late_ms < 200 or late_ms < 4 * early_ms:
        return None
    begin, end = waits[quarter][0], samples.completed_ms[-1]
    done = sum(completed >= begin for completed in samples.completed_ms)
    rate = 1e3 * done / (end - begin)
    return (
        f"The load was more than the replicas can do: samples waited {quantity(early_ms, 'ms')} "
        f"for a place in a replica in the first quarter and {quantity(late_ms, 'ms')} in the last. "
        f"After that quarter they completed {number(rate)} samples/s. Try less: "
        f"`--set scenarios.{plan.scenario}.target_qps={0.9 * rate:.3g}`."
    )


def _of_kv_cache(
    plan: Plan, phase: PhaseRecord, evidence: Evidence, samples: SampleLog, tpot_has_room: bool
) -> Iterator[str]:
    usage = [r.kv_cache_usage_max for r in phase.replicas if r.kv_cache_usage_max is not None]
    if not usage:
        return
    running = max((r.running for line in evidence.lines for r in line.replicas), default=0)
    waited = quantiles(a - i for a, i in zip(samples.admitted_ms, samples.issued_ms, strict=True))
    if max(usage) >= FULL:
        yield (
            f"A KV cache was full ({percent(max(usage))}): vLLM then puts requests off and "
            f"computes them again. Give it more memory, or lower `engine.max_num_seqs` (it is "
            f"{plan.engine.max_num_seqs})."
        )
    elif (
        tpot_has_room
        and max(usage) <= ROOM
        and running >= plan.engine.max_num_seqs
        and waited is not None
        and waited.p50 > 0.1
        and plan.scenario is not Scenario.SINGLE_STREAM
    ):
        yield (
            f"All {plan.engine.max_num_seqs} places (`engine.max_num_seqs`) were taken while at "
            f"most {percent(max(usage))} of a KV cache was used and samples waited: try "
            f"`--set engine.max_num_seqs={2 * plan.engine.max_num_seqs}`."
        )


def _of_nodes(phase: PhaseRecord) -> Iterator[str]:
    busy = [work for work in phase.replicas if work.busy_s > 0]
    speeds = {work.index: work.output_tokens / work.busy_s for work in busy}
    if len(speeds) > 1 and min(work.samples for work in busy) >= FEW:
        slow, fast = min(speeds, key=speeds.__getitem__), max(speeds, key=speeds.__getitem__)
        if speeds[fast] > UNEVEN * speeds[slow]:
            node = {work.index: work.node for work in busy}
            yield (
                f"Replica {slow} ({node[slow]}) gave {number(speeds[slow])} tokens/s while busy "
                f"and replica {fast} ({node[fast]}) {number(speeds[fast])} ({phase.name}). On like "
                "nodes look for other processes, clocks and heat."
            )
    for meters in phase.telemetry:
        for gpu in meters.gpus:
            for cause, share in (("heat", gpu.slowed_by_heat), ("power", gpu.slowed_by_power)):
                if share is not None and share > SLOWED:
                    what = "Look at its cooling" if cause == "heat" else "Its power limit decides"
                    yield (
                        f"{meters.node}'s GPU {gpu.index} was slowed by {cause} in "
                        f"{percent(share)} of the readings ({phase.name}). {what}."
                    )


def _further(plan: Plan) -> Iterator[str]:
    if plan.mode is not Mode.ALL:
        yield "Only one of MLPerf's tests was run: `--mode all` runs all on one start of engines."
    if plan.preset is not Preset.OFFICIAL:
        yield f"Preset {plan.preset} lowers what MLPerf asks for; `--preset official` does not."


def _has_room(check: Check) -> bool:
    return bool(
        check.met
        and check.measured is not None
        and check.limit
        and check.measured <= ROOM * check.limit
    )


def _of_limit(check: Check) -> str:
    assert check.measured is not None and check.limit
    return f"{check.measured / check.limit:.0%} of its limit"
