"""What a run was set to, and the command that made it."""

from __future__ import annotations

from sut.plan.benchmark import AUTO, Dtype, Engine
from sut.plan.plan import Mode
from sut.report.markdown import block, code, table
from sut.report.page import Section
from sut.results.engine_rules import DTYPE
from sut.results.measures import measure
from sut.results.record import Command, Record
from sut.units import exact, number, quantity


def section(record: Record) -> Section | None:
    plan = record.plan
    if plan.mode is Mode.PREFLIGHT:
        return None
    chosen = ", chosen by the run (auto)" if plan.loadgen_settings.target_qps == AUTO else ""
    rows = [
        ("`target_qps`", f"{exact(target_qps(record))}{chosen}"),
        *_of_engine(plan.engine, _dtype(record)),
    ]
    rows += [
        ("replicas", f"{number(len(plan.replicas))} on {quantity(len(plan.nodes), 'nodes')}"),
        ("`max_tokens`", number(plan.generation.max_tokens)),
        ("samples in the data set", number(plan.dataset.num_samples)),
    ]
    text = table(("setting", "value"), rows)
    return Section(title="Settings", text=f"{text}\n\n{_made_by(record.command)}".rstrip())


def target_qps(record: Record) -> float | None:
    """The load that LoadGen was set to; before a test has finished, the run's choice or the plan's.
    None where neither is known."""
    tests = [phase.loadgen for phase in record.phases if phase.test.mode == Mode.PERFORMANCE]
    if tests:
        return measure(tests[0]).target_qps
    planned = record.load.target_qps if record.load else record.plan.loadgen_settings.target_qps
    return None if planned == AUTO else float(planned) if planned else None


def limits(engine: Engine) -> list[tuple[str, str]]:
    """What bounds an engine, by vLLM's names."""
    return [
        ("max_num_seqs", number(engine.max_num_seqs)),
        ("max_num_batched_tokens", number(engine.max_num_batched_tokens)),
        ("max_model_len", number(engine.max_model_len)),
        ("dtype", engine.dtype),
        ("tensor_parallel_size", number(engine.tensor_parallel_size)),
        ("pipeline_parallel_size", number(engine.pipeline_parallel_size)),
    ]


def _dtype(record: Record) -> str:
    """What the engines made of ``fastest`` or ``auto``; empty if they did not report it."""
    of_engines = (report.settings for phase in record.phases for report in phase.engines)
    return next((str(each[DTYPE]) for each in of_engines if DTYPE in each), "")


def _of_engine(engine: Engine, reported_dtype: str) -> list[tuple[str, str]]:
    rows = [("engine", str(engine.kind))]
    rows += [(f"`{name}`", value) for name, value in limits(engine)]
    if engine.dtype in (Dtype.FASTEST, Dtype.AUTO) and reported_dtype:
        chosen = f"{engine.dtype}: {reported_dtype}"
        rows = [(name, chosen if name == "`dtype`" else value) for name, value in rows]
    if engine.enforce_eager:
        rows.append(("`enforce_eager`", "yes"))
    if engine.extra_args:
        rows.append(("`extra_args`", code(" ".join(engine.extra_args))))
    return rows


def _made_by(command: Command | None) -> str:
    if command is None:
        return ""
    return f"Made by this command, in {code(command.folder)}:\n\n{block(command.text)}"
