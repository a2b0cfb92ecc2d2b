"""Why LoadGen's logs of other than performance tests have no verdict, and what they do contain."""

from __future__ import annotations

import re

from sut.errors import InputError
from sut.results import answers
from sut.results.mllog import DetailLog
from sut.units import number, quantity

_PEAK = re.compile(r"Found peak performance field: ([0-9.]+)")


def no_verdict(log: DetailLog) -> InputError:
    match log.mode:
        case "AccuracyOnly":
            return _of_accuracy(log)
        case "FindPeakPerformance":
            return _of_search(log)
        case other:
            return InputError(
                f"no verdict on {log.path}: it is of mode {other}, not of a performance test",
                hint="pass a log of mode PerformanceOnly",
            )


def _of_accuracy(log: DetailLog) -> InputError:
    errors = ""
    if log.num_errors:
        errors = f". LoadGen logged {quantity(log.num_errors, 'errors')} in it"
        errors += f', the first: "{log.errors[0].message}"' if log.errors else ""
    return InputError(
        f"no verdict on {log.path}: it is of an accuracy test (AccuracyOnly), which LoadGen does "
        f"not judge{errors}",
        hint=f"score its {answers.FILE_NAME} with the benchmark's accuracy script; for a run of "
        "this project, read its report",
    )


def _of_search(log: DetailLog) -> InputError:
    """FindPeakPerformance logs the settings of its first load, and the result of its last."""
    what = f"no verdict on {log.path}: it is of a search (FindPeakPerformance), not of a test"
    found = _PEAK.search(str(log.values.get("generic_message", "")))
    if found is None:
        first = log.values.get("effective_target_qps")
        at = f" ({number(first)})" if isinstance(first, int | float) else ""
        return InputError(
            f"{what}. It found no load: already its first, target_qps{at}, exceeded a limit",
            hint="start it at a lower target_qps, since it tries only higher ones",
        )
    qps = float(found[1])
    return InputError(
        f"{what}. It found {number(qps)} queries/s, the highest load within the limits",
        hint=f"for a result, run LoadGen in mode PerformanceOnly with target_qps {qps:.12g}",
    )
