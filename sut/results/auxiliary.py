"""What a run does beside its measurement: progress, telemetry, plots, reports.

No result depends on it. Where it fails the run goes on, and its record says what failed. The record
itself and LoadGen's logs are not of this kind.
"""

from __future__ import annotations

from collections.abc import Callable

from sut.rundir import Outage
from sut.units import quantity
from sut.values import Struct

PROGRESS = "progress"
TELEMETRY = "telemetry"
PLOTS = "plots"
REPORT = "report"


class AuxiliaryFailure(Struct, frozen=True, kw_only=True):
    """``part`` is progress, telemetry, plots or report. ``at_s`` and ``until_s`` count from the
    start of its attempt's process: with ``until_s`` it worked again from then on. ``node`` is None
    for the head."""

    part: str
    cause: str
    at_s: float | None = None  # None: it is done once, at the run's end
    until_s: float | None = None
    node: str | None = None

    @property
    def text(self) -> str:
        where = f" of {self.node}" if self.node else ""
        how = "failed"
        if self.at_s is not None:
            how = f"stopped at {quantity(self.at_s, 's')}"
        if self.at_s is not None and self.until_s is not None:
            how = f"has a gap from {quantity(self.at_s, 's')} to {quantity(self.until_s, 's')}"
        return f"{self.part}{where} {how}: {self.cause}; the result does not depend on it"


class Watch:
    """The parts of one attempt that can fail while it runs. ``start`` is the attempt's, by
    :func:`time.monotonic`."""

    def __init__(self, start: float) -> None:
        self._start = start
        self._parts: list[tuple[str, Callable[[], Outage | None], str | None]] = []

    def add(self, part: str, outage: Callable[[], Outage | None], node: str | None = None) -> None:
        """``outage`` is asked when the record is written; ``node`` is None for the head."""
        self._parts.append((part, outage, node))

    def failures(self) -> tuple[AuxiliaryFailure, ...]:
        return tuple(
            _of_outage(part, found, self._start, node)
            for part, outage, node in self._parts
            if (found := outage()) is not None
        )


def _of_outage(part: str, outage: Outage, start: float, node: str | None) -> AuxiliaryFailure:
    return AuxiliaryFailure(
        part=part,
        cause=outage.cause,
        at_s=round(outage.begin - start, 3),
        until_s=None if outage.end is None else round(outage.end - start, 3),
        node=node,
    )
