"""``python -m sut.verdict LOGDIR [--round ROUND] [--json]``: the verdict on any LoadGen log folder,
or on a run."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from sut.command import command
from sut.errors import EXIT_INVALID, EXIT_VALID, InputError
from sut.plan.plan import Mode, Plan, load_plan
from sut.results import audit, messaging, mllog, record, rounds, sample_log
from sut.results.judge import Verdict, judge_performance, overall, with_check
from sut.results.record import PhaseRecord
from sut.results.rules import Check
from sut.rundir import SAMPLES, RunDir

NOT_IN_A_LOG = (
    "A LoadGen log does not tell of failed samples, idle replicas, the engine's settings, accuracy "
    "and compliance."
)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Print the verdict; the exit code is 0 VALID, 1 INVALID, 2 no verdict possible."""
    options = _options(argv)
    log_dir, others = _what_to_judge(options.log_dir)
    log = mllog.read(log_dir)
    plan = _plan_of(log_dir)
    verdict = _judge(log_dir, log, plan, options)
    whole = _together(verdict, others)
    if options.json:
        print(json.dumps(msgspec.to_builtins(whole), indent=2))
    else:
        print("\n".join(_text(whole.verdict, verdict, log, plan, others)))
    return EXIT_VALID if whole.verdict == "VALID" else EXIT_INVALID


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sut.verdict",
        description="Say whether a LoadGen performance test is VALID, and if not, exactly why and "
        "what would pass.",
        epilog="exit codes: 0 VALID, 1 INVALID, 2 the log can't be judged",
    )
    parser.add_argument(
        "log_dir", type=Path, metavar="LOGDIR", help="folder of mlperf_log_*, or of a run"
    )
    parser.add_argument(
        "--round",
        choices=rounds.NAMES,
        help="hold seeds and settings to this round (default: seeds only, to the plan's round or "
        "the log's)",
    )
    parser.add_argument(
        "--max-tokens",
        type=int,
        metavar="N",
        help="the most tokens an answer may have (default: the plan's, or not known)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(argv)
    if options.max_tokens is not None and options.max_tokens < 1:
        parser.error("--max-tokens: give a number of 1 or more")
    return options


def _what_to_judge(folder: Path) -> tuple[Path, list[PhaseRecord]]:
    """The folder of the performance test's logs; and, of a run, its other phases, which its record
    has judged. Raises InputError for a run that did not come to its end."""
    run_dir = RunDir(folder)
    of_run = run_dir.loadgen(Mode.PERFORMANCE)
    if not run_dir.record.is_file():
        return (of_run if of_run.is_dir() else folder), []
    run = record.read(run_dir.record)
    if run.failure is not None:
        why = f"{run.status}, {run.failure.code}: {run.failure.message.rstrip('.')}"
        rest = f". What it measured can be judged by itself: python -m sut.verdict {of_run}"
        raise InputError(
            f"{run_dir}: the run has no verdict: {why}{rest if of_run.is_dir() else ''}"
        )
    if not of_run.is_dir():
        raise InputError(
            f"{run_dir}: a run without a performance test. Its verdict is {run.verdict}: read "
            f"{run_dir.report}."
        )
    return of_run, [phase for phase in run.phases if phase.name != Mode.PERFORMANCE]


def _judge(
    log_dir: Path, log: mllog.DetailLog, plan: Plan | None, options: argparse.Namespace
) -> Verdict:
    folder = _folder(log_dir)
    counted = _counted(folder) if plan else None
    answers, unread = audit.read(folder) if log.token_latencies else (None, None)
    verdict = judge_performance(
        log,
        num_failed=_num_failed(counted),
        replica_samples=[work.samples for work in counted.replicas] if counted else (),
        official=plan.official if plan else None,
        plan=plan,
        samples=sample_log.read(folder / SAMPLES),
        answers=answers,
        asked_round=options.round,
        max_tokens=options.max_tokens,
    )
    for check in counted.verdict.checks if counted else ():
        if check.code not in {known.code for known in verdict.checks}:
            verdict = with_check(verdict, check)  # of what only the run knew, e.g. its nodes
    unknown = (unread, None if counted else NOT_IN_A_LOG)
    notes = (*verdict.notes, *(note for note in unknown if note))
    return msgspec.structs.replace(verdict, notes=notes)


def _folder(log_dir: Path) -> Path:
    return (log_dir if log_dir.is_dir() else log_dir.parent).resolve()


def _run_of(folder: Path) -> RunDir | None:
    """The run these logs lie in, if they do: RUN_DIR/loadgen/PHASE."""
    run_dir = RunDir(folder.parent.parent)
    return run_dir if run_dir.loadgen(folder.name) == folder else None


def _plan_of(log_dir: Path) -> Plan | None:
    run_dir = _run_of(_folder(log_dir))
    if run_dir is None or not run_dir.plan.is_file():
        return None
    return load_plan(run_dir.plan)


def _counted(folder: Path) -> PhaseRecord | None:
    """What the run's record tells of this phase: LoadGen does not see failures and replicas."""
    run_dir = _run_of(folder)
    if run_dir is None or not run_dir.record.is_file():
        return None
    run = record.read(run_dir.record)
    return next((phase for phase in run.phases if phase.name == folder.name), None)


def _num_failed(counted: PhaseRecord | None) -> int | None:
    if counted is None or counted.dispatcher is None:
        return None
    return counted.dispatcher.issued - counted.dispatcher.completed


def _together(verdict: Verdict, others: Iterable[PhaseRecord]) -> Verdict:
    """One verdict on all phases of a run."""
    verdicts = [verdict, *(phase.verdict for phase in others)]
    return msgspec.structs.replace(
        verdict,
        verdict=overall(verdicts),
        reasons=tuple(reason for each in verdicts for reason in each.reasons),
        checks=tuple(check for each in verdicts for check in each.checks),
    )


def _text(
    word: str, verdict: Verdict, log: mllog.DetailLog, plan: Plan | None, others: list[PhaseRecord]
) -> list[str]:
    version = str(log.values.get("loadgen_version", "")).partition(" ")[0] or "of unknown version"
    lines = [
        f"{word}  ({log.scenario}; LoadGen {version} says {verdict.loadgen_validity})",
        "",
        *_table(verdict.checks),
    ]
    for phase in others:
        lines += ["", f"{phase.name}: {phase.verdict.verdict}", *_table(phase.verdict.checks)]
    reasons = [*verdict.reasons, *(r for phase in others for r in phase.verdict.reasons)]
    lines += _section("What would pass:", (f"{r.code}: {r.remedy}" for r in reasons if r.remedy))
    estimate = verdict.qps_estimate
    if estimate is not None and estimate.qps is not None:
        lines += _section("Highest load:", [estimate.text])
    lines += _section("Not judged:", verdict.notes)
    if plan and not plan.official:
        lines += _section("Not official because:", plan.not_official_because)
    return [*lines, "", messaging.unverified(plan) if plan else messaging.unverified_log(log)]


def _table(checks: Sequence[Check]) -> list[str]:
    width = max(len(check.code) for check in checks)
    return [
        f"  {'met    ' if check.met else 'NOT met'}  {check.code:<{width}}  {check.text}"
        for check in checks
    ]


def _section(title: str, lines: Iterable[str]) -> list[str]:
    items = [f"  - {line}" for line in lines]
    return ["", title, *items] if items else []


if __name__ == "__main__":
    sys.exit(main())
