"""Every unreviewed number is labelled unverified, with its benchmark, scenario and round."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from cli import fast, submit
from loadgen_logs import smallest_valid
from records import PLAN, accuracy, completed, performance, render

from sut import verdict
from sut.plan.benchmark import Scenario
from sut.report.summary import summary
from sut.results.messaging import UNVERIFIED, unverified
from sut.rundir import RunDir

OFFICIAL = msgspec.structs.replace(
    PLAN, benchmark="llama3.1-8b", scenario=Scenario.INTERACTIVE, official=True
)


def test_only_an_official_run_uses_mlperfs_name() -> None:
    assert unverified(OFFICIAL) == (
        "MLPerf Inference v6.1, llama3.1-8b, Interactive: unverified. "
        "Result not verified by MLCommons Association."
    )
    assert unverified(OFFICIAL, "closed").startswith("MLPerf Inference v6.1 Closed, llama3.1-8b,")
    ours = unverified(PLAN, "closed")
    assert ours.startswith("LoadGen with the seeds of MLPerf Inference v6.1, smollm2-135m-news,")
    assert "Closed" not in ours


def test_summary_and_report_label_each_score_unverified() -> None:
    record = completed(performance(smallest_valid()), accuracy(31.0))
    text = summary(record, RunDir("/runs/latest"))
    assert unverified(PLAN) in text and unverified(PLAN) in render(record)
    for line in text.splitlines():
        if line.strip().startswith(("speed", "accuracy")):
            assert line.endswith("(unverified)")
    assert "measured (unverified)" in render(record)


def test_a_verdict_names_its_data_or_benchmark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verdict.main([str(smallest_valid())]) == 0
    text = capsys.readouterr().out
    assert "LoadGen 6.0.17 on " in text and f", Server: unverified. {UNVERIFIED}" in text
    assert submit(tmp_path, *fast()).returncode == 0
    assert verdict.main([str(tmp_path / "runs" / "latest")]) == 0
    label = "LoadGen with the seeds of MLPerf Inference v6.1, replay, Server: unverified."
    assert label in capsys.readouterr().out
