"""Whether a run is what its record says: its files, its inputs, and the verdict that they give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from sut.errors import InputError, SutError
from sut.inputs import dataset, hashes, model
from sut.inputs.dataset import Samples
from sut.plan.benchmark import DatasetKind
from sut.plan.plan import Plan, load_plan, uses_model
from sut.results import accuracy, integrity, record, sample_log, work
from sut.results.judge import overall
from sut.results.phase_record import PhaseRecord
from sut.results.phase_verdict import Score, judge_phase
from sut.results.record import Record
from sut.results.sample_log import SampleLog
from sut.results.work import ReplicaWork
from sut.rundir import RunDir

SHOWN = 3  # differences of a phase


class Verified(NamedTuple):
    """``differences`` are the lines on what is not as recorded, ``unchecked`` on what could not be
    checked here; ``uncovered`` are the files that the record does not cover."""

    differences: list[str]
    unchecked: list[str]
    uncovered: list[str]


def verify(found: Record, run_dir: RunDir) -> Verified:
    """Check all of a run. Its accuracy is scored again, which may take minutes."""
    samples, model_path, inputs = of_inputs(found)
    judged = of_verdicts(found, run_dir, samples, model_path)
    of_phases = [file for phase in found.phases for file in phase.files(run_dir)]
    return Verified(
        [*of_files(found, run_dir), *inputs.differences, *judged.differences],
        [*inputs.unchecked, *judged.unchecked],
        integrity.others(run_dir, found.files, of_phases),
    )


def of_files(found: Record, run_dir: RunDir) -> list[str]:
    """A line for each file that changed since the record was written."""
    if found.schema_version == record.WITHOUT_HASHES:
        lines = [f"{run_dir.record}: its version ({record.WITHOUT_HASHES}) has no hashes of files"]
        return [*lines, *_of_plan(found, run_dir), *_of_phases(found, run_dir)]
    # A process that outlives the run, or the one that writes now, may still append.
    finished = {phase.name for phase in found.phases}
    unfinished = {folder.name for folder in run_dir.loadgen_root.glob("*")} - finished
    growing = ["logs/", "telemetry/", *(f"loadgen/{name}/" for name in unfinished)]
    changes = integrity.changes(run_dir, found.files, [""] if found.interim else growing)
    lines = [*_of_plan(found, run_dir), *changes, *_of_phases(found, run_dir)]
    return list(dict.fromkeys(lines))


def _of_plan(found: Record, run_dir: RunDir) -> Iterator[str]:
    if found.plan_digest != found.plan.digest():
        yield f"{run_dir.record}: its plan does not match its plan_digest"
    try:
        if load_plan(run_dir.plan) != found.plan:
            yield f"{run_dir.plan}: changed since the run"
    except InputError as error:
        yield f"{run_dir.plan}: cannot read it: {error}"
    try:
        if run_dir.user_conf.read_text() != found.user_conf:
            yield f"{run_dir.user_conf}: changed since the run"
    except (OSError, UnicodeDecodeError) as error:
        yield f"{run_dir.user_conf}: cannot read it: {error}"


def _of_phases(found: Record, run_dir: RunDir) -> Iterator[str]:
    """The files on which each verdict is based, as they were at its time."""
    for phase in found.phases:
        files = phase.files(run_dir)
        if not files:
            yield f"{run_dir.loadgen(phase.name)}: the record has no hashes of its files; run again"
        for file, expected in files.items():
            try:
                if hashes.sha256_of(file) != expected:
                    yield f"{file}: changed since the run"
            except OSError as error:
                yield f"{file}: cannot read it: {error.strerror}"


class _Lines(NamedTuple):
    differences: list[str]
    unchecked: list[str]


def of_inputs(found: Record) -> tuple[Samples | None, Path | None, _Lines]:
    """The run's data and model as they are now, None where they are not on this machine or differ
    from the record's."""
    plan, recorded = found.plan, found.hashes
    lines = _Lines([], [])
    path = samples = None
    try:
        if recorded.model is not None and uses_model(plan.engine, plan.dataset):
            path = model.locate(plan.model)
            if not path.is_dir():
                lines.unchecked.append(f"the model: {path}: no such folder")
            else:
                _compare(f"{path}: the model", model.model_hash(path), recorded.model, lines)
    except (SutError, OSError) as error:
        lines.unchecked.append(f"the model: {error}")
    if recorded.data is None:
        return None, path, lines
    try:
        what = f"the data set {plan.dataset.name}"
        if plan.dataset.kind is not DatasetKind.SYNTHETIC:
            file = dataset.file_of(plan.dataset)
            what = f"{file}: {what}"
            if not _compare(what, hashes.sha256_of(file), recorded.data, lines):
                return None, path, lines
        samples = dataset.load(plan, path, use_cache=False)
        if _compare(what, samples.sha256, recorded.data, lines) and recorded.tokens:
            _compare(f"{what}: its token ids", samples.tokens_sha256(), recorded.tokens, lines)
    except (SutError, OSError, ImportError) as error:
        lines.unchecked.append(f"the data set: {error}")
    return samples, path, lines


def _compare(what: str, now: str, recorded: str, lines: _Lines) -> bool:
    if now != recorded:
        lines.differences.append(f"{what}: sha256 {now}, but {recorded} in the record")
    return now == recorded


