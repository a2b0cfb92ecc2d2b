"""What to try next. Each piece of advice names the measurement behind it.

Remedies come from the verdict, loads from :mod:`sut.results.load`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sut.errors import CANCELLED, TRUNCATED
from sut.plan.benchmark import Preset, Scenario
from sut.plan.plan import Mode, Plan, Test
from sut.report import overhead, sweep
from sut.report.evidence import Evidence
from sut.report.markdown import percent
from sut.report.summary import busy
from sut.results import load, remedies
from sut.results.load import FEW
from sut.results.measures import measure
from sut.results.phase_record import PhaseRecord
from sut.results.record import Failure, Record
from sut.results.rules import Check
from sut.results.sample_log import SampleLog
from sut.results.work import quantiles
from sut.units import number

FULL = 0.95  # of a KV cache
ROOM = 0.5  # of a KV cache
UNEVEN = 1.15  # between replicas
SLOWED = 0.05  # of the readings


def of(record: Record, evidence: Mapping[str, Evidence], again: str) -> list[str]:
    """Sentences in Markdown, the most urgent first. ``again`` is the command that runs the plan
    again."""
    advice: list[str] = []
    if record.failure is not None:
        advice += _after(record.failure, again)
    for name, seen in evidence.items():
        if name not in {phase.name for phase in record.phases} and seen.samples is not None:
            advice += _less_load(record.plan, seen.samples)
    if record.failure is None and record.plan.preset is Preset.QUICK:
        advice.append(
            "Preset quick stops after ten samples and is never VALID: `--preset smoke` is the "
            "shortest run that can be VALID."
        )
    advice += sweep.advice(record)
    for phase in record.phases if not record.plan.sweep else ():
        for remedy, codes in remedies.by_remedy(phase.verdict.reasons).items():
            advice.append(f"{', '.join(f'`{code}`' for code in codes)} ({phase.name}): {remedy}")
        if phase.test == Test(Mode.PERFORMANCE):  # not each repeat of it
            advice += _of_load(record.plan, phase, evidence.get(phase.name, Evidence()))
            advice += overhead.advice(record, phase)
        advice += [f"The machine was busy: {text}." for text in busy(record, phase)]
        advice += _of_nodes(phase)
    if record.verdict == "VALID":
        advice += _further(record.plan)
    return list(dict.fromkeys(advice))


def _after(failure: Failure, again: str) -> Iterator[str]:
    """Nothing where the failure's hint is the command that continues the run."""
    if failure.code in (CANCELLED, TRUNCATED) and "\nhint: " in failure.message:
        return
    again = f"`{again}` runs the same plan again."
    if failure.code in (CANCELLED, TRUNCATED):
        yield again
    else:
        log = "logs" if failure.replica is None else f"logs/replica-{failure.replica}.log"
        yield f"Read `{log}` in the run directory and fix what it reports; {again}"


def _less_load(plan: Plan, samples: SampleLog, reasons: Sequence[Check] = ()) -> Iterator[str]:
    """What to try where the load was too high, unless a reason's remedy contains it."""
    overloaded = load.overload(samples)
    if (
        overloaded
        and overloaded.qps
        and plan.scenario in (Scenario.SERVER, Scenario.INTERACTIVE)
        and not any(overloaded.text in (reason.remedy or "") for reason in reasons)
    ):
        yield f"{overloaded.text} Try less: `{load.near(overloaded.qps, plan.scenario)}`."


def _of_load(plan: Plan, phase: PhaseRecord, evidence: Evidence) -> Iterator[str]:
    samples = evidence.samples
    if samples is None or len(samples) < FEW:
        return
    checks = {check.code: check for check in phase.verdict.checks}
    ttft, tpot = checks.get("ttft_p99"), checks.get("tpot_p99")
    tpot_has_room = tpot is None or load.has_room(tpot)
    yield from _of_kv_cache(plan, phase, evidence, samples, tpot_has_room)
    if plan.scenario not in (Scenario.SERVER, Scenario.INTERACTIVE) or not ttft or not tpot:
        return
    estimated = phase.verdict.qps_estimate
    overloaded = load.overload(samples) is not None
    offered = measure(phase.loadgen).target_qps
    if not (estimated and estimated.qps):
        yield from _less_load(plan, samples, phase.verdict.reasons)
    if not tpot.met:
        yield (
            "TPOT exceeds its limit: a lower `engine.max_num_seqs` (now "
            f"{plan.engine.max_num_seqs}) shortens each step, a lower "
            f"`engine.max_num_batched_tokens` (now {plan.engine.max_num_batched_tokens}) prevents "
            "long prompts from delaying decoding."
        )
    elif not ttft.met and not overloaded and tpot_has_room:
        yield (
            f"TTFT exceeds its limit, while TPOT has room ({load.share_of_limit(tpot):.0%} of its "
            "limit): a higher `engine.max_num_batched_tokens` (now "
            f"{plan.engine.max_num_batched_tokens}) processes prompts sooner."
        )
    elif not overloaded and (more := load.higher(plan.scenario, offered, ttft, tpot, estimated)):
        yield more


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
            f"A KV cache was full ({percent(max(usage))}): vLLM then preempts requests and "
            "computes them again. Give it more memory, or lower `engine.max_num_seqs` (now "
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
            f"All {plan.engine.max_num_seqs} places (`engine.max_num_seqs`) were taken and samples "
            f"waited, while at most {percent(max(usage))} of a KV cache was used: try "
            f"`--set engine.max_num_seqs={2 * plan.engine.max_num_seqs}`."
        )


def _of_nodes(phase: PhaseRecord) -> Iterator[str]:
    lost = {loss.replica for loss in phase.losses}
    busy = [work for work in phase.replicas if work.busy_s > 0 and work.index not in lost]
    speeds = {work.index: work.output_tokens / work.busy_s for work in busy}
    if len(speeds) > 1 and min(work.samples for work in busy) >= FEW:
        slow, fast = min(speeds, key=speeds.__getitem__), max(speeds, key=speeds.__getitem__)
        if speeds[fast] > UNEVEN * speeds[slow]:
            node = {work.index: work.node for work in busy}
            yield (
                f"Replica {slow} ({node[slow]}) generated {number(speeds[slow])} tokens/s while "
                f"busy, replica {fast} ({node[fast]}) {number(speeds[fast])} ({phase.name}). If "
                "the nodes are alike, check other processes, clocks and temperatures."
            )
    for meters in phase.telemetry:
        for gpu in meters.gpus:
            for cause, share in (("heat", gpu.slowed_by_heat), ("power", gpu.slowed_by_power)):
                if share is not None and share > SLOWED:
                    what = "Check its cooling" if cause == "heat" else "Its power limit decides"
                    yield (
                        f"{meters.node}'s GPU {gpu.index} was slowed by {cause} in "
                        f"{percent(share)} of the readings ({phase.name}). {what}."
                    )


def _further(plan: Plan) -> Iterator[str]:
    if plan.mode is not Mode.ALL:
        yield "Only one of MLPerf's tests was run: `--mode all` runs all on one start of engines."
    if plan.preset is not Preset.OFFICIAL:
        yield f"Preset {plan.preset} lowers MLPerf's requirements; `--preset official` does not."
