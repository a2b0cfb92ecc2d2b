"""Whether LoadGen ran with the settings of the plan and, for an official run, of the round.

Every setting in LoadGen's log is compared: a setting that is unknown here is a difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from sut.plan import loadgen_settings, mlperf_conf
from sut.plan.loadgen_settings import Settings
from sut.plan.plan import Mode, Plan
from sut.results.mllog import DetailLog, Scalar
from sut.results.rules import Check

DIGITS = 1e-5  # LoadGen logs numbers with six digits
SHOWN = 3  # settings that a check's text names
_SINCE, _BEFORE = (6, 0, 16), (6, 1)  # LoadGen's versions that contain this mlperf.conf
_PREFIXES = ("requested_", "effective_", "qsl_reported_")

# What MLPerf lets a submitter choose. Everything else must be mlperf.conf's.
FREE = frozenset(
    {
        "requested_server_target_qps",
        "requested_offline_expected_qps",
        "requested_single_stream_expected_latency_ns",
    }
)
AT_LEAST = frozenset(
    {
        "requested_min_duration_ms",
        "requested_min_query_count",
        "requested_performance_sample_count_override",
    }
)


def check(log: DetailLog, plan: Plan, mode: Mode, chosen_qps: float | None = None) -> list[Check]:
    """Whether the test ran with the plan's settings and, if the plan is official, with the round's.
    ``chosen_qps`` is the load that the run chose, where the plan leaves it to the run."""
    known = log.version is not None and _SINCE <= log.version < _BEFORE
    if not known or plan.loadgen_name in mlperf_conf.OTHERS:
        return []  # what its mlperf.conf sets is unknown here
    if plan.measures_load and chosen_qps is None:
        chosen_qps = log.number("effective_target_qps")
    logged = {key: value for key, value in log.values.items() if key.startswith(_PREFIXES)}
    expected = of_plan(plan, mode, chosen_qps)
    wrong = [
        _difference(key, logged.get(key), expected.get(key))
        for key in sorted(logged.keys() | expected.keys())
        if not _same(logged.get(key), expected.get(key))
    ]
    checks = [_check("planned_settings", "the plan", wrong)]
    if plan.official:
        wrong = _below_round(logged, plan, mode)
        checks.append(_check("official_settings", mlperf_conf.ROUND, wrong))
    return checks


def of_plan(plan: Plan, mode: Mode, chosen_qps: float | None = None) -> Settings:
    """Every setting that LoadGen logs for a test of this plan."""
    return _logged(plan, mode, plan.user_conf(chosen_qps))


def _logged(plan: Plan, mode: Mode, user_conf: str) -> Settings:
    name, scenario, num = plan.loadgen_name, plan.scenario.loadgen, plan.dataset.num_samples
    audit_conf = mlperf_conf.audit_config(plan.compliance_test(mode), num)
    confs = (mlperf_conf.values(), mlperf_conf.parse(user_conf), mlperf_conf.parse(audit_conf))
    return loadgen_settings.logged(name, scenario, num, confs, accuracy=mode is Mode.ACCURACY)


def _below_round(logged: Mapping[str, Scalar], plan: Plan, mode: Mode) -> list[str]:
    """Settings that the round does not allow."""
    wrong = []
    of_round = _logged(plan, mode, "")
    if mode is Mode.TEST07:  # on data of its own, smaller than mlperf.conf has it
        of_round["requested_performance_sample_count_override"] = plan.dataset.num_samples
    for key, value in of_round.items():
        given = logged.get(key)
        if not key.startswith("requested_") or key in FREE or _same(given, value):
            continue
        if key not in AT_LEAST or not isinstance(given, int) or given < value:
            wrong.append(_difference(key, given, value))
    return wrong


def _check(code: str, whose: str, wrong: Sequence[str]) -> Check:
    if not wrong:
        return Check(code, True, f"LoadGen's settings are those of {whose}.")
    listed = "; ".join(wrong[:SHOWN])
    if more := len(wrong) - SHOWN:
        listed += f"; and {more} more" if more > 0 else ""
    text = f"LoadGen's settings are not those of {whose}: {listed}."
    remedy = "Run it again: only the plan's settings may reach LoadGen."
    return Check(code, False, text, remedy=remedy)


def _difference(key: str, logged: Scalar, expected: Scalar) -> str:
    if expected is None:
        return f"{key} is {_text(logged)}, but unknown"
    return f"{key} is {'not logged' if logged is None else _text(logged)}, not {_text(expected)}"


def _text(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _same(logged: Scalar, expected: Scalar) -> bool:
    if isinstance(logged, bool) or isinstance(expected, bool):
        return logged is expected
    if isinstance(logged, int | float) and isinstance(expected, float):
        return math.isclose(logged, expected, rel_tol=DIGITS)
    return logged == expected
