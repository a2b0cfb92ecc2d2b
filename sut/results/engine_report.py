"""What engines report of themselves before they load: see :mod:`sut.serving.vllm_report`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from sut.errors import RunError
from sut.values import UNDECODABLE, Struct


class EngineReport(Struct, frozen=True, kw_only=True):
    """The settings of equal engine processes, by vLLM's names. ``changed`` are the settings that
    ``engine.extra_args`` changed, with their values without it; None if they are unknown."""

    engine: str  # its name and version
    settings: dict[str, Any]
    changed: dict[str, Any] | None
    parts: tuple[tuple[int, int], ...] = ()  # the processes: a replica, and its part


def merged(contents: Mapping[tuple[int, int], bytes]) -> tuple[EngineReport, ...]:
    """The different reports of a run's processes. Raises RunError where one is missing."""
    found: list[tuple[EngineReport, list[tuple[int, int]]]] = []
    for part, content in contents.items():
        report = _read(content, part)
        same = next((parts for other, parts in found if other == report), None)
        if same is None:
            found.append((report, [part]))
        else:
            same.append(part)
    return tuple(msgspec.structs.replace(each, parts=tuple(parts)) for each, parts in found)


def _read(content: bytes, part: tuple[int, int]) -> EngineReport:
    try:
        return msgspec.json.decode(content, type=EngineReport)
    except UNDECODABLE as error:
        raise RunError(
            f"the engine of replica {part[0]} did not report its configuration: {error}",
            hint="build the project again, or its image: docs/images.md",
            code="no_engine_report",
            replica=part[0],
        ) from None
