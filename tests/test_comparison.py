"""sut.campaign: a distributed run is one measurement, and no sum of two is ever shown."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cli import environment
from loadgen_logs import make, smallest_valid, ten_queries
from records import NODES, PLAN, REPLICAS, completed, failed, performance
from test_report_html import Page

from sut.history import campaign_page
from sut.history.comparison import Run
from sut.launch.members import Member, Started
from sut.plan.benchmark import Preset, Scenario
from sut.results import record
from sut.results.phase_record import PhaseRecord
from sut.results.record import Failure, Record
from sut.rundir import RunDir


def offline(tmp_path: Path, num_replicas: int) -> PhaseRecord:
    """One real LoadGen run, of a system as fast as that many replicas."""
    conf = {"target_qps": 200, "min_duration": 50, "min_query_count": 100}
    log_dir = make(
        tmp_path / f"offline-{num_replicas}",
        scenario="Offline",
        user_conf=conf,
        tpot_ms=20 / num_replicas,
    )
    return performance(log_dir)


def on(phase: PhaseRecord, *nodes: str, **plan: Any) -> Record:
    """A run whose replicas were on ``nodes``, one each."""
    replicas = tuple(work for work in REPLICAS if work.node in nodes)
    parts = tuple(work for work in NODES if work.node in nodes)
    changed = msgspec.structs.replace(PLAN, **plan)
    return completed(msgspec.structs.replace(phase, replicas=replicas, nodes=parts), plan=changed)


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("logs")
    one, two = offline(folder, 1), offline(folder, 2)
    settings = {"scenario": Scenario.OFFLINE}
    return [
        Run(name="jw2, offline", record=on(one, "jw2", **settings)),
        Run(name="jw3, offline", record=on(one, "jw3", **settings)),
        Run(name="jw2+jw3, offline", record=on(two, "jw2", "jw3", **settings)),
    ]


def speed(run: Run) -> float:
    assert run.phase is not None
    value = run.phase.loadgen["result_tokens_per_second"]
    assert isinstance(value, int | float)
    return value


def test_compares_scaling_with_each_node_alone(
    campaign: list[Run],
) -> None:
    text = campaign_page.render("Is it one system?", campaign)
    jw2, jw3, both = map(speed, campaign)
    efficiency = both / (jw2 + jw3)
    assert f"a scaling efficiency of {efficiency:.1%}" in text
    assert f"{2 * efficiency:.2f} times the mean of its 2 nodes alone" in text
    assert f"{jw2 + jw3:,.0f}" not in text
    assert f"{both:,.0f} tokens/s measured by one LoadGen" in text


def test_every_run_and_node_has_a_row(campaign: list[Run]) -> None:
    text = campaign_page.render("Campaign", campaign)
    assert text.startswith("# Campaign\n")
    for run in campaign:
        assert re.search(rf"\| {re.escape(run.name)} \| VALID \| 200 \| {speed(run):,.0f} \|", text)
    assert "| jw2+jw3, offline | jw3 | 1 | 4 | 64 | 48.1 | 50.3 | 48.1 | 50.3 | 12.0% |" in text
    assert "Result not verified by MLCommons Association." in text


def test_the_page_needs_no_network(campaign: list[Run]) -> None:
    text = campaign_page.render_html("Campaign", campaign)
    page = Page(text)
    assert "scaling efficiency" in page.text and page.tags.count("svg") == 1
    assert "script" not in page.tags and 'class="good"' in text
    assert page.text.count("jw2+jw3, offline") >= 4


def test_reports_the_offered_load_in_server() -> None:
    phase = performance(smallest_valid())
    qps = float(str(phase.loadgen["effective_target_qps"]))
    double = msgspec.structs.replace(
        phase, loadgen=phase.loadgen | {"effective_target_qps": 2 * qps}
    )
    runs = [
        Run(name="jw2", record=on(phase, "jw2")),
        Run(name="jw3", record=on(phase, "jw3")),
        Run(name="both", record=on(double, "jw2", "jw3")),
    ]
    text = campaign_page.render("x", runs)
    assert "The offered load was 2.00 times theirs" in text


def test_refuses_to_scale_runs_of_different_settings() -> None:
    phase = performance(smallest_valid())
    runs = [
        Run(name="jw2", record=on(phase, "jw2", preset=Preset.SMOKE)),
        Run(name="jw3", record=on(phase, "jw3")),
        Run(name="both", record=on(phase, "jw2", "jw3")),
    ]
    text = campaign_page.render("x", runs)
    assert (
        "both: not comparable with its nodes alone: plan.preset: quick -> smoke" in text
        and "efficiency" not in text
    )


def test_names_a_missing_single_run() -> None:
    phase = performance(smallest_valid())
    runs = [
        Run(name="jw2", record=on(phase, "jw2")),
        Run(name="both", record=on(phase, "jw2", "jw3")),
    ]
    assert "both: no scaling efficiency without a run of jw3 alone" in campaign_page.render(
        "x", runs
    )


def test_shows_why_runs_are_not_valid() -> None:
    phase = performance(smallest_valid())
    died = Failure(code="engine_died", message="replica 1 ended", replica=1)
    runs = [
        Run(name="jw2", record=on(performance(ten_queries()), "jw2")),
        Run(name="jw3", record=on(phase, "jw3")),
        Run(name="both", record=on(phase, "jw2", "jw3")),
        Run(name="died", record=failed(died)),
        Run(name="pending", record=None),
    ]
    text, html = campaign_page.render("x", runs), campaign_page.render_html("x", runs)
    assert "- jw2: performance, min_duration: " in text
    assert "Not VALID: jw2." in text
    assert "- died: engine_died: replica 1 ended" in text
    assert "| pending | no record | - |" in text and "- pending: no record: " in text
    assert 'class="bad"' in html


def test_a_login_node_imports_nothing_heavy(campaign: list[Run], tmp_path: Path) -> None:
    for n, run in enumerate(campaign):
        assert run.record is not None
        record.write(run.record, RunDir(tmp_path / str(n)))
    program = f"""
import json, sys
from pathlib import Path
from sut.history import campaign_page
from sut.history.comparison import Run
from sut.results import record
folders = sorted(Path({str(tmp_path)!r}).iterdir())
runs = [Run(name=p.name, record=record.read(p)) for p in folders]
html = campaign_page.render_html("x", runs)
heavy = ("numpy", "matplotlib", "torch", "vllm", "sut._core")
print(json.dumps([name for name in heavy if name in sys.modules]))
"""
    run = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == []


def test_compares_the_finished_runs_of_a_campaign(campaign: list[Run], tmp_path: Path) -> None:
    members = []
    for n, run in enumerate(campaign):
        run_dir = RunDir(tmp_path / str(n))
        members.append(Member(name=run.name, run_dir=str(run_dir), job_id=str(n)))
        if n < 2 and run.record is not None:  # the third is still pending
            record.write(run.record, run_dir)
    folder = tmp_path / "campaign"
    folder.mkdir()
    started = Started(name="validation", members=tuple(members))
    (folder / "campaign.json").write_bytes(msgspec.json.encode(started))
    compared = subprocess.run(
        [sys.executable, "-m", "sut.campaign", str(folder)],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert compared.returncode == 3, compared.stderr
    assert "no record  jw2+jw3, offline" in compared.stdout
    text = (folder / "comparison.md").read_text()
    assert text.startswith("# Campaign validation") and "| jw2, offline | VALID |" in text
    html = (folder / "comparison.html").read_text()
    assert Page(html).tags.count("svg") == 1 and '<a href="../0/report.html">' in html
