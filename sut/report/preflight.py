"""What was found on the nodes before anything was loaded."""

from __future__ import annotations

from sut.report.markdown import bullets, table
from sut.report.page import Section
from sut.results.record import PreflightCheck, Record
from sut.units import quantity


def section(record: Record) -> Section | None:
    """A column for each node: what was measured, or that it is well."""
    if not record.preflight:
        return None
    names = dict.fromkeys(check.name for node in record.preflight for check in node.checks)
    rows = [
        (
            f"`{name}`",
            *(
                ", ".join(_cell(check) for check in node.checks if check.name == name) or "-"
                for node in record.preflight
            ),
        )
        for name in names
    ]
    failed = [
        f"{node.node}, {check.name}: {check.text}"
        for node in record.preflight
        for check in node.checks
        if not check.ok
    ]
    nodes = (node.node for node in record.preflight)
    parts = [bullets(failed), table(("check", *nodes), rows)]
    return Section(title="Preflight", text="\n\n".join(part for part in parts if part))


def _cell(check: PreflightCheck) -> str:
    text = "ok" if check.measured is None else quantity(check.measured, check.unit)
    return text if check.ok else f"**{'not ok' if text == 'ok' else text}**"
