"""Find the highest VALID load, or the best engine settings: ``python -m sut.tune``.

A search for a load is a run of its own kind, submitted like any other (:mod:`sut.submit`):
:mod:`sut.run.tune` searches on one start of the engines, and the last performance phase is the
run's result. A search for engine settings makes several runs, one after the other.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console

from sut import interrupts, layout, output, simulate, submit
from sut.cluster.sbatch import Submission
from sut.command import command_of_run, print_json
from sut.errors import (
    CANCELLED,
    EXIT_FAILED,
    EXIT_VALID,
    NO_RECORD,
    NODE_LOST,
    TRUNCATED,
    InputError,
    SutError,
)
from sut.home import expanded
from sut.interrupts import Interrupt
from sut.launch import dry_run, engine_sweep, members, run_options, settings_search
from sut.launch.options import find_run
from sut.launch.settings_search import Search
from sut.machine import modules
from sut.plan.benchmark import Scenario
from sut.plan.config import load_campaign
from sut.results import halving, record
from sut.results.halving import Measurement
from sut.run import forecast
from sut.rundir import RunDir
from sut.units import number, quantity
from sut.watch.follow import EXIT_DETACHED, close_if_unrecorded, until_ended
from sut.watch.observer import Observer
from sut.watch.outcome import Outcome, of

NOT_THE_SETTINGS = (CANCELLED, NODE_LOST, NO_RECORD, TRUNCATED)  # failures


@command_of_run
def main(argv: Sequence[str] | None = None) -> int:
    with interrupts.at_once():
        arguments = run_options.parse_tune(argv)
        if not arguments.engine_sweep and not arguments.resume:
            search = None
        else:
            search, folder = _continued(arguments) if arguments.resume else _begun(arguments)
    if search is None:
        return submit.run(arguments)
    return _run(arguments, search, folder)


def _begun(arguments: argparse.Namespace) -> tuple[Search, Path | None]:
    """A new search, which has no folder yet. Raises InputError."""
    if arguments.config and load_campaign(arguments.config):
        raise InputError(
            f"--sweep cannot be combined with a campaign ({arguments.config})",
            hint="give a benchmark: --config NAME",
        )
    if arguments.wait is False:
        raise InputError(
            "--no-wait cannot be combined with --sweep engine.KEY: this command starts each run "
            "when the one before has ended",
            hint="leave it out, and keep the command running, e.g. in tmux",
        )
    request = msgspec.structs.replace(run_options.request_of(arguments), tune=False)
    search = Search(
        request=request,
        settings=tuple(engine_sweep.settings(arguments.engine_sweep)),
        test_s=arguments.seconds or engine_sweep.TEST_S,
    )
    return (_best_simulated(search, arguments) if arguments.from_run else search), None


def _best_simulated(search: Search, arguments: argparse.Namespace) -> Search:
    """The search among the best settings in simulation. Raises InputError."""
    modules.require_core("a simulation")
    run_dir = find_run(arguments.from_run, arguments)
    plan = settings_search.plan(search, 0, 0).plan
    basis = forecast.for_plan(forecast.of_run(run_dir, record.read(run_dir.record)), plan)
    found = []
    for setting, each in zip(
        search.settings, simulate.swept(basis, arguments.engine_sweep), strict=True
    ):
        simulated = forecast.forecast(each, len(plan.replicas))
        found.append((simulated.peak_qps or simulated.samples_per_s, setting))
    found.sort(key=lambda pair: -pair[0])
    best = found[: engine_sweep.NUM_BEST]
    print(f"simulated {quantity(len(found), 'settings')} with {basis.source}", file=sys.stderr)
    return msgspec.structs.replace(
        search,
        settings=tuple(setting for _, setting in best),
        simulated=tuple(figure for figure, _ in best),
    )


def _continued(arguments: argparse.Namespace) -> tuple[Search, Path]:
    """An interrupted search. A run that was not finished is made again. Raises InputError."""
    folder = expanded(arguments.resume)
    search = settings_search.read(folder)
    done = []
    for each in search.measured:
        run_dir = RunDir(each.run_dir)
        if not each.has_ended and run_dir.plan.is_file():
            observer = Observer(run_dir)
            observer.look()
            if not observer.has_ended:
                raise InputError(
                    f"a run of this search has not ended ({run_dir.root})",
                    hint=f"wait for it: python -m sut.watch {shlex.quote(str(run_dir.root))}",
                )
            outcome = of(run_dir, each.job_id, observer.plan)
            each = _measured(each, outcome, search) or each
        if each.has_ended:
            done.append(each)
    return msgspec.structs.replace(search, measured=tuple(done)), folder


def _run(arguments: argparse.Namespace, search: Search, folder: Path | None) -> int:
    """Measure what is left, and print the best. Raises SutError."""
    round_number, todo = halving.to_measure(len(search.settings), search.measured)
    if folder is not None and not todo:
        return _show(search, folder, as_json=arguments.json)
    planned = [settings_search.plan(search, each, round_number) for each in dict.fromkeys(todo)]
    checked = [submit.checked(each) for each in planned]
    if arguments.dry_run:
        output.is_the_result()
        return dry_run.show(planned, checked, arguments)
    submission = submit.check(arguments, planned, checked)
    if folder is None:
        folder = settings_search.new_folder(planned[0].run_root)
        settings_search.write(search, folder)
    print(f"search of engine settings: {folder}", file=sys.stderr, flush=True)
    with Interrupt() as interrupt:
        while todo:
            search = _measure(search, folder, todo[0], round_number, submission, interrupt)
            round_number, todo = halving.to_measure(len(search.settings), search.measured)
    return _show(search, folder, as_json=arguments.json)


def _measure(
    search: Search,
    folder: Path,
    setting: int,
    round_number: int,
    submission: Submission,
    interrupt: Interrupt,
) -> Search:
    """The search with one more measurement, saved. Raises SutError where it must stop."""
    planned = settings_search.plan(search, setting, round_number)
    print(f"round {round_number + 1}: {planned.name}", file=sys.stderr, flush=True)
    job = members.submit(planned, submission)
    new = Measurement(
        setting=setting,
        round=round_number,
        run_dir=str(job.run_dir.root),
        job_id=job.submitted.job_id,
    )
    before = search.measured
    settings_search.write(msgspec.structs.replace(search, measured=(*before, new)), folder)
    if until_ended(job, interrupt, Console(stderr=True)):
        close_if_unrecorded(job)
    found = _measured(new, of(job.run_dir, new.job_id, job.plan), search)
    if found is None:
        error = SutError(
            f"the search stopped before its end: {job.run_dir.root} has no result",
            hint=f"continue it: python -m sut.tune --resume {shlex.quote(str(folder))}",
        )
        error.exit_code = EXIT_DETACHED if interrupt.asked else EXIT_FAILED
        raise error
    search = msgspec.structs.replace(search, measured=(*before, found))
    settings_search.write(search, folder)
    shown = quantity(found.value, search.unit) if found.value is not None else found.why
    print(f"  {shown}", file=sys.stderr, flush=True)
    return search


def _measured(of_run: Measurement, outcome: Outcome, search: Search) -> Measurement | None:
    """The measurement with its run's figure; None for a run that did not end, or not for its
    settings."""
    result = outcome.result
    if result is None or (result.failure and result.failure.code in NOT_THE_SETTINGS):
        return None
    if result.failure is not None:
        why, *_ = result.failure.message.splitlines()
        return msgspec.structs.replace(of_run, why=why or result.failure.code)
    value = result.samples_per_s
    if search.request.scenario is not Scenario.OFFLINE:
        value = result.target_qps if result.verdict == "VALID" else 0.0
    if value is None:
        return msgspec.structs.replace(of_run, why="the run has no figure")
    return msgspec.structs.replace(of_run, value=value)


def _show(search: Search, folder: Path, *, as_json: bool) -> int:
    result = halving.result(len(search.settings), search.measured)
    if as_json:
        best = search.settings[result.best] if result else None
        print_json({"folder": str(folder), "best": best, "result": result, "search": search})
        return EXIT_FAILED if result is None else EXIT_VALID
    print(_table(search))
    if result is None:
        print("\nno setting could be measured")
        return EXIT_FAILED
    lines = layout.columns((), _rows(search, result, folder), (), layout.terminal_width())
    print("\n".join(["", *lines]))
    return EXIT_VALID


def _table(search: Search) -> str:
    num_rounds = 1 + max((each.round for each in search.measured), default=0)
    times = [search.test_s * 2**each for each in range(num_rounds)]
    head = ["setting", *["simulated"] * bool(search.simulated)]
    head += [f"tests of {quantity(test_s, 's')}" for test_s in times]
    rows = []
    for index, setting in enumerate(search.settings):
        row = [engine_sweep.text(setting)]
        if search.simulated:
            row.append(number(search.simulated[index]))
        for each in range(num_rounds):
            runs = [m for m in search.measured if m.setting == index and m.round == each]
            row.append(" and ".join("failed" if m.why else number(m.value) for m in runs) or "-")
        rows.append(row)
    lines = layout.columns(head, rows, range(1, len(head)), layout.terminal_width())
    return "\n".join([search.unit, *lines])


def _rows(search: Search, result: halving.Result, folder: Path) -> list[tuple[str, str]]:
    best = search.settings[result.best]
    figure = quantity(result.value, search.unit)
    rows = [("best", f"{engine_sweep.text(best)}: {figure}")]
    if result.margin is not None and result.second is not None:
        other = engine_sweep.text(search.settings[result.second])
        text = f"{result.margin:.1%} over {other}"
        if result.half_width is not None:
            text += f"; 95% interval ±{result.half_width:.1%}"
            text += "" if result.is_certain else ": no more than noise"
        rows.append(("margin", text))
    rows.append(("use it", " ".join(f"--set {each}" for each in engine_sweep.sets(best))))
    rows.append(("runs", f"python -m sut.campaign {shlex.quote(str(folder))}"))
    return rows


if __name__ == "__main__":
    sys.exit(main())