def of_verdicts(
    found: Record, run_dir: RunDir, samples: Samples | None, model_path: Path | None
) -> _Lines:
    """Judge every phase again from its files. Without ``samples`` the recorded scores are used."""
    lines = _Lines([], [])
    planned = [test.name for test in found.plan.tests]
    names = [phase.name for phase in found.phases]
    done = planned if found.status == "completed" else planned[: len(names)]
    if sorted(names) != sorted(done):
        has = ", ".join(names) or "none"
        lines.differences.append(f"{run_dir.record}: tests {has}, but {', '.join(done)} planned")
    for phase in found.phases:
        if phase.name in planned:
            _of_phase(found, phase, run_dir, samples, model_path, lines)
    verdict = overall(phase.verdict for phase in found.phases)
    expected = verdict if found.failure is None and planned else None
    if found.verdict != expected:
        lines.differences.append(
            f"{run_dir.record}: verdict {found.verdict}, but {expected} by its tests"
        )
    failed = found.failure is not None
    codes = (2, 3) if failed else (record.exit_code(expected),)
    if found.exit_code not in codes or failed != (found.status != "completed"):
        state = f"status {found.status}, exit code {found.exit_code}"
        lines.differences.append(f"{run_dir.record}: {state} with verdict {found.verdict}")
    return lines


def _of_phase(
    found: Record,
    phase: PhaseRecord,
    run_dir: RunDir,
    samples: Samples | None,
    model_path: Path | None,
    lines: _Lines,
) -> None:
    def score(num_scored: int) -> dict[str, float]:
        try:
            if samples is not None:
                return accuracy.score_phase(
                    run_dir.loadgen(phase.name),
                    found.plan,
                    num_samples=num_scored,
                    prompts=samples.prompts,
                    references=samples.references,
                    model_path=model_path,
                )
            why = "the run's data set is not on this machine"
        except (ImportError, OSError) as error:
            why = str(error)
        lines.unchecked.append(f"the scores of the accuracy test: {why}")
        return phase.accuracy or {}

    try:
        again = judged_again(
            phase,
            found.plan,
            run_dir,
            nodes_of(found, phase),
            found.plan.chosen_qps(phase.test, found.chosen_qps),
            score,
        )
    except SutError as error:
        lines.differences.append(f"{run_dir.loadgen(phase.name)}: cannot be judged: {error}")
        return
    was, now = (msgspec.json.decode(msgspec.json.encode(each)) for each in (phase, again))
    changed = [*_leaves_that_differ(was, now)]
    for line in changed[:SHOWN]:
        lines.differences.append(f"{run_dir.record}: {phase.name}: {line}")
    if len(changed) > SHOWN:
        more = len(changed) - SHOWN
        lines.differences.append(f"{run_dir.record}: {phase.name}: {more} more differences")


def judged_again(
    phase: PhaseRecord,
    plan: Plan,
    run_dir: RunDir,
    node_names: Sequence[str],
    chosen_qps: float | None,
    score: Score,
) -> PhaseRecord:
    """The phase as its files give it. Times, the dispatcher's quantiles and the meters remain.
    Raises RunError, InputError."""
    path = run_dir.samples(phase.name)
    samples = sample_log.read(path)
    replicas = phase.replicas if samples is None else _counted(phase.replicas, samples, path)
    stats = phase.dispatcher
    judged = judge_phase(
        phase.test,
        plan,
        run_dir,
        samples,
        num_failed=stats.issued - stats.completed - stats.withdrawn if stats else None,
        node_names=node_names,
        chosen_qps=chosen_qps,
        replicas=replicas,
        engines=phase.engines,
        score=score,
        hopeless=phase.hopeless,
        losses=phase.losses,
    )
    return msgspec.structs.replace(
        phase,
        verdict=judged.verdict,
        loadgen=judged.log.values,
        loadgen_errors=tuple(error.message for error in judged.log.errors),
        accuracy=judged.scores,
        num_scored=judged.num_scored,
        test06=judged.test06,
        test09=judged.test09,
        replicas=replicas,
        nodes=work.of_nodes(replicas, samples) if samples else (),
    )


def _counted(
    replicas: Sequence[ReplicaWork], samples: SampleLog, path: Path
) -> tuple[ReplicaWork, ...]:
    num, tokens = Counter(samples.replica), Counter[int]()
    if unknown := num.keys() - {each.index for each in replicas}:
        raise InputError(f"{path}: the run had no replica {min(unknown)}")
    for replica, count in zip(samples.replica, samples.output_tokens, strict=True):
        tokens[replica] += count
    return tuple(
        msgspec.structs.replace(each, samples=num[each.index], output_tokens=tokens[each.index])
        for each in replicas
    )


def nodes_of(found: Record, phase: PhaseRecord) -> tuple[str, ...]:
    """The nodes of the attempt that ran the phase."""

    def began(utc: str) -> float:
        return datetime.fromisoformat(utc).timestamp()

    start_s = phase.start_unix_s or 0.0
    before = [each for each in found.attempts if began(each.started_utc) <= start_s + 1]
    return before[-1].nodes if before else ()


def _leaves_that_differ(was: Any, now: Any, path: str = "") -> Iterator[str]:
    """``verdict.verdict: "INVALID" by its files, not "VALID"``."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in sorted(was.keys() | now.keys()):  # the order of a set varies between runs
            yield from _leaves_that_differ(
                was.get(key), now.get(key), f"{path}.{key}" if path else key
            )
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for index, (one, other) in enumerate(zip(was, now, strict=True)):
            yield from _leaves_that_differ(one, other, f"{path}[{index}]")
    elif was != now:
        yield f"{path}: {_text(now)} by its files, not {_text(was)}"


def _text(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 80 else f"{text[:77]}..."
