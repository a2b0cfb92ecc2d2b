"""How a run came about: attempts, timings, environment, hashes."""

from __future__ import annotations

from collections.abc import Sequence

from sut.machine.environment import Environment
from sut.plan.hostlist import compact
from sut.report import timings
from sut.report.markdown import code, or_dash, table
from sut.report.page import Section
from sut.report.summary import engines
from sut.results.record import Attempt, Record
from sut.units import quantity


def sections(record: Record, again: str, verify: str) -> list[Section]:
    """``again`` and ``verify`` are the commands that run the plan again and check the run."""
    found = [
        _attempts(record.attempts),
        timings.section(record),
        _environment(_nodes(record)),
        _provenance(record, again, verify),
    ]
    return [section for section in found if section is not None]


def _attempts(attempts: Sequence[Attempt]) -> Section | None:
    if len(attempts) < 2:
        return None
    rows = [
        (
            each.job_id or "-",
            str(each.restart),
            compact(each.nodes),
            each.started_utc,
            each.ended_utc or "-",
            _result(each),
        )
        for each in attempts
    ]
    text = "Finished phases were kept; an interrupted phase was measured again."
    head = ("job", "requeue", "nodes", "started", "ended", "result")
    return Section(title="Attempts", text=f"{text}\n\n{table(head, rows)}")


def _result(attempt: Attempt) -> str:
    if attempt.failure is not None:
        return f"{attempt.status}, {attempt.failure.code}"
    return attempt.status or "no exit recorded (killed, or power loss)"


def _nodes(record: Record) -> list[Environment]:
    """The nodes of the last attempt, then others that measured a phase."""
    found = [record.environment, *record.nodes]
    measured = (each for phase in record.phases for each in phase.environments)
    for each in measured:
        if each not in found:
            found.append(each)
    return found


def _environment(nodes: Sequence[Environment]) -> Section:
    """A column for each node, with "same" for the first node's value. Rows without any value are
    left out."""
    first, *others = [_facts(env) for env in nodes]
    columns = [first, *({k: v if v != first[k] else "same" for k, v in o.items()} for o in others)]
    rows = [
        (name, *(column[name] for column in columns))
        for name in first
        if any(column[name] not in ("-", "same") for column in columns)
    ]
    return Section(title="Environment", text=table(("", *[""] * len(columns)), rows))


def _facts(env: Environment) -> dict[str, str]:
    gpus = [gpu.name for gpu in env.gpus]
    return {
        "host": env.hostname,
        "CPU": f"{or_dash(env.cpu_model)}, {or_dash(env.num_usable_cpus)} usable CPUs",
        "memory": quantity(env.memory_gib, "GiB"),
        "GPUs": ", ".join(f"{gpus.count(name)} x {name}" for name in sorted(set(gpus))) or "none",
        "GPU driver": or_dash(env.gpu_driver),
        "system": f"{or_dash(env.os)}, Linux {env.kernel}",
        "container": or_dash(env.container),
        "container sha256": or_dash(env.image_sha256),
        "LoadGen": or_dash(env.loadgen),
        "Python": env.python,
        "packages": ", ".join(f"{name} {version}" for name, version in env.packages.items()),
        "variables": " ".join(f"{name}={value}" for name, value in env.variables.items()) or "-",
    }


def _provenance(record: Record, again: str, verify: str) -> Section:
    plan, git = record.plan, record.environment.git
    source = "-" if git is None else f"{git.commit}{', with local changes' if git.dirty else ''}"
    rows = [
        ("run", record.run_id),
        ("created", record.created_utc),
        ("plan", f"sha256 {record.plan_digest}"),
        ("model", f"{plan.model.name}, sha256 {or_dash(record.hashes.model)}"),
        ("data", f"{plan.dataset.name}, sha256 {or_dash(record.hashes.data)}"),
        ("engine", f"{plan.engine.kind}, {plan.engine.dtype}, on {plan.device}"),
        *(("", line) for line in engines(record)),
        ("source", source),
        ("exit code", str(record.exit_code)),
    ]
    if record.hashes.tokens is not None:
        rows.insert(5, ("prompts", f"sha256 of their token ids {record.hashes.tokens}"))
    text = f"{table(('', ''), rows)}\n\nTo run the same plan again: {code(again)}"
    text += f"\n\nTo check this run against its record: {code(verify)}"
    return Section(title="Provenance", text=text)
