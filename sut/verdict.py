"""``python -m sut.verdict RUN|LOGDIR [--round ROUND] [--published] [--json]``: the verdict on a run
or a LoadGen log folder."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from sut import layout
from sut.cluster import liveness, runs
from sut.command import Parser, at_least, command, print_json
from sut.errors import EXIT_INVALID, EXIT_VALID, InputError, quoted
from sut.home import expanded
from sut.launch.options import RUN, add, add_runs, find_run, shared
from sut.plan.plan import Mode, Plan, load_plan
from sut.report import verdict_text
from sut.report.summary import Message
from sut.results import (
    audit,
    mllog,
    published,
    record,
    rounds,
    sample_log,
)
from sut.results.diagnosis import marked
from sut.results.judge import Verdict, judge_performance, overall, with_check
from sut.results.mllog import DetailLog
from sut.results.phase_record import PhaseRecord
from sut.results.published import Standing, Subject
from sut.results.record import Failure
from sut.rundir import SAMPLES, RunDir

NOT_IN_A_LOG = (
    "A LoadGen log does not contain failed samples, idle replicas, the engine's settings, accuracy "
    "or compliance."
)


class _Test(NamedTuple):
    """A performance test to judge. In a run, ``counted`` is its phase in the record (LoadGen's logs
    contain neither failures nor replicas) and ``others`` are the run's other phases."""

    log: DetailLog
    folder: Path
    plan: Plan | None
    counted: PhaseRecord | None
    chosen_qps: float | None
    others: tuple[PhaseRecord, ...]
    accelerator: str  # the name of the first GPU of a run; empty without one


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Print the verdict; the exit code is 0 VALID, 1 INVALID, 2 no verdict."""
    options = _options(argv)
    test = _find(_folder(options))
    verdict = _judge(test, options)
    whole = _together(verdict, test.others)
    standing = _standing(test, whole, options)
    if options.json:
        extra = {"published": standing} if options.published else {}
        print_json({**msgspec.structs.asdict(whole), "doubts": whole.doubts, **extra})
    else:
        engines = test.counted.engines if test.counted else ()
        found = (test.log, test.plan, verdict, whole, test.others, engines, standing)
        print("\n".join(verdict_text.lines(*found, layout.terminal_width())))
    return EXIT_VALID if whole.verdict == "VALID" else EXIT_INVALID


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m sut.verdict",
        description="Print whether a LoadGen performance test is VALID and, if not, why and how to "
        "fix it.",
        epilog="exit codes: 0 VALID, 1 INVALID, 2 no verdict",
        examples=(
            "latest",
            "latest --published",
            "results/performance/run_1 --round v6.1",
            "results/performance/run_1 --published --benchmark llama3.1-8b --accelerators 8",
        ),
        parents=[shared("site", "root")],
    )
    add_runs(parser, help=f"{RUN}; or any folder of LoadGen's mlperf_log_*")
    parser.add_argument(
        "--round",
        choices=rounds.NAMES,
        help="check seeds and settings against this round (default: check only the seeds, against "
        "the round of the plan or the log)",
    )
    parser.add_argument(
        "--max-tokens",
        type=at_least(1),
        metavar="N",
        help="most tokens that an answer can have (default: the plan's, or unknown)",
    )
    parser.add_argument(
        "--published",
        action="store_true",
        help="show where a VALID result stands among published ones of its benchmark",
    )
    parser.add_argument(
        "--benchmark",
        metavar="NAME",
        help=f"of a log, for --published: {', '.join(published.BENCHMARKS)}",
    )
    parser.add_argument(
        "--accelerators",
        type=at_least(0),
        metavar="N",
        help="of a log, for --published: the number of accelerators of all nodes; 0: none",
    )
    add(parser, "json")
    options = parser.parse(argv)
    if not options.published and (options.benchmark or options.accelerators is not None):
        raise InputError(
            "--benchmark and --accelerators belong to --published", hint="add --published"
        )
    return options


def _folder(options: argparse.Namespace) -> Path:
    """The run's folder, or the path of LoadGen's logs."""
    path = expanded(options.run)
    if path.exists() and not runs.at(path) and not (path / runs.CAMPAIGN).is_file():
        return path
    run_dir = find_run(options.run, options)
    if not run_dir.record.is_file():
        state = liveness.of_run(run_dir, load_plan(run_dir.plan)).state
        if state in ("submitting", "pending", "active"):
            record.read(run_dir.record)  # says what to do
        if state == "ended" and not run_dir.loadgen(Mode.PERFORMANCE).is_dir():
            raise InputError(
                f"{run_dir}: the run ended without a record",
                hint=f"python -m sut.watch {quoted(run_dir)}",
            )
    return run_dir.root


def _find(path: Path) -> _Test:
    """The test at ``path``: a run, a log folder or a detail log. Raises InputError for a run that
    did not finish."""
    run_dir = RunDir(path)
    of_run = run_dir.loadgen(Mode.PERFORMANCE)
    others = _other_phases(run_dir) if run_dir.record.is_file() else ()
    path = of_run if of_run.is_dir() else path
    folder = (path if path.is_dir() else path.parent).resolve()
    plan, of, counted, chosen_qps, accelerator = None, None, None, None, ""
    run_dir = RunDir(folder.parent.parent)
    if run_dir.loadgen(folder.name) == folder and run_dir.plan.is_file():
        plan, of = load_plan(run_dir.plan), run_dir
        if run_dir.record.is_file():
            run = record.read(run_dir.record)
            counted = next((phase for phase in run.phases if phase.name == folder.name), None)
            chosen_qps = run.chosen_qps
            if counted is not None:
                chosen_qps = plan.chosen_qps(counted.test, chosen_qps)
            accelerator = next((gpu.name for gpu in run.environment.gpus), "")
    return _Test(_read(path, of), folder, plan, counted, chosen_qps, others, accelerator)


def _other_phases(run_dir: RunDir) -> tuple[PhaseRecord, ...]:
    run = record.read(run_dir.record)
    logs = run_dir.loadgen(Mode.PERFORMANCE)
    if run.failure is not None:
        raise _without_verdict(run_dir, run.status, run.failure)
    if not logs.is_dir():
        raise InputError(
            f"{run_dir}: the run has no performance test; it is {run.word}",
            hint=f"read {run_dir.report}",
        )
    return tuple(phase for phase in run.phases if phase.name != Mode.PERFORMANCE)


def _without_verdict(run_dir: RunDir, status: str, failure: Failure) -> InputError:
    """The failure of a run with the lines of the log that show it, and what to do."""
    message = Message.of(failure.message)
    logs = run_dir.loadgen(Mode.PERFORMANCE)
    hints = [message.hint] if message.hint else []
    hints += [f"to judge its logs: python -m sut.verdict {quoted(logs)}"] if _is_whole(logs) else []
    hints = hints or [f"its report has more: less {quoted(run_dir.report)}"]
    first = f"{run_dir}: the run has no verdict: {status}, {failure.code}: {message.first}"
    return InputError("\n".join([first, *map(marked, message.log)]), hint="; ".join(hints))


def _is_whole(logs: Path) -> bool:
    try:
        mllog.read(logs)
    except InputError:
        return False
    return True


def _read(path: Path, run_dir: RunDir | None) -> DetailLog:
    """The log at ``path``. The error for one that a run of ours did not finish names the run."""
    try:
        return mllog.read(path)
    except InputError as error:
        if run_dir is None:
            raise
        hint = f"see why the run ended: python -m sut.watch {quoted(run_dir)}"
        raise InputError(Message.of(str(error)).first, hint=hint) from None


def _judge(test: _Test, options: argparse.Namespace) -> Verdict:
    plan, counted = test.plan, test.counted
    stats = counted.dispatcher if counted else None
    answers, unread = _answers(test.log)
    verdict = judge_performance(
        test.log,
        num_failed=stats.issued - stats.completed if stats else None,
        replica_samples=[work.samples for work in counted.replicas] if counted else (),
        official=plan.official if plan else None,
        plan=plan,
        samples=sample_log.read(test.folder / SAMPLES),
        answers=answers,
        asked_round=options.round,
        max_tokens=options.max_tokens,
        chosen_qps=test.chosen_qps,
        hopeless=counted.hopeless if counted else None,
        foreign=plan is None,
    )
    for check in counted.verdict.checks if counted else ():
        if check.code not in {known.code for known in verdict.checks}:
            verdict = with_check(verdict, check)  # known only during the run, e.g. its nodes
    notes = (unread, None if counted else NOT_IN_A_LOG)
    return msgspec.structs.replace(
        verdict, notes=(*verdict.notes, *(note for note in notes if note))
    )


def _answers(log: DetailLog) -> tuple[audit.AnswerLengths | None, str | None]:
    return audit.read(Path(log.path)) if log.token_latencies else (None, None)


def _standing(test: _Test, whole: Verdict, options: argparse.Namespace) -> Standing | None:
    """Where the result stands among published ones; None where that is not asked, or it is not
    VALID. Raises InputError where it cannot be compared."""
    if not options.published:
        return None
    plan, name, num = test.plan, options.benchmark, options.accelerators
    if plan is not None:
        if name is not None or num is not None:
            raise InputError(
                f"{test.folder}: a run's benchmark and accelerators are in its plan",
                hint="leave out --benchmark and --accelerators",
            )
        subject = published.subject_of(plan, test.accelerator)
    elif name is None or num is None:
        raise InputError(
            f"{test.log.path}: a LoadGen log contains neither its benchmark nor its accelerators",
            hint="add --benchmark NAME --accelerators N",
        )
    else:
        subject = Subject(benchmark=name, accelerators=num)
    found = published.standing(test.log.values, subject, plan.scenario if plan else None)
    return found if whole.verdict == "VALID" else None


def _together(verdict: Verdict, others: Iterable[PhaseRecord]) -> Verdict:
    """One verdict on all phases of a run."""
    verdicts = [verdict, *(phase.verdict for phase in others)]
    return msgspec.structs.replace(
        verdict,
        verdict=overall(verdicts),
        reasons=tuple(reason for each in verdicts for reason in each.reasons),
        checks=tuple(check for each in verdicts for check in each.checks),
    )


if __name__ == "__main__":
    sys.exit(main())
