"""The files that MLCommons' scripts of the compliance tests write, in a test's log folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sut.plan.benchmark import Gate
from sut.plan.plan import Plan
from sut.results import accuracy, compliance, compliance_length
from sut.results.compliance import Verification
from sut.results.compliance_length import OutputLengths
from sut.rundir import write_atomic

METRIC = "exact_match"  # which MLCommons' script of TEST07 reads
NAMES = (compliance.VERIFY_ACCURACY, compliance_length.VERIFY_OUTPUT_LEN)
_LINE = "=" * 80


def write(
    log_dir: Path,
    plan: Plan,
    *,
    test06: Verification | None,
    test09: OutputLengths | None,
    test07: Mapping[str, float] | None,
) -> None:
    """Write the file of the test that has a result. ``test07`` are its scores, without
    ``exact_match`` until the answers are scored. Raises OSError."""
    bounds = plan.compliance.output_tokens if plan.compliance else None
    gate = plan.accuracy.gates.get(METRIC) if plan.accuracy else None
    if test06 is not None:
        text = compliance.verify_accuracy_text(test06)
        write_atomic(log_dir / compliance.VERIFY_ACCURACY, text)
    if test09 is not None and bounds is not None:
        text = compliance_length.verify_output_len_text(test09, bounds)
        write_atomic(log_dir / compliance_length.VERIFY_OUTPUT_LEN, text)
    if test07 is not None and METRIC in test07 and gate is not None:
        program = log_dir / accuracy.PROGRAM_OUTPUT
        printed = program.read_text(errors="replace") if program.is_file() else ""
        text = verify_accuracy_text(printed, test07[METRIC], gate)
        write_atomic(log_dir / compliance.VERIFY_ACCURACY, text)


def verify_accuracy_text(program_output: str, score: float, gate: Gate) -> str:
    """``verify_accuracy.txt`` of TEST07: what the program printed, and whether the gate is met."""
    passed = score >= gate.low
    return (
        f"{program_output}\n{_LINE}\nTEST07 Verification Summary\n{_LINE}\n"
        f"Accuracy score: {score}\n"
        f"Accuracy threshold: {float(gate.low)}\n"
        f"Accuracy check pass: {passed}\n"
        f"{'TEST PASS' if passed else 'TEST FAIL'}\n"
    )
