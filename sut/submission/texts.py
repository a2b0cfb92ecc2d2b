"""The files of a submission that are made from records: pure functions of them."""

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
PREVIEW = "NOT A SUBMISSION: built with --preview from what may not be submitted."
# The reasons that a preview was built in spite of; None for a submission.
Against = Sequence[str] | None
VIEWABLE_BYTES = 4096  # of an accuracy log's head and of its tail


def as_json(content: object) -> str:
    return msgspec.json.format(msgspec.json.encode(content), indent=4).decode() + "\n"


def measurements(plan: Plan, preview: bool) -> dict[str, str]:
    """``measurements.json``: what was done to the model."""
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
    """``accuracy.txt``: the scores as MLCommons' evaluation script prints them, plain numbers, and
    the sha256 of the whole accuracy log."""
    numbers: dict[str, float | int | None] = {name: _plain(v) for name, v in scores.items()}
    numbers["gen_num"] = num_scored
    mark = f"{PREVIEW}\n" if preview else ""
    return f"{mark}Results\n\n{numbers}\n\nhash={sha256}\n"


def _plain(value: float) -> float | int:
    return int(value) if float(value).is_integer() else float(value)


def truncated(log: bytes) -> bytes:
    """An accuracy log as MLCommons' truncation leaves it: its head and its tail."""
    if len(log) < VIEWABLE_BYTES:
        return log
    return log[:VIEWABLE_BYTES] + b"\n\n...\n\n" + log[-VIEWABLE_BYTES:]


def user_conf(plan: Plan, preview: bool) -> str:
    return (f"# {PREVIEW}\n" if preview else "") + plan.user_conf()


def verify_accuracy(text: str, preview: bool) -> str:
    """The script's lines; a mark stands below them."""
    return text + (f"{PREVIEW}\n" if preview else "")


def system(fields: dict[str, Any], preview: bool) -> dict[str, Any]:
    if not preview:
        return fields
    notes = " ".join(filter(None, (PREVIEW, str(fields["sw_notes"]))))
    return {**fields, "sw_notes": notes}


def readme(results: Sequence[Result], division: Division, against: Against) -> str:
    """The README of the whole."""
    plan = results[0].main.run.record.plan
    scenarios = ", ".join(SCENARIOS[result.scenario] for result in results)
    return "\n\n".join(
        [
            f"# {benchmark_name(plan)}: {scenarios}",
            *_marked(against),
            unverified(plan, division),
            "`results/<system>/<benchmark>/<scenario>/README.md` tells how each result was made, "
            "`src/` holds the source.",
            TRADEMARK,
            "",
        ]
    )


def scenario_readme(result: Result, division: Division, against: Against) -> str:
    """How one result was made, and how to make it again."""
    record = result.main.run.record
    plan = record.plan
    rows = [
        ("benchmark", f"{plan.benchmark}, {SCENARIOS[result.scenario]}, {plan.round}"),
        ("model", f"{plan.model.name}, sha256 {record.hashes.model}"),
        ("data", f"{plan.dataset.name}, sha256 {record.hashes.data}"),
        ("engine", f"{plan.engine.kind}, {plan.engine.dtype}, {_size(plan)}"),
        ("source", _commit(record)),
        ("image", record.environment.image_sha256 or "none"),
        *(
            (part.phase.name, f"run {part.run.name}, plan {part.run.record.plan_digest}")
            for part in result.parts
        ),
    ]
    conf = "".join(f"    {line}\n" for line in plan.user_conf().splitlines())
    return "\n\n".join(
        [
            f"# {benchmark_name(plan)}, {SCENARIOS[result.scenario]}",
            *_marked(against),
            unverified(plan, division),
            table(("", ""), rows),
            "`plan.json` is the plan of the run; with the source under `src/` installed, "
            "`python -m sut.submit --again .` in this folder makes it again.",
            f"LoadGen's settings beside its own mlperf.conf (`user.conf`):\n\n{conf}".rstrip(),
            "",
        ]
    )


def source_readme(record: Record, against: Against) -> str:
    """What lies beside the source."""
    return "\n\n".join(
        [
            "# Source",
            *_marked(against),
            f"`mlperf-sut/` is the project as of commit {_commit(record)}. LoadGen "
            f"{record.environment.loadgen} is linked from MLCommons' PyPI sdist, unmodified.",
            "",
        ]
    )


def _marked(against: Against) -> list[str]:
    if against is None:
        return []
    reasons = "\n".join(f"- {why}" for why in against or ("nothing that this program can see",))
    return [f"**{PREVIEW}**", "What stands against it:", reasons]


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
    return git.commit + (", with local changes that are not here" if git.dirty else "")
