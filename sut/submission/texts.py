"""The contents of a submission's files: pure functions of records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from sut.plan.plan import Plan
from sut.report.markdown import table
from sut.results.messaging import TRADEMARK, unverified
from sut.results.record import Record
from sut.submission.reasons import Division, benchmark_name
from sut.submission.runs import SCENARIOS, Result
from sut.units import quantity

WEIGHT_TYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
PREVIEW = "NOT A SUBMISSION: built with --preview from runs that cannot be submitted."
# The reasons why a preview cannot be submitted; None for a submission.
Against = Sequence[str] | None
VIEWABLE_BYTES = 4096  # of the head of an accuracy log, and of its tail


def as_json(content: object) -> str:
    return msgspec.json.format(msgspec.json.encode(content), indent=4).decode() + "\n"


def measurements(plan: Plan, preview: bool) -> dict[str, str]:
    """``measurements.json``: the model's weights and their changes."""
    quantization = _option(plan.engine.extra_args, "--quantization", "-q")
    content = {
        "input_data_types": "int32",  # token ids
        "retraining": "no",
        "starting_weights_filename": plan.model.name,
        "weight_data_types": quantization or WEIGHT_TYPES.get(plan.engine.dtype, plan.engine.dtype),
        "weight_transformations": f"quantization to {quantization}" if quantization else "no",
    }
    return content | ({"note": PREVIEW} if preview else {})


def _option(arguments: Sequence[str], *names: str) -> str | None:
    """The value of an option given as ``--name value`` or ``--name=value``."""
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in names:
            return value if equals else next(iter(arguments[place + 1 :]), None)
    return None


def accuracy(scores: dict[str, float], num_scored: int | None, sha256: str, preview: bool) -> str:
    """``accuracy.txt``: the scores as MLCommons' evaluation script prints them, as plain numbers,
    and the sha256 of the whole accuracy log."""
    numbers: dict[str, float | int | None] = {name: _plain(v) for name, v in scores.items()}
    numbers["gen_num"] = num_scored
    mark = f"{PREVIEW}\n" if preview else ""
    return f"{mark}Results\n\n{numbers}\n\nhash={sha256}\n"


def _plain(value: float) -> float | int:
    return int(value) if float(value).is_integer() else float(value)


def truncated(log: bytes) -> bytes:
    """The head and the tail of an accuracy log, as MLCommons' script truncates it."""
    if len(log) < VIEWABLE_BYTES:
        return log
    return log[:VIEWABLE_BYTES] + b"\n\n...\n\n" + log[-VIEWABLE_BYTES:]


def user_conf(record: Record, preview: bool) -> str:
    return (f"# {PREVIEW}\n" if preview else "") + record.user_conf


def verification(text: str, preview: bool) -> str:
    """The lines of MLCommons' script; a mark follows them."""
    return text + (f"{PREVIEW}\n" if preview else "")


def system(fields: dict[str, Any], preview: bool) -> dict[str, Any]:
    if not preview:
        return fields
    notes = " ".join(filter(None, (PREVIEW, str(fields["sw_notes"]))))
    return {**fields, "sw_notes": notes}


def readme(results: Sequence[Result], division: Division, against: Against) -> str:
    """The README of the submission."""
    plan = results[0].main.run.record.plan
    scenarios = ", ".join(SCENARIOS[result.scenario] for result in results)
    return "\n\n".join(
        [
            f"# {benchmark_name(plan)}: {scenarios}",
            *_marked(against),
            unverified(plan, division),
            "`results/<system>/<benchmark>/<scenario>/README.md` describes each result; `src/` "
            "contains the source.",
            TRADEMARK,
            "",
        ]
    )


def scenario_readme(result: Result, division: Division, against: Against) -> str:
    """How one result was measured, and how to repeat it."""
    record = result.main.run.record
    plan = record.plan
    rows = [
        ("benchmark", f"{plan.benchmark}, {SCENARIOS[result.scenario]}, {plan.round}"),
        ("model", f"{plan.model.name}, sha256 {record.hashes.model}"),
        ("data", f"{plan.dataset.name}, sha256 {record.hashes.data}"),
        ("engine", f"{plan.engine.kind}, {plan.engine.dtype}, {_size(plan)}"),
        *([("load", record.load.text)] if record.load else []),
        ("source", _commit(record)),
        ("image", record.environment.image_sha256 or "none"),
        *(
            (part.phase.name, f"run {part.run.name}, plan {part.run.record.plan_digest}")
            for part in result.parts.values()
        ),
    ]
    conf = "".join(f"    {line}\n" for line in record.user_conf.splitlines())
    return "\n\n".join(
        [
            f"# {benchmark_name(plan)}, {SCENARIOS[result.scenario]}",
            *_marked(against),
            unverified(plan, division),
            table(("", ""), rows),
            "`plan.json` is the plan of the run. To repeat it, install the source under `src/` "
            "and run `python -m sut.submit --again .` in this folder.",
            f"LoadGen's settings in addition to mlperf.conf (`user.conf`):\n\n{conf}".rstrip(),
            "",
        ]
    )


def source_readme(record: Record, against: Against) -> str:
    """The README of the source."""
    return "\n\n".join(
        [
            "# Source",
            *_marked(against),
            f"`mlperf-sut/` is the project at commit {_commit(record)}. LoadGen "
            f"{record.environment.loadgen} is linked from MLCommons' PyPI sdist, unmodified.",
            "",
        ]
    )


def _marked(against: Against) -> list[str]:
    if against is None:
        return []
    reasons = "\n".join(f"- {why}" for why in against or ("no reason found",))
    return [f"**{PREVIEW}**", "Reasons:", reasons]


def _size(plan: Plan) -> str:
    engine = plan.engine
    return (
        f"{quantity(len(plan.replicas), 'replicas')} on {quantity(len(plan.nodes), 'nodes')}, "
        f"tensor parallel "
        f"{engine.tensor_parallel_size}, pipeline parallel {engine.pipeline_parallel_size}, "
        f"max_num_seqs {engine.max_num_seqs}, max_num_batched_tokens "
        f"{engine.max_num_batched_tokens}"
    )


def _commit(record: Record) -> str:
    git = record.environment.git
    if git is None:
        return "unknown"
    return git.commit + (", with local changes that are not included" if git.dirty else "")
