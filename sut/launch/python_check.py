"""Whether this Python can run a plan here: the login node's environment only submits and reads."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import sut
from sut.errors import InputError
from sut.plan.benchmark import EngineKind
from sut.plan.plan import Plan

CORE = "sut._core"
OF_A_RUN = ("numpy", "psutil", CORE)
OF_VLLM = ("torch", "transformers", "vllm")
CHECKOUT = Path(sut.__file__).resolve().parents[1]


def check(plan: Plan) -> None:
    """Raise InputError if the plan needs modules that this Python lacks. A container has its own
    Python."""
    if plan.container is not None or plan.slurm is not None:
        return
    names = OF_A_RUN + (OF_VLLM if plan.engine.kind is EngineKind.VLLM else ())
    lacking = [name for name in names if importlib.util.find_spec(name) is None]
    if lacking:
        raise InputError(
            f"this Python cannot run a benchmark on this machine ({sys.executable}): missing "
            f"{', '.join(lacking)}",
            hint=_hint(),
        )


def _hint() -> str:
    if (CHECKOUT / "Makefile").is_file():
        return f"make -C {CHECKOUT} build && source {CHECKOUT}/.venv/bin/activate; or --site NAME"
    return (
        "pip install 'mlperf-sut[cpu]' (with a GPU: [cuda]); or run in a site's image: --site NAME"
    )
