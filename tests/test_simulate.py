"""sut.simulate: what a run would give, before a node is booked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cli import environment, fast, latest, set_arguments, submit

from sut import simulate
from sut.results import gpus
from sut.results.measures import measure
from sut.results.steps import EngineStep
from sut.results.tuning import CONFIRM
from sut.run import forecast
from sut.units import exact, number, quantity


def simulated(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert simulate.main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["run"] is None) == ("--gpu" in arguments)
    forecasts: list[dict[str, Any]] = found["forecasts"]
    return forecasts


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert simulate.main(arguments) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error and "hint: " in error
    return error


def test_forecasts_each_number_of_replicas(capsys: pytest.CaptureFixture[str]) -> None:
    one, two = simulated(capsys, "--gpu", "A30", "--replicas", "1,2")
    for each in (one, two):
        assert each["verdict"] == "VALID" and each["limit"] == "TPOT"
        assert each["target_qps"] == pytest.approx(CONFIRM * each["peak_qps"], rel=1e-3)
        assert each["tpot_ms"]["p99"] < 100 and each["ttft_ms"]["p99"] < 2000
        assert each["tokens_per_s"] == pytest.approx(128 * each["target_qps"], rel=0.02)
        assert each["num_queries"] == 13_368
    assert 1.8 < two["peak_qps"] / one["peak_qps"] < 2.5
    # The performance test, 13,368 accuracy samples and 100 of TEST06.
    assert one["tests_s"] == pytest.approx((2 * 13_368 + 100) / one["target_qps"], rel=0.01)


def test_a_given_load_is_judged(capsys: pytest.CaptureFixture[str]) -> None:
    (peak,) = simulated(capsys, "--gpu", "a30")
    load = peak["peak_qps"]
    (below,) = simulated(capsys, "--gpu", "a30", "--target-qps", f"{0.99 * load}")
    (above,) = simulated(capsys, "--gpu", "a30", "--target-qps", f"{1.02 * load}")
    assert (below["verdict"], above["verdict"]) == ("VALID", "INVALID")
    assert above["limit"] == "TPOT" and above["peak_qps"] is None
    (odd,) = simulated(capsys, "--gpu", "a30", "--target-qps", "1.23456")
    assert odd["target_qps"] == 1.23456
    (far,) = simulated(capsys, "--gpu", "a30", "--target-qps", "100")
    assert far["tests_s"] > 13_368 * 2 / far["samples_per_s"] > 0.5 * below["tests_s"]


def test_offline_has_a_rate_and_no_limit(capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = simulated(capsys, "--gpu", "h100", "--scenario", "offline")
    assert found["tokens_per_s"] == pytest.approx(5777, rel=0.01)  # what it is fitted to
    assert found["peak_qps"] is None and found["limit"] == ""
    assert simulate.main(["--gpu", "h100", "--scenario", "offline"]) == 0
    shown = capsys.readouterr().out
    assert "TTFT" not in shown and "a fit to MLPerf Inference v5.1" in shown


def test_interactive_has_its_own_limits(capsys: pytest.CaptureFixture[str]) -> None:
    (server,) = simulated(capsys, "--gpu", "l40s")
    (found,) = simulated(capsys, "--gpu", "l40s", "--scenario", "interactive")
    assert found["peak_qps"] < server["peak_qps"] and found["tpot_ms"]["p99"] < 30


def test_shows_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate.main(["--gpu", "a30", "--replicas", "2,4"]) == 0
    shown = capsys.readouterr().out
    assert "llama3.1-8b, server, official preset: simulated, nothing was run" in shown
    assert "computed from its data sheet; nothing measured" in shown
    assert "The limit on TPOT binds at the peak." in shown
    assert "target_qps is the load to ask for: 98.5% of the peak." in shown
    assert [line.split()[0] for line in shown.splitlines() if line.startswith("   ")] == ["2", "4"]


def test_a_runs_own_steps_forecast_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = ["engine.max_num_seqs=8", "target_qps=auto", "site.price_per_node_hour=2"]
    sets += ["scenarios.server.ttft_latency_ms=60000", "scenarios.server.tpot_latency_ms=6000"]
    run = submit(tmp_path, *fast(), *set_arguments(sets))
    found = latest(tmp_path)
    assert found.load is not None and found.load.service is not None, run.stdout
    at = ("--from", str(tmp_path / "runs/latest"))
    (same,) = simulated(capsys, *at, "--target-qps", str(found.load.target_qps))
    seen = measure(found.phases[0].loadgen)
    # A full batch gives a token a sequence and step, however fast the machine was.
    full = EngineStep(0.0, num_decoding=8, num_prefill_tokens=0, context_tokens=0)
    most = 8e6 / found.load.service.step_us(full)
    assert 0.1 * most < same["tokens_per_s"] < 1.05 * most
    assert same["num_queries"] == seen.num_queries and same["verdict"] == "VALID"
    assert simulate.main(at) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert (
        f"At {exact(found.load.target_qps)} queries/s the run measured TTFT p99 "
        f"{quantity(seen.ttft_ms.p99, 'ms')}, TPOT p99 {quantity(seen.tpot_ms.p99, 'ms')}, "
        f"{found.verdict}; simulated: TTFT p99 {quantity(same['ttft_ms']['p99'], 'ms')}," in shown
    )
    assert simulate.main([*at, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    (forecasted,), beside = printed["forecasts"], printed["run"]
    assert beside["target_qps"] == found.load.target_qps
    assert beside["measured"]["verdict"] == found.verdict
    assert beside["simulated"]["verdict"] == same["verdict"]
    for name, measured in (("ttft_ms", seen.ttft_ms), ("tpot_ms", seen.tpot_ms)):
        assert beside["measured"][name] == msgspec.to_builtins(measured)
        assert beside["simulated"][name] == {p: same[name][p] for p in ("p50", "p90", "p99")}
    assert found.load.peak is not None
    peaks = (found.load.peak.target_qps, forecasted["peak_qps"])
    differs = number(peaks[0]) != number(peaks[1])
    assert beside["earlier_peak_qps"] == (peaks[0] if differs else None)
    assert (f"The run simulated a peak of {number(peaks[0])} queries/s" in shown) == differs
    one, four = simulated(capsys, *at, "--replicas", "1,4")
    assert 3 < four["peak_qps"] / one["peak_qps"] < 6
    assert four["cost_per_million_tokens"] == pytest.approx(
        4 * 2 / 3600 / four["tokens_per_s"] * 1e6
    )


def test_a_run_without_steps_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit(tmp_path, *fast()).returncode in (0, 1)
    error = refused(capsys, "--from", str(tmp_path / "runs/latest"))
    assert "the run did not measure its engines' steps" in error
    assert "--set target_qps=auto" in error


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--gpu", "a300"], "no step times of a GPU a300 (did you mean 'a30'?)"),
        (["--gpu", "a30", "--config", "smollm2-135m-news"], "the GPUs' step times are of"),
        (["--gpu", "a30", "--set", "engine.tensor_parallel_size=2"], "an engine on one GPU"),
        (["--from", "nothing"], "no such run"),
    ],
)
def test_names_what_it_cannot_simulate(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert text in refused(capsys, *arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--gpu", "a30", "--from", "latest"],
        ["--gpu", "a30", "--replicas", "0"],
        ["--gpu", "a30", "--replicas", "1,x"],
        ["--gpu", "a30", "--target-qps", "-1"],
        ["--gpu", "a30", "--scenario", "singlestream"],
        ["--from", "latest", "--scenario", "server"],
    ],
)
def test_refuses_options(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = simulate.main(arguments)
    except SystemExit as error:
        code = int(str(error.code))
    assert code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_each_combination_of_engine_limits_is_simulated(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sweep = ("--sweep", "engine.max_num_seqs=16,64", "--sweep", "engine.max_num_batched_tokens=512")
    few, many = simulated(capsys, "--gpu", "a30", *sweep)
    assert (few["max_num_seqs"], many["max_num_seqs"]) == (16, 64)
    assert {few["max_num_batched_tokens"], many["max_num_batched_tokens"]} == {512}
    assert few["limit"] == "TTFT" and many["limit"] == "TPOT"
    assert many["peak_qps"] > 1.5 * few["peak_qps"]
    assert simulate.main(["--gpu", "a30", *sweep, "--target-qps", "1"]) == 0
    shown = capsys.readouterr().out
    assert "engine      the limits of each row; all sequences" in shown
    assert [line.split()[:2] for line in shown.splitlines() if line.startswith("      ")] == [
        ["16", "512"],
        ["64", "512"],
    ]


@pytest.mark.parametrize(
    ("sweep", "text"),
    [
        ("max_num_seqs=8", "(did you mean 'engine.max_num_seqs'?)"),
        ("engine.dtype=float32", "only engine.max_num_seqs and engine.max_num_batched_tokens"),
        ("engine.max_num_seqs=8,x", "expected whole numbers"),
        ("engine.max_num_seqs=0", "expected whole numbers"),
        ("engine.max_num_seqs=", "expected whole numbers"),
        ("engine.max_num_seqs=999999", "is below engine.max_num_seqs 999,999"),
    ],
)
def test_refuses_limits_that_cannot_be_simulated(
    sweep: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = simulate.main(["--gpu", "a30", "--sweep", sweep])
    except SystemExit as ended:
        code = int(ended.code or 0)
    assert code == 2 and text in capsys.readouterr().err


def test_a_narrow_terminal_has_a_line_for_each_figure() -> None:
    gpu = gpus.BY_NAME["a30"]
    options = simulate._options(["--gpu", "a30"])
    basis = forecast.of_gpu(gpu, simulate._plan(options, gpu))
    found = [forecast.forecast(basis, count, 1.0) for count in (1, 2, 3, 4)]
    wide, narrow = (simulate._text(basis, found, width, []).splitlines() for width in (200, 60))
    assert "TTFT p50, p99" in wide[4] and max(map(len, narrow)) <= 60
    (first, *_, last) = (line for line in narrow if line.startswith("TTFT p50, p99"))
    for each, row in ((found[0], first), (found[-1], last)):
        assert f"{number(each.ttft_ms.p50)}, {quantity(each.ttft_ms.p99, 'ms')}" in row
    tables = [line.split() for line in narrow if line.startswith("replicas")]
    assert [count for _, *counts in tables for count in counts] == ["1", "2", "3", "4"]


def test_no_line_of_text_is_long(capsys: pytest.CaptureFixture[str]) -> None:
    for gpu in gpus.BY_NAME:
        assert simulate.main(["--gpu", gpu, "--target-qps", "1"]) == 0
        assert max(map(len, capsys.readouterr().out.splitlines())) <= 110


WITHOUT_CORE = """
import importlib.util, runpy, sys

class Blocked:
    def find_spec(name, *_):
        if name == "sut._core":
            raise ModuleNotFoundError(name)

found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "sut._core" else found(name, *rest)
sys.meta_path.insert(0, Blocked)
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__")
"""


def without_core(*words: str) -> subprocess.CompletedProcess[str]:
    """``python -m WORDS`` as in a login node's environment."""
    command = [sys.executable, "-c", WITHOUT_CORE, *words]
    return subprocess.run(command, env=environment(), capture_output=True, text=True)


@pytest.mark.parametrize("command", ["simulate", "tune"])
def test_a_login_node_reads_the_help(command: str) -> None:
    shown = without_core(f"sut.{command}", "--help")
    assert shown.returncode == 0 and "usage:" in shown.stdout, shown.stderr


def test_a_simulation_without_the_core_says_where_to_run_it() -> None:
    shown = without_core("sut.simulate", "--gpu", "a30")
    assert shown.returncode == 2 and shown.stdout == ""
    assert shown.stderr.startswith("error: a simulation needs the C++ core")
    assert "hint: make -C" in shown.stderr and "apptainer exec IMAGE" in shown.stderr
