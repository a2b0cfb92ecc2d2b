"""The Python modules that a run needs. A login node submits and reads without them."""

from __future__ import annotations

import importlib
import importlib.util
import shlex
import sys

from sut.errors import InputError
from sut.machine import checkout
from sut.machine.checkout import ROOT

CORE = "sut._core"
OF_EVERY_RUN = ("numpy", "psutil", CORE)
OF_VLLM = ("torch", "transformers", "vllm")


def require(names: tuple[str, ...]) -> None:
    """Raise InputError if this Python lacks one of these modules."""
    lacking = [name for name in names if importlib.util.find_spec(name) is None]
    if lacking:
        raise InputError(
            f"this Python cannot run a benchmark ({sys.executable}): missing {', '.join(lacking)}",
            hint=_hint(),
        )
    if CORE in names:
        _require_current_core()


def require_core(of: str) -> None:
    """Raise InputError where the C++ core is not built, as in a login node's environment. ``of`` is
    what needs it."""
    if importlib.util.find_spec(CORE) is None:
        raise InputError(
            f"{of} needs the C++ core, which this Python does not have ({sys.executable})",
            hint=f"{_own()}; or in an image: apptainer exec IMAGE python -m sut.simulate",
        )


def _require_current_core() -> None:
    """In a checkout, the core must be built from its sources; a core without their hash is older
    than it. One that was built without setup.py has an empty hash."""
    sources = checkout.core_sources()
    built_from = getattr(importlib.import_module(CORE), "SOURCES_SHA256", None)
    if sources and built_from not in (sources, ""):
        raise InputError(
            f"the C++ core was built from other sources than those of this checkout ({ROOT}/csrc)",
            hint=f"make -C {shlex.quote(str(ROOT))} build",
        )


def _hint() -> str:
    return f"{_own()}; or run in the image of a site: --site NAME"


def _own() -> str:
    if (ROOT / "Makefile").is_file():
        return f"make -C {ROOT} build && source {ROOT}/.venv/bin/activate"
    return "in a checkout: pip install '.[cpu]' (with a GPU: '.[cuda]')"
