"""The Python modules that a run needs. A login node submits and reads without them."""

from __future__ import annotations

import importlib.util
import sys

from sut.errors import InputError
from sut.machine.checkout import ROOT

OF_EVERY_RUN = ("numpy", "psutil", "sut._core")
OF_VLLM = ("torch", "transformers", "vllm")


def require(names: tuple[str, ...]) -> None:
    """Raise InputError if this Python lacks one of these modules."""
    lacking = [name for name in names if importlib.util.find_spec(name) is None]
    if lacking:
        raise InputError(
            f"this Python cannot run a benchmark ({sys.executable}): missing {', '.join(lacking)}",
            hint=_hint(),
        )


def _hint() -> str:
    if (ROOT / "Makefile").is_file():
        own = f"make -C {ROOT} build && source {ROOT}/.venv/bin/activate"
    else:
        own = "in a checkout: pip install '.[cpu]' (with a GPU: '.[cuda]')"
    return f"{own}; or run in the image of a site: --site NAME"
