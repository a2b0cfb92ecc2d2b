"""The same seeds issue the same samples, through sut._core and through LoadGen's own wheel."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from replay import served

from sut import _core

NUM_SAMPLES = 300
USER_CONF = """
llama3_1-8b.{scenario}.min_duration = 500
llama3_1-8b.{scenario}.min_query_count = 700
llama3_1-8b.{scenario}.performance_sample_count_override = 300
llama3_1-8b.Server.target_qps = 2000
llama3_1-8b.Offline.target_qps = 100
llama3_1-8b.SingleStream.target_latency = 1
"""

# In its own process: LoadGen must not be loaded twice into one.
WHEEL = """
import json, sys
import mlperf_loadgen as lg

user_conf, scenario, log_dir = sys.argv[1:]
settings = lg.TestSettings()
settings.FromConfig("", "llama3_1-8b", scenario, 0)
settings.FromConfig(user_conf, "llama3_1-8b", scenario, 2)
settings.scenario = getattr(lg.TestScenario, scenario)
settings.mode = lg.TestMode.PerformanceOnly
issued = []

def issue(query):
    for sample in query:
        issued.append(sample.index)
        first = lg.QuerySampleResponse(sample.id, 0, 0, 1)
        if scenario != "Offline":
            lg.FirstTokenComplete([first])
        lg.QuerySamplesComplete([lg.QuerySampleResponse(sample.id, 0, 0, 8)])

logs = lg.LogSettings()
logs.log_output.outdir = log_dir
logs.enable_trace = False
sut = lg.ConstructSUT(issue, lambda: None)
qsl = lg.ConstructQSL(300, 300, lambda _: None, lambda _: None)
lg.StartTestWithLogSettings(sut, qsl, settings, logs, "")
print(json.dumps(issued))
"""


def through_the_wheel(user_conf: Path, scenario: str, log_dir: Path) -> list[int]:
    log_dir.mkdir()
    command = [sys.executable, "-c", WHEEL, str(user_conf), scenario, str(log_dir)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    issued: list[int] = json.loads(run.stdout.splitlines()[-1])
    return issued


def through_the_core(user_conf: Path, scenario: str, log_dir: Path) -> list[int]:
    """The order is in the accuracy log, which LoadGen writes because of the audit file."""
    log_dir.mkdir()
    with served(NUM_SAMPLES) as dispatcher:
        test = _core.LoadGenTest(
            dispatcher,
            model="llama3_1-8b",
            scenario=scenario,
            mode="performance",
            user_conf=user_conf.read_text(),
            audit_conf="*.*.accuracy_log_sampling_target = 100000000\n",
            log_dir=str(log_dir),
            sut_name="replay",
            qsl_name="numbers",
        )
        test.start()
        assert test.wait(60.0)
        assert test.finished, dispatcher.failure
    answers = json.loads((log_dir / "mlperf_log_accuracy.json").read_text())
    return [a["qsl_idx"] for a in sorted(answers, key=lambda answer: answer["seq_id"])]


@pytest.mark.parametrize("scenario", ["Server", "Offline", "SingleStream"])
def test_core_and_wheel_issue_the_same_samples(scenario: str, tmp_path: Path) -> None:
    user_conf = tmp_path / "user.conf"
    user_conf.write_text(USER_CONF.format(scenario=scenario))
    core = through_the_core(user_conf, scenario, tmp_path / "core")
    wheel = through_the_wheel(user_conf, scenario, tmp_path / "wheel")
    # SingleStream continues until its time ends, so only its length depends on the system.
    length = min(len(core), len(wheel)) if scenario == "SingleStream" else len(wheel)
    assert length >= 700
    assert core[:length] == wheel[:length]
    assert len(set(wheel[:300])) > 100
