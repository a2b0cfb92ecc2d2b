"""What a run would give: ``python -m sut.simulate --gpu a30 --replicas 1,2,4``.

The performance test is simulated in seconds, on this machine, before any node is booked
(docs/simulation.md).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

import msgspec

from sut import layout
from sut.command import Parser, command, print_json
from sut.errors import EXIT_VALID, InputError, nearest
from sut.launch import engine_sweep
from sut.launch.engine_sweep import Swept
from sut.launch.options import add, add_runs, find_run
from sut.machine import modules
from sut.plan import config
from sut.plan.benchmark import Preset, Scenario
from sut.plan.keys import full
from sut.plan.plan import Mode, Plan
from sut.plan.resolve import resolve
from sut.plan.site import Device, Site
from sut.results import cost, gpus, record
from sut.results.gpus import Hardware
from sut.results.record import Record
from sut.run import forecast, hindsight
from sut.run.forecast import Basis, Forecast
from sut.rundir import RunDir
from sut.units import exact, number, quantity

DEFAULT = "llama3.1-8b"  # what the GPUs' step times are of
MOST_REPLICAS = 1024
SIMULATED = "simulated"  # a path that is not read


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    modules.require_core("a simulation")
    run = _record(options) if options.from_run else None
    basis = forecast.of_run(*run) if run else _of_gpu(options)
    counts = options.replicas or [len(basis.plan.replicas)]
    found = [
        forecast.forecast(each, count, options.target_qps)
        for each in swept(basis, options.sweep)
        for count in counts
    ]
    seen = hindsight.hindsight(run[1], basis, found) if run else None
    if options.json:
        print_json({"source": basis.source, "forecasts": found, "run": seen})
    else:
        print(_text(basis, found, layout.terminal_width(), hindsight.notes(seen)))
    return EXIT_VALID


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m sut.simulate",
        description="Simulate the performance test: the highest VALID load, its throughput and "
        "latencies, and how long the tests take. Nothing is started.",
        epilog="exit codes: 0 simulated, 2 bad input",
        examples=(
            "--gpu a30 --replicas 1,2,4",
            "--from latest --target-qps 12",
            "--from latest --sweep engine.max_num_seqs=16,32,64",
        ),
    )
    times = parser.add_mutually_exclusive_group(required=True)
    add_runs(times, "--from", dest="from_run", help="step times of a run that measured its load")
    known = ", ".join(gpus.BY_NAME)
    times.add_argument("--gpu", metavar="NAME", help=f"step times of a table: {known}")
    add(parser, "config", help=f"with --gpu: the benchmark (default: {DEFAULT})")
    parser.add_argument(
        "--scenario",
        type=str.lower,
        choices=[each.value for each in Scenario if each is not Scenario.SINGLE_STREAM],
        metavar="NAME",
        help="with --gpu: server (default), interactive or offline; singlestream has one query at "
        "a time",
    )
    add(parser, "set", help="with --gpu: change one key of the benchmark; repeatable")
    parser.add_argument(
        "--replicas",
        type=_counts,
        metavar="N[,N...]",
        help="numbers of replicas, one or several (default: the run's, or 1)",
    )
    parser.add_argument(
        "--target-qps", type=_qps, metavar="QPS", help="simulate this load, and search for none"
    )
    parser.add_argument(
        "--sweep",
        type=engine_sweep.parse,
        action="append",
        default=[],
        metavar="engine.KEY=A,B,...",
        help=f"simulate each of these values of {' or '.join(engine_sweep.KEYS)}; "
        "repeatable: each combination",
    )
    add(parser, "root")
    add(parser, "json")
    options = parser.parse(argv)
    if options.from_run and (options.config or options.scenario or options.set):
        parser.error(
            "--config, --scenario and --set are those of the run with --from",
            parser.without("--config", "--scenario", "--set"),
        )
    return options


def _counts(text: str) -> list[int]:
    counts = [int(part) if part.isdecimal() else 0 for part in text.split(",")]
    if not all(0 < count <= MOST_REPLICAS for count in counts):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected numbers from 1 to {MOST_REPLICAS:,}, e.g. 1,2,4"
        )
    return counts


def swept(basis: Basis, sweep: Sequence[Swept]) -> Iterator[Basis]:
    """The basis with each combination of the values. Raises InputError where a step is smaller than
    the batch that decodes in it."""
    for setting in engine_sweep.settings(sweep):
        changes = {key.removeprefix("engine."): value for key, value in setting.items()}
        engine = msgspec.structs.replace(basis.plan.engine, **changes)
        if engine.max_num_batched_tokens < engine.max_num_seqs:
            raise InputError(
                f"engine.max_num_batched_tokens {engine.max_num_batched_tokens:,} is below "
                f"engine.max_num_seqs {engine.max_num_seqs:,}; each sequence takes one a step",
                hint="leave out this combination",
            )
        plan = msgspec.structs.replace(basis.plan, engine=engine)
        yield msgspec.structs.replace(basis, plan=plan)


def _qps(text: str) -> float:
    try:
        qps = float(text)
    except ValueError:
        qps = 0.0
    if not 0 < qps < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r}: expected queries per second above 0")
    return qps


def _record(options: argparse.Namespace) -> tuple[RunDir, Record]:
    run_dir = find_run(options.from_run, options)
    return run_dir, record.read(run_dir.record)


def _of_gpu(options: argparse.Namespace) -> Basis:
    gpu = gpus.BY_NAME.get(options.gpu.lower())
    if gpu is None:
        known = ", ".join(gpus.BY_NAME)
        raise InputError(
            f"no step times of a GPU {options.gpu}{nearest(options.gpu.lower(), gpus.BY_NAME)}",
            hint=f"known: {known}; of others, use a run: python -m sut.simulate --from RUN",
        )
    return forecast.of_gpu(gpu, _plan(options, gpu))


def _plan(options: argparse.Namespace, gpu: Hardware) -> Plan:
    """The plan on one GPU, with the engine limits that its step times are for."""
    scenario = Scenario(options.scenario or Scenario.SERVER)
    limits = ("max_num_seqs", "max_num_batched_tokens")
    sets = [f"engine.{name}={getattr(gpu, name)}" for name in limits]
    sets += [full(change, scenario) for change in options.set]
    benchmark, _ = config.load(options.config or DEFAULT, "local", sets)
    if benchmark.model.loadgen_name != gpus.MODEL:
        raise InputError(
            f"the GPUs' step times are of {gpus.MODEL}, not of {benchmark.model.loadgen_name}",
            hint="use a run of the benchmark: python -m sut.simulate --from RUN",
        )
    engine = benchmark.engine
    if engine.tensor_parallel_size * engine.pipeline_parallel_size > 1:
        raise InputError(
            "the GPUs' step times are of an engine on one GPU",
            hint="use a run of the plan: python -m sut.simulate --from RUN",
        )
    site = Site(
        name=SIMULATED,
        device=Device.CUDA,
        models={benchmark.model.name: f"/{SIMULATED}"},
        datasets={benchmark.dataset.name: f"/{SIMULATED}"},
    )
    return resolve(
        benchmark,
        site,
        scenario=scenario,
        mode=Mode.ALL,
        preset=Preset.OFFICIAL,
        usable_cpus=[0],
        sets=sets,
    )


def _text(basis: Basis, found: Sequence[Forecast], width: int | None, seen: Sequence[str]) -> str:
    """For a terminal of ``width`` columns; None: for a pipe. ``seen`` is what a run measured."""
    plan, page = basis.plan, width or layout.PAGE
    tests = ", ".join(test.name for test in plan.tests)
    title = f"{plan.benchmark}, {plan.scenario}, {plan.preset} preset: simulated, nothing was run"
    limits = f"{_limits(found)}; all sequences have room in the KV cache"
    lines = [
        *layout.wrap(title, page),
        *layout.wrap(basis.source, page, "  step times  ", " " * 14),
        *layout.wrap(limits, page, "  engine      ", " " * 14),
        "",
        *_table(plan, found, width),
        "",
        *layout.fold([*_notes(found, tests), *seen], page, ""),
    ]
    return "\n".join(lines)


def _limits(found: Sequence[Forecast]) -> str:
    if _differ(found):
        return "the limits of each row"
    seqs, tokens = found[0].max_num_seqs, found[0].max_num_batched_tokens
    return f"{seqs:,} sequences and {tokens:,} tokens a step at most"


def _differ(found: Sequence[Forecast]) -> bool:
    return len({(each.max_num_seqs, each.max_num_batched_tokens) for each in found}) > 1


def _table(plan: Plan, found: Sequence[Forecast], width: int | None) -> list[str]:
    searched = any(each.peak_qps for each in found)
    limited = plan.scenario is not Scenario.OFFLINE
    priced = cost.per_node_hour(plan) is not None
    swept = _differ(found)
    head = [*["sequences", "tokens a step"] * swept, "replicas", *["peak queries/s"] * searched]
    head += ["target_qps", "verdict", "tokens/s"]
    head += ["TTFT p50, p99", "TPOT p50, p99"] * limited
    head += ["tests take", *["cost of 1M tokens"] * priced]
    rows = [
        [
            *[number(each.max_num_seqs), number(each.max_num_batched_tokens)] * swept,
            number(each.num_replicas),
            *[number(each.peak_qps)] * searched,
            exact(each.target_qps),
            each.verdict + (f" ({each.limit})" if each.verdict == "INVALID" else ""),
            number(each.tokens_per_s),
            *[
                f"{number(latency.p50)}, {quantity(latency.p99, 'ms')}"
                for latency in (each.ttft_ms, each.tpot_ms)
                if limited
            ],
            _time(each.tests_s),
            *[number(each.cost_per_million_tokens)] * priced,
        ]
        for each in found
    ]
    lines = layout.columns(head, rows, range(len(head)), None)
    if width is None or max(map(len, lines)) <= width:
        return lines
    return _turned(head, rows, width)


def _turned(head: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """The table with a line for each figure and a column for each row, as many as there is room
    for; the others are below."""
    gap, longest = "  ", max(len(cell) for row in rows for cell in row)
    fitting = max(1, (width - max(map(len, head))) // (longest + len(gap)))
    lines: list[str] = []
    for start in range(0, len(rows), fitting):
        part = rows[start : start + fitting]
        figures = list(zip(head, *part, strict=True))
        lines += [""] * bool(lines)
        lines += layout.columns((), figures, range(1, len(part) + 1), None, gap)
    return lines


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return quantity(round(seconds), "s")
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"


def _notes(found: Sequence[Forecast], tests: str) -> list[str]:
    notes = []
    binding = dict.fromkeys(each.limit for each in found if each.peak_qps and each.limit)
    if binding:
        notes.append(f"The limit on {' or '.join(binding)} binds at the peak.")
    if any(each.peak_qps for each in found):
        share = found[0].target_qps / (found[0].peak_qps or 1)
        notes.append(f"target_qps is the load to ask for: {share:.1%} of the peak.")
    notes.append(f"The tests: {tests}; loading the model comes on top.")
    return notes


if __name__ == "__main__":
    sys.exit(main())
