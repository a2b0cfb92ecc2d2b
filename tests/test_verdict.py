"""The verdict names every rule that is not met and no other, and is never milder than
LoadGen's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cli import fast, set_arguments, submit, until
from loadgen_logs import SMALLEST_VALID, make, smallest_valid, ten_queries, with_value
from records import PLAN_OF_SMALLEST_VALID, accuracy, completed, performance

from sut.errors import InputError
from sut.plan.benchmark import Accuracy, Gate
from sut.results import mllog, record, sample_log
from sut.results.budget import Hopeless
from sut.results.early_stopping import num_over_limit, queries_needed
from sut.results.judge import Verdict, judge_accuracy, judge_performance, overall, with_check
from sut.results.measures import measure
from sut.results.phase_record import PhaseRecord
from sut.results.record import Failure
from sut.results.rules import Check
from sut.rundir import RunDir
from sut.verdict import main as print_verdict


def judge(folder: Path, **counted: Any) -> Verdict:
    return judge_performance(mllog.read(folder), **counted)


def codes(checks: tuple[Check, ...]) -> set[str]:
    return {check.code for check in checks}


def check(verdict: Verdict, code: str) -> Check:
    (found,) = (check for check in verdict.checks if check.code == code)
    return found


# Ten queries: what people try first.


def test_ten_fast_queries_are_invalid_because_few() -> None:
    verdict = judge(ten_queries())
    assert verdict.verdict == verdict.loadgen_validity == "INVALID"
    assert codes(verdict.reasons) == {
        "min_duration",
        "min_queries",
        "early_stopping",
        "loadgen_errors",  # LoadGen logs an error when it ends at max_query_count
    }
    assert "Max query count reached" in check(verdict, "loadgen_errors").text


def test_ten_fast_queries_are_not_blamed_on_latency() -> None:
    verdict = judge(ten_queries())
    ttft, tpot = check(verdict, "ttft_p99"), check(verdict, "tpot_p99")
    assert ttft.met and ttft.limit == 2000 and ttft.measured is not None and ttft.measured >= 50
    assert tpot.met and tpot.limit == 100 and tpot.measured is not None and tpot.measured >= 37
    blamed = " ".join(reason.text for reason in verdict.reasons)
    assert "TTFT" not in blamed and "TPOT" not in blamed


def test_ten_fast_queries_need_449_more() -> None:
    reason = check(judge(ten_queries()), "early_stopping")
    assert (reason.measured, reason.limit) == (10, 459)
    assert "449 more queries" in reason.text


# One rule broken at a time.


def test_the_smallest_valid_run_is_valid() -> None:
    verdict = judge(smallest_valid(), num_failed=0, replica_samples=(300, 200), official=False)
    assert verdict.verdict == verdict.loadgen_validity == "VALID"
    assert verdict.reasons == ()
    assert codes(verdict.checks) == {
        "min_duration",
        "min_queries",
        "ttft_p99",
        "tpot_p99",
        "early_stopping",
        "loadgen_errors",
        "failed_samples",
        "idle_replicas",
        "token_count",
        "tpot_plausible",
        "round_seeds",
    }


@pytest.mark.parametrize(
    ("slow", "conf", "reason"),
    [
        ({"ttft_ms": 40.0}, {"ttft_latency": 10}, "ttft_p99"),
        ({"tpot_ms": 20.0}, {"tpot_latency": 10}, "tpot_p99"),
    ],
)
def test_names_only_the_latency_over_its_limit(
    slow: dict[str, float], conf: dict[str, int], reason: str, tmp_path: Path
) -> None:
    verdict = judge(make(tmp_path / "slow", user_conf=SMALLEST_VALID | conf, **slow))
    assert codes(verdict.reasons) == {reason, "early_stopping"}  # the one brings the other
    broken = check(verdict, reason)
    assert broken.measured is not None and broken.limit is not None
    assert broken.measured > broken.limit == 10


def test_names_both_latencies_over_their_limits(tmp_path: Path) -> None:
    conf = SMALLEST_VALID | {"ttft_latency": 10, "tpot_latency": 10}
    verdict = judge(make(tmp_path / "slow", user_conf=conf, ttft_ms=40, tpot_ms=20))
    assert codes(verdict.reasons) == {"ttft_p99", "tpot_p99", "early_stopping"}


@pytest.mark.parametrize(
    ("slow", "what"), [({"slow_ttft_ms": 2500}, "TTFT"), ({"slow_tpot_ms": 300}, "TPOT")]
)
def test_a_few_slow_queries_fail_early_stopping_alone(
    slow: dict[str, float], what: str, tmp_path: Path
) -> None:
    conf = SMALLEST_VALID | {"ttft_latency": 2000, "tpot_latency": 200}
    verdict = judge(make(tmp_path / "few", user_conf=conf, slow_every=150, **slow))
    (reason,) = verdict.reasons
    assert reason.code == "early_stopping"
    assert reason.text.startswith(f"3 of 500 queries over the {what} limit")
    assert reason.limit == 1001


def test_a_short_run_fails_duration_alone(tmp_path: Path) -> None:
    conf = {"target_qps": 1, "min_duration": 5000, "min_query_count": 100}
    verdict = judge(make(tmp_path / "short", scenario="Offline", user_conf=conf))
    (reason,) = verdict.reasons
    assert reason.code == "min_duration" and reason.limit == 5 and reason.unit == "s"
    assert reason.measured is not None and 0 < reason.measured < 5


def test_an_error_loadgen_ignores_makes_a_run_invalid(tmp_path: Path) -> None:
    folder = make(tmp_path / "lie", user_conf=SMALLEST_VALID, report_tokens=1)
    verdict = judge(folder)
    assert verdict.loadgen_validity == "VALID" and verdict.verdict == "INVALID"
    errors = check(verdict, "loadgen_errors")
    assert errors.measured == 500 and "greater than 1" in errors.text


@pytest.mark.parametrize(
    ("counted", "reason"),
    [
        ({"num_failed": 1}, "failed_samples"),
        ({"replica_samples": (500, 0)}, "idle_replicas"),
    ],
)
def test_failures_outside_loadgen_make_a_run_invalid(counted: dict[str, Any], reason: str) -> None:
    verdict = judge(smallest_valid(), **counted)
    assert verdict.loadgen_validity == "VALID" and verdict.verdict == "INVALID"
    assert codes(verdict.reasons) == {reason}


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("result_validity", "INVALID", "loadgen_validity"),
        ("result_min_duration_met", False, "min_duration"),
        ("result_min_queries_met", False, "min_queries"),
        ("early_stopping_met", False, "early_stopping"),
        ("result_query_count", 9, "min_queries"),
        ("result_first_token_99.00_percentile_latency_ns", 2_000_000_001, "ttft_p99"),
        ("result_first_token_99.00_percentile_latency_ns", -1, "ttft_p99"),
        ("result_time_per_output_token_99.00_percentile_ns", 100_000_001, "tpot_p99"),
        ("num_errors", 1, "loadgen_errors"),
    ],
)
def test_one_bad_value_makes_a_log_invalid(
    key: str, value: object, reason: str, tmp_path: Path
) -> None:
    text = (smallest_valid() / mllog.FILE_NAME).read_text()
    (tmp_path / mllog.FILE_NAME).write_text(with_value(key, value)(text))
    verdict = judge(tmp_path)
    assert verdict.verdict == "INVALID"
    assert reason in codes(verdict.reasons)


def test_a_value_slightly_over_its_limit_looks_different(tmp_path: Path) -> None:
    text = (smallest_valid() / mllog.FILE_NAME).read_text()
    key = "result_first_token_99.00_percentile_latency_ns"
    (tmp_path / mllog.FILE_NAME).write_text(with_value(key, 2_000_000_001)(text))
    assert "2,000.000001 ms; the limit is 2,000 ms" in check(judge(tmp_path), "ttft_p99").text


def test_a_value_at_its_limit_is_met(tmp_path: Path) -> None:
    text = (smallest_valid() / mllog.FILE_NAME).read_text()
    key = "result_first_token_99.00_percentile_latency_ns"
    (tmp_path / mllog.FILE_NAME).write_text(with_value(key, 2_000_000_000)(text))
    found = check(judge(tmp_path), "ttft_p99")
    assert found.met
    assert found.text == ("TTFT p99 was 2,000 ms; the limit is 2,000 ms (exactly at the limit).")


# The other scenarios.


def test_offline_has_no_latency_rule(tmp_path: Path) -> None:
    conf = {"target_qps": 200, "min_duration": 200, "min_query_count": 100}
    folder = make(tmp_path / "offline", scenario="Offline", user_conf=conf, tpot_ms=40)
    verdict = judge(folder)
    assert verdict.verdict == "VALID"
    assert codes(verdict.checks) == {
        "min_duration",
        "min_queries",
        "loadgen_errors",
        "token_count",
        "round_seeds",
    }
    assert check(verdict, "min_queries").measured == 100  # samples: Offline is one query
    figures = measure(verdict.metrics)
    assert figures.samples_per_s and figures.tokens_per_s
    assert figures.tokens_per_s == pytest.approx(8 * figures.samples_per_s, rel=1e-4)


def test_single_stream_needs_64_queries(tmp_path: Path) -> None:
    conf = {"target_latency": 2, "min_duration": 50, "min_query_count": 100}
    folder = make(tmp_path / "single", scenario="SingleStream", user_conf=conf, ttft_ms=1)
    verdict = judge(folder)
    assert verdict.verdict == "VALID"
    assert codes(verdict.checks) == {
        "min_duration",
        "min_queries",
        "early_stopping",
        "loadgen_errors",
        "token_count",
        "tpot_plausible",
        "round_seeds",
    }
    assert check(verdict, "early_stopping").limit == 64


def test_interactive_has_its_own_limits(tmp_path: Path) -> None:
    folder = make(tmp_path / "log", model="llama3_1-8b-interactive", user_conf=SMALLEST_VALID)
    verdict = judge(folder)
    assert check(verdict, "ttft_p99").limit == 500
    assert check(verdict, "tpot_p99").limit == 30


def test_reports_a_server_log_without_token_latencies(tmp_path: Path) -> None:
    folder = make(tmp_path / "dot", model="llama3.1-8b", user_conf=SMALLEST_VALID)
    assert "no TTFT or TPOT" in check(judge(folder), "latency_p99").text


def test_an_accuracy_log_has_no_performance_verdict(tmp_path: Path) -> None:
    folder = make(tmp_path / "accuracy", mode="AccuracyOnly", scenario="Offline")
    with pytest.raises(InputError, match="AccuracyOnly"):
        judge(folder)


# Numbers.


def test_misnamed_keys_are_not_among_the_metrics() -> None:
    log = mllog.read(smallest_valid())
    metrics = judge_performance(log).metrics
    assert "result_token_throughput" in log.values
    assert not metrics.keys() & {"result_token_throughput", "result_overlatency_query_count"}
    assert metrics["result_query_count"] == 500
    figures = measure(log.values)
    assert figures.samples_per_s and figures.tokens_per_s
    assert figures.tokens_per_s == pytest.approx(8 * figures.samples_per_s * 500 / 499, rel=1e-4)


@pytest.mark.parametrize(
    ("num_over", "percentile", "total"),
    [
        (0, 0.99, 459),
        (1, 0.99, 662),
        (2, 0.99, 838),
        (5, 0.99, 1307),
        (10, 0.99, 2010),
        (100, 0.99, 12571),
        (2000, 0.99, 210_600),
        (0, 0.9, 44),
        (1, 0.9, 64),
        (300, 0.9, 3407),
    ],
)
def test_early_stopping_needs_as_many_as_loadgen(
    num_over: int, percentile: float, total: int
) -> None:
    assert queries_needed(num_over, percentile) == total
    assert num_over_limit(total, percentile) == num_over
    assert num_over_limit(total + 1, percentile) is None


# Accuracy.

GATES = Accuracy(
    reference={"rouge1": 38.7792, "gen_len": 8_167_644},
    gates={
        "rouge1": Gate(low=0.99 * 38.7792),
        "gen_len": Gate(low=0.9 * 8_167_644, high=1.1 * 8_167_644),
    },
)


@pytest.mark.parametrize(
    ("scores", "num_scored", "reasons"),
    [
        ({"rouge1": 38.4, "gen_len": 8e6}, 1000, set()),
        ({"rouge1": 38.3, "gen_len": 8e6}, 1000, {"accuracy_rouge1"}),
        ({"rouge1": 38.4, "gen_len": 9e6}, 1000, {"accuracy_gen_len"}),
        ({"rouge1": 38.4, "gen_len": 7e6}, 1000, {"accuracy_gen_len"}),
        ({"rouge1": 38.4, "gen_len": 8e5}, 100, {"whole_data_set"}),
        ({"rouge1": 38.4, "gen_len": 8e6}, 100, {"accuracy_gen_len", "whole_data_set"}),
        ({"gen_len": 8e6}, 1000, {"accuracy_rouge1"}),
    ],
)
def test_every_gate_must_pass(scores: dict[str, float], num_scored: int, reasons: set[str]) -> None:
    verdict = judge_accuracy(scores, GATES, num_scored=num_scored, num_samples=1000)
    assert codes(verdict.reasons) == reasons
    assert verdict.verdict == ("INVALID" if reasons else "VALID")
    assert verdict.loadgen_validity is None


def test_accuracy_without_a_reference_is_invalid() -> None:
    assert judge_accuracy({"rouge1": 99.0}, None, num_scored=1, num_samples=1).verdict == "INVALID"


def test_a_run_is_valid_when_every_phase_is() -> None:
    good, bad = judge(smallest_valid()), judge(ten_queries())
    assert overall([good, good]) == "VALID"
    assert overall([good, bad]) == overall([]) == "INVALID"


# The command.


def test_the_command_prints_every_rule(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_verdict([str(ten_queries())]) == 1
    out = capsys.readouterr().out
    assert out.startswith("INVALID")
    for rule in judge(ten_queries()).checks:
        assert rule.text in out
    assert print_verdict([str(smallest_valid())]) == 0
    assert capsys.readouterr().out.startswith("VALID")


def test_the_command_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_verdict([str(ten_queries()), "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    doubts = [doubt["code"] for doubt in printed.pop("doubts")]
    assert doubts == ["loadgen_errors"]
    verdict = msgspec.convert(printed, Verdict)
    assert msgspec.structs.replace(verdict, notes=()) == judge(ten_queries(), foreign=True)
    assert "does not contain failed samples" in verdict.notes[0]
    assert printed["verdict"] == "INVALID"
    assert {"code", "text", "measured", "limit"} <= printed["reasons"][0].keys()


def test_the_command_prints_doubts_beside_valid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = tmp_path / "odd"
    shutil.copytree(smallest_valid(), odd)
    log = odd / "mlperf_log_detail.txt"
    log.write_text(with_value("effective_schedule_rng_seed", 7)(log.read_text()))
    assert print_verdict([str(odd)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("VALID, with 1 doubt  (Server; LoadGen ")
    assert "  doubt    round_seeds     The seeds are those of no known round" in out
    assert "How to fix it:\n  - round_seeds: " in out
    assert print_verdict([str(odd), "--round", "v6.1"]) == 1
    assert "  NOT met  round_seeds " in capsys.readouterr().out


def test_the_command_prints_why_a_run_is_unofficial(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = RunDir(tmp_path)
    shutil.copytree(smallest_valid(), run_dir.loadgen("performance"))
    run_dir.plan.write_bytes(msgspec.json.encode(PLAN_OF_SMALLEST_VALID))
    for folder in (run_dir.root, run_dir.loadgen("performance")):
        assert print_verdict([str(folder)]) == 0
        out = capsys.readouterr().out
        because = PLAN_OF_SMALLEST_VALID.not_official_because
        assert "Not official" in out and all(why in out for why in because)
    print_verdict([str(tmp_path), "--json"])
    assert json.loads(capsys.readouterr().out)["official"] is False


def run_with(folder: Path, *phases: PhaseRecord, **changes: Any) -> RunDir:
    """A run's folder with the smallest VALID test's logs, and a record of these phases."""
    run_dir = RunDir(folder)
    shutil.copytree(smallest_valid(), run_dir.loadgen("performance"))
    run_dir.plan.write_bytes(msgspec.json.encode(PLAN_OF_SMALLEST_VALID))
    record.write(completed(*phases, **changes), run_dir)
    return run_dir


def measured(*, issued: int = 500, idle: bool = False, idle_node: bool = False) -> PhaseRecord:
    phase = performance(smallest_valid())
    assert phase.dispatcher is not None
    stats = msgspec.structs.replace(phase.dispatcher, issued=issued, completed=500)
    work = [msgspec.structs.replace(r, samples=0 if idle else 250) for r in phase.replicas]
    verdict = phase.verdict
    if idle_node:
        verdict = with_check(verdict, Check("idle_nodes", False, "No replica uses node jw3."))
    return msgspec.structs.replace(phase, dispatcher=stats, replicas=tuple(work), verdict=verdict)


@pytest.mark.parametrize(
    ("phases", "reasons"),
    [
        ([measured()], set()),
        ([measured(issued=501)], {"failed_samples"}),
        ([measured(idle=True)], {"idle_replicas"}),
        ([measured(idle_node=True)], {"idle_nodes"}),
        ([measured(), accuracy(20.0)], {"accuracy_rouge1", "whole_data_set"}),
    ],
)
def test_the_command_uses_the_runs_own_counts(
    phases: list[PhaseRecord],
    reasons: set[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_dir = run_with(tmp_path, *phases)
    assert print_verdict([str(run_dir), "--json"]) == (1 if reasons else 0)
    content = json.loads(capsys.readouterr().out)
    assert content.pop("doubts") == []
    printed = msgspec.convert(content, Verdict)
    assert codes(printed.reasons) == reasons
    print_verdict([str(run_dir)])
    out = capsys.readouterr().out
    assert out.startswith("INVALID" if reasons else "VALID")
    assert all(reason.text in out for reason in printed.reasons)


def test_a_failed_run_has_no_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failure = Failure(code="engine_died", message="replica 0 died.", replica=0)
    run_dir = run_with(tmp_path, measured(), status="failed", verdict=None, failure=failure)
    assert print_verdict([str(run_dir)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "engine_died: replica 0 died." in err
    assert f"python -m sut.verdict {run_dir.loadgen('performance')}" in err
    assert print_verdict([str(run_dir.loadgen("performance"))]) == 0
    shutil.rmtree(run_dir.loadgen("performance"))
    assert print_verdict([str(run_dir)]) == 2
    assert f"hint: its report has more: less {run_dir.report}" in capsys.readouterr().err


def test_an_incomplete_log_of_a_run_leads_to_its_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failure = Failure(code="cancelled", message="cancelled by Ctrl-C")
    run_dir = run_with(tmp_path, status="failed", verdict=None, failure=failure)
    logs = run_dir.loadgen("performance")
    log = logs / "mlperf_log_detail.txt"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(line for line in lines if '"result_' not in line))
    assert print_verdict([str(run_dir)]) == 2
    err = capsys.readouterr().err
    assert "cancelled by Ctrl-C" in err and "sut.verdict" not in err
    assert print_verdict([str(logs)]) == 2
    err = capsys.readouterr().err
    assert "LoadGen did not finish this test" in err
    assert err.endswith(f"hint: see why the run ended: python -m sut.watch {run_dir}\n")
    run_dir.plan.unlink()
    assert print_verdict([str(logs)]) == 2
    assert capsys.readouterr().err.endswith(f"run the test again: tail {log}\n")


def test_the_verdict_has_the_moment_that_the_run_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = Hopeless(limit="TTFT", since_s=0.123, num_over=1, num_allowed=0, num_queries=480)
    run_dir = run_with(tmp_path, msgspec.structs.replace(measured(), hopeless=found))
    log = run_dir.loadgen("performance") / "mlperf_log_detail.txt"
    too_slow = {
        "result_validity": "INVALID",
        "result_perf_constraints_met": False,
        "result_first_token_99.00_percentile_latency_ns": 9_000_000_000,
    }
    text = log.read_text()
    for key, value in too_slow.items():
        text = with_value(key, value)(text)
    log.write_text(text)
    issued = [1_000_000 * row for row in range(500)]
    slow = {"first_token_ns": 9_000_000_000, "completed_ns": 9_100_000_000}
    columns = {name: [8] * 500 for name in ("replica", "prompt_tokens", "output_tokens")}
    columns |= {"sample_index": list(range(500)), "issued_ns": issued, "admitted_ns": issued}
    columns |= {name: [at + later for at in issued] for name, later in slow.items()}
    sample_log.write(run_dir.samples("performance"), columns)
    for folder in (run_dir.root, run_dir.loadgen("performance")):
        assert print_verdict([str(folder)]) == 1
        out = " ".join(capsys.readouterr().out.split())
        assert "From 0.123 s on, counting samples that still waited" in out


def test_a_run_that_goes_on_has_no_verdict_yet(tmp_path: Path) -> None:
    sets = set_arguments(["scenarios.server.min_duration_ms=60000"])
    submit(tmp_path, *fast(), *sets, "--no-wait")
    log = tmp_path / "runs/latest/loadgen/performance/mlperf_log_detail.txt"
    until(log.is_file)
    asked = submit(tmp_path, "latest", command="verdict")
    assert asked.returncode == 2 and "pending, running, or was killed" in asked.stderr
    assert "python -m sut.watch" in asked.stderr
    assert submit(tmp_path, "latest", command="cancel").returncode == 0
