"""A run once more: the same plan, and what else has changed since."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sut.cluster import image
from sut.errors import InputError
from sut.inputs import hashes, model
from sut.machine import environment
from sut.plan.plan import Plan, load_plan
from sut.results import record
from sut.results.record import Record
from sut.rundir import RunDir


def plan_of(run_dir: RunDir) -> tuple[Plan, list[str]]:
    """The plan of a run, and a line for everything that it does not fix and that is not as it
    was. Raises InputError where ``run_dir`` is no run of this version."""
    plan = load_plan(run_dir.plan)
    if not run_dir.record.is_file():
        return plan, ["the run left no record, so what it ran on is not known"]
    before = record.read(run_dir.record)
    if before.plan_digest != plan.digest():
        raise InputError(
            f"{run_dir.plan}: has digest {plan.digest()[:12]} and the record is of "
            f"{before.plan_digest[:12]}: the plan was changed after the run"
        )
    return plan, differences(before, plan)


def differences(before: Record, plan: Plan) -> list[str]:
    """What a run of the same plan would not have as it was, as far as this machine can tell."""
    told = []
    for what, then, today in (
        ("the image's sha256", before.environment.image_sha256, _image(plan)),
        ("the model's sha256", before.hashes.model, _model(plan)),
        ("the data's sha256", before.hashes.data, _data(plan)),
        ("the source's commit", _commit(before.environment.git), _commit(environment.git())),
    ):
        if then is not None and today is not None and then != today:
            told.append(f"{what} was {_short(then)} and is {_short(today)}")
    return told


def _short(text: str) -> str:
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]+", r"\1", text)


def _image(plan: Plan) -> str | None:
    return image.sha256_of(Path(plan.container.image)) if plan.container else None


def _model(plan: Plan) -> str | None:
    path = Path(plan.model.path)
    return model.model_hash(path) if plan.model.path and path.is_dir() else None


def _data(plan: Plan) -> str | None:
    path = Path(plan.dataset.path)
    if not plan.dataset.path or not os.access(path, os.R_OK):
        return None
    return hashes.kept([path], lambda: hashes.sha256_of(path))


def _commit(git: environment.Git | None) -> str | None:
    return None if git is None else git.commit + (", with local changes" if git.dirty else "")
