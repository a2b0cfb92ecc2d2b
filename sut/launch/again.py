"""An earlier run's plan, and what differs on this machine since then."""

from __future__ import annotations

import os
from pathlib import Path

from sut.cluster import image
from sut.errors import InputError
from sut.inputs import hashes, model
from sut.machine import environment
from sut.plan.plan import Plan, load_plan
from sut.results import record, sameness
from sut.results.record import Record
from sut.rundir import RunDir


def plan_of(run_dir: RunDir) -> tuple[Plan, list[str]]:
    """The plan of a run, and a line for each input that the plan does not fix and that changed.

    Raises InputError if ``run_dir`` is not a run of this version.
    """
    plan = load_plan(run_dir.plan)
    if not run_dir.record.is_file():
        return plan, ["unknown, because the run has no record"]
    before = record.read(run_dir.record)
    if before.plan_digest != plan.digest():
        raise InputError(
            f"the plan was changed after the run ({run_dir.plan}): its digest is "
            f"{plan.digest()[:12]}, the record's is {before.plan_digest[:12]}",
            hint="submit a new run: python -m sut.submit --config NAME",
        )
    return plan, differences(before, plan)


def differences(before: Record, plan: Plan) -> list[str]:
    """What changed since a run of ``plan``, of what both the record and this machine know."""
    today = {
        "image_sha256": image.sha256_of(Path(plan.container.image)) if plan.container else None,
        "model_sha256": _model(plan),
        "data_sha256": _data(plan),
        "git": environment.git(),
    }
    found = sameness.mismatches(
        sameness.of_record(before), sameness.flat(today), ignore_unknown=True
    )
    return list(map(str, found))


def _model(plan: Plan) -> str | None:
    path = Path(plan.model.path)
    return model.model_hash(path) if plan.model.path and path.is_dir() else None


def _data(plan: Plan) -> str | None:
    path = Path(plan.dataset.path)
    if not plan.dataset.path or not os.access(path, os.R_OK):
        return None
    return hashes.kept([path], lambda: hashes.sha256_of(path))
