"""A performance test at each of several loads: ``--sweep target_qps=A,B,...``."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from array import array
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cli import environment, latest, set_arguments, submit
from jobs import Job, plan_for, write_plan
from loadgen_logs import smallest_valid
from plans import plan_of
from records import PLAN, completed, performance, render

from sut.history import figures
from sut.history.row import read_row
from sut.launch import plan_words
from sut.plan import plan as plans
from sut.plan.plan import Mode, Plan
from sut.report import plots, sweep
from sut.report.render import render_html
from sut.report.summary import summary
from sut.results import goodput, mllog, record, rules
from sut.results.phase_record import PhaseRecord
from sut.results.progress import Line
from sut.results.sample_log import SampleLog
from sut.rundir import RunDir
from sut.submission import reasons
from sut.submission.runs import Run
from sut.watch.frame import line
from sut.watch.observer import Observer

# One sequence of 20 tokens at a time, 2 ms a step: at most 25 samples/s.
SLOW = (
    "engine.max_num_seqs=1",
    "engine.replay.step_base_us=2000",
    "engine.replay.step_per_sequence_us=0",
    "engine.replay.prefill_tokens_per_s=10000000",
    "generation.max_tokens=20",
    "generation.min_tokens=20",
    "scenarios.server.min_duration_ms=1",
    "scenarios.server.min_query_count=40",
    "scenarios.server.ttft_latency_ms=500",
    "scenarios.server.tpot_latency_ms=500",
)


def with_loads(*tested: tuple[float, str]) -> list[PhaseRecord]:
    """Finished performance tests at these loads, with these verdicts."""
    found = []
    for place, (qps, verdict) in enumerate(tested, start=1):
        phase = performance(smallest_valid())
        name = "performance" if place == 1 else f"performance-{place}"
        values = phase.loadgen | {"effective_target_qps": qps}
        judged = msgspec.structs.replace(phase.verdict, verdict=verdict)
        if verdict == "INVALID":
            judged = msgspec.structs.replace(judged, reasons=judged.checks[:1])
        found.append(
            msgspec.structs.replace(phase, name=name, loadgen=values, verdict=judged, goodput=qps)
        )
    return found


def swept(*tested: tuple[float, str], **plan: Any) -> record.Record:
    phases = with_loads(*tested)
    loads = tuple(dict.fromkeys(qps for qps, _ in tested))
    of = msgspec.structs.replace(PLAN, mode=Mode.PERFORMANCE, sweep=loads, **plan)
    verdict = "VALID" if {word for _, word in tested} == {"VALID"} else "INVALID"
    return completed(*phases, plan=of, plan_digest=of.digest(), verdict=verdict)


def test_each_load_has_its_test_and_the_run_its_curve(tmp_path: Path) -> None:
    options = ("--config", "replay", "--scenario", "server", *set_arguments(SLOW))
    run = submit(tmp_path, *options, "--sweep", "target_qps=250,10")
    assert run.returncode == 1, run.stdout + run.stderr
    found, run_dir = latest(tmp_path), RunDir(tmp_path / "runs" / "latest")
    # Lowest first, and the first does not spoil the second.
    assert found.plan.sweep == (10.0, 250.0)
    assert [phase.name for phase in found.phases] == ["performance", "performance-2"]
    assert [phase.loadgen["effective_target_qps"] for phase in found.phases] == [10, 250]
    low, high = found.phases
    assert "ttft_p99" in {reason.code for reason in high.verdict.reasons}
    assert low.goodput is not None and high.goodput is not None
    assert high.goodput < 0.7 * high.loadgen["result_completed_samples_per_sec"]
    for phase, qps in ((low, 10), (high, 250)):
        conf = run_dir.user_conf_of(phase.name).read_text()
        assert conf.startswith(f"{found.plan.loadgen_name}.Server.target_qps = {qps}\n")
    assert "target_qps = 10, 250: one after the other" in run_dir.user_conf.read_text()
    assert re.search(
        r"^ +250 +INVALID +\S+ +\S+ +\S+ +\S+ +#{20}\+ TTFT \d+%  ttft_p99", run.stdout, re.M
    )
    verified = subprocess.run(
        [sys.executable, "-m", "sut.verify", "latest"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr
    page = run_dir.report_html.read_text()
    assert "TTFT against load" in page and "Throughput against load" in page
    assert "## Sweep" in run_dir.report.read_text()
    # A changed setting of one test is found.
    log = run_dir.user_conf_of("performance-2")
    log.write_text(log.read_text().replace("250", "25"))
    changed = submit(tmp_path, "latest", command="verify")
    assert changed.returncode != 0 and "performance-2/user.conf: changed" in changed.stdout


def test_a_requeued_sweep_goes_on_at_its_next_load(tmp_path: Path) -> None:
    sets = ("scenarios.server.min_duration_ms=3000", "scenarios.server.min_query_count=1")
    plan = plan_for(1, *sets, mode=Mode.PERFORMANCE, sweep=(40.0, 50.0))
    run_dir = write_plan(plan, tmp_path / "run")
    with Job(run_dir, 1) as job:
        job.until_measuring("performance-2")
        job.signal(0, signal.SIGTERM)
        assert job.wait() == {0: 3}
    (first,) = job.record.phases
    with Job(run_dir, 1, attempt=1) as again:
        assert again.wait()[0] in (0, 1), again.output(0)
    assert again.record.phases[0] == first
    assert [phase.loadgen["effective_target_qps"] for phase in again.record.phases] == [40, 50]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("target_qps=2,4", "--scenario", "offline"), "offline cannot be swept"),
        (("target_qps=2,4", "--mode", "all"), "--mode all cannot be combined with --sweep"),
        (("target_qps=2,4", "--set", "target_qps=3"), "cannot be combined with --sweep"),
        (("target_qps=2",), "expected two or more different loads"),
        (("target_qps=2,2",), "expected two or more different loads"),
        (("target_qps=2,2,3",), "expected two or more different loads"),
        (("target_qps=2,0",), "expected two or more different loads"),
        (("target_qps=2,nan",), "expected two or more different loads"),
        (("target_qps=a,b",), "expected two or more different loads"),
        (("engine.max_num_seqs=2,4",), "only target_qps can be swept"),
        (("2,4",), "only target_qps can be swept"),
    ],
)
def test_refuses_what_cannot_be_swept(
    tmp_path: Path, arguments: tuple[str, ...], text: str
) -> None:
    run = submit(tmp_path, "--config", "replay", "--sweep", *arguments)
    assert run.returncode == 2 and text in run.stderr and "Traceback" not in run.stderr
    assert not (tmp_path / "runs").exists()


def test_a_search_for_a_load_takes_no_sweep(tmp_path: Path) -> None:
    options = ("--config", "replay", "--sweep", "target_qps=2,4")
    run = submit(tmp_path, *options, command="tune")
    assert run.returncode == 2 and "cannot be combined with sut.tune" in run.stderr


def planned(repeat: int, sweep: tuple[float, ...]) -> Plan:
    return plan_of("llama3.1-8b", site="jw", mode=Mode.PERFORMANCE, repeat=repeat, sweep=sweep)


def test_loads_of_repeated_tests_follow_each_other() -> None:
    plan = planned(2, (1.0, 4.0))
    assert [plan.chosen_qps(test) for test in plan.tests] == [1.0, 1.0, 4.0, 4.0]
    assert plan.chosen_qps(plans.Test(Mode.ACCURACY), 9.0) == 9.0
    assert planned(1, ()).chosen_qps(plans.Test(Mode.PERFORMANCE)) is None
    assert plan.digest() != planned(2, (1.0, 5.0)).digest()


def test_the_wall_limit_is_for_all_loads() -> None:
    def minutes(*sweep: float) -> int:
        found = planned(1, sweep).slurm
        assert found is not None
        return found.time_min

    assert minutes(0.5, 0.6) > minutes(0.5, 2.0) > minutes(2.0, 3.0)


# Records.


def test_valid_above_an_invalid_load_does_not_count() -> None:
    found = swept((2, "VALID"), (4, "INVALID"), (8, "VALID"))
    best = sweep.highest_valid(sweep.loads(found))
    assert best is not None and best.target_qps == 2
    assert sweep.lines(found)[0] == "2 of 3 loads VALID; all up to 2 queries/s are"
    none = swept((2, "INVALID"), (4, "VALID"))
    assert sweep.highest_valid(sweep.loads(none)) is None
    assert sweep.loads(completed(performance(smallest_valid()))) == []


def test_a_load_that_was_asked_for_has_all_its_digits() -> None:
    found = swept((12.345, "VALID"), (1234.75, "VALID"))
    (setting,) = (line for line in sweep.advice(found) if "--set" in line)
    assert "target_qps=1234.75`" in setting
    assert sweep.lines(found)[0].endswith("all up to 1,234.75 queries/s are")
    for text in ("\n".join(sweep.lines(found)), render(found), plan_words.load(found.plan)):
        assert "12.345" in text and "1,234.75" in text
    settings = msgspec.structs.replace(found.plan.loadgen_settings, target_qps=1234.75)
    one = msgspec.structs.replace(found.plan, sweep=(), loadgen_settings=settings)
    assert plan_words.load(one) == "1,234.75 queries/s"


def test_a_load_is_valid_if_each_of_its_tests_is() -> None:
    tested = ((2.0, "VALID"), (2.0, "VALID"), (4.0, "VALID"), (4.0, "INVALID"))
    found = swept(*tested, repeat=2)
    assert [each.verdict for each in sweep.loads(found)] == ["VALID", "INVALID"]
    text = render(found)
    assert "Means of 2 tests, with 95% intervals." in text and " ± " in text
    assert "## Repeats" not in text


def test_the_reports_show_the_highest_valid_load(tmp_path: Path) -> None:
    found = swept((2, "VALID"), (4, "VALID"), (8, "INVALID"))
    text = render(found)
    assert "highest VALID load of the sweep" in text
    assert "`--set scenarios.server.target_qps=4`" in text and "Offer less load" not in text
    printed = summary(found, RunDir(tmp_path))
    assert "sweep     2 of 3 loads VALID; all up to 4 queries/s are" in printed
    assert "  test " not in printed
    none = render(swept((2, "INVALID"), (4, "INVALID")))
    assert "No load of the sweep is VALID: try lower ones, below 2." in none
    assert "highest VALID load of the sweep" in none


def test_the_curves_are_drawn() -> None:
    found = swept((2, "VALID"), (4, "INVALID"))
    page = render_html(found, "runs/x", {}, plots.draw(found, {}))
    for title in ("TTFT against load", "TPOT against load", "Throughput against load"):
        assert page.count(f">{title}<") == 1


def test_lists_and_comparisons_take_the_highest_valid_load(tmp_path: Path) -> None:
    found = swept((2, "VALID"), (4, "VALID"), (8, "INVALID"))
    path = record.write(found, RunDir(tmp_path / "x"))
    assert read_row(tmp_path, "x", path.stat()).target_qps == 4
    shown = figures.performance(found)
    assert shown is not None and shown.name == "performance-2"
    gap = swept((2, "VALID"), (4, "INVALID"), (8, "VALID"))
    path = record.write(gap, RunDir(tmp_path / "z"))
    assert read_row(tmp_path, "z", path.stat()).target_qps == 2
    none = swept((2, "INVALID"), (8, "INVALID"))
    path = record.write(none, RunDir(tmp_path / "y"))
    assert read_row(tmp_path, "y", path.stat()).target_qps == 2


def test_a_sweep_cannot_be_submitted(tmp_path: Path) -> None:
    found = swept((2, "VALID"), (4, "VALID"))
    why = reasons.why_not([Run(RunDir(tmp_path), found)], [], "open")
    assert any("the run is a sweep" in each for each in why)


def test_goodput_is_the_share_within_both_limits(tmp_path: Path) -> None:
    log = mllog.read(smallest_valid())
    rate = log.number("result_completed_samples_per_sec")

    def share(*samples: tuple[float, float]) -> float:
        """Of samples with these TTFT and TPOT, in ms."""
        zeros, first = array("q", [0] * len(samples)), array("d", (ttft for ttft, _ in samples))
        whole = array("d", (ttft + 10 * tpot for ttft, tpot in samples))
        none = array("d", [0.0] * len(samples))
        found = goodput.of(
            log,
            SampleLog(
                sample_index=zeros,
                replica=zeros,
                prompt_tokens=zeros,
                output_tokens=array("q", [11] * len(samples)),
                issued_ms=none,
                admitted_ms=none,
                first_token_ms=first,
                completed_ms=whole,
            ),
        )
        assert found is not None and rate
        return found / rate

    assert share((10, 1)) == pytest.approx(1)
    assert share((10, 1), (1e7, 1)) == pytest.approx(0.5)
    assert share((10, 1), (10, 1e6), (1e7, 1), (1e7, 1e6)) == pytest.approx(0.25)
    limit_ms = rules.token_limits_ns(log)["TTFT"] / 1e6
    assert share((limit_ms, 1), (limit_ms + 1e-3, 1)) == pytest.approx(0.5)
    offline = msgspec.structs.replace(log, values=log.values | {"effective_scenario": "Offline"})
    assert (
        goodput.of(offline, SampleLog(**{name: array("q") for name in SampleLog.__struct_fields__}))
        is None
    )


def test_progress_shows_the_load_of_the_running_test(tmp_path: Path) -> None:
    of = plan_of("replay", mode=Mode.PERFORMANCE, sweep=(20.0, 60.0, 200.0))
    run, observer = write_plan(of, tmp_path / "run"), None
    for t_s, name, qps in ((1.0, "performance", 20), (9.0, "performance-2", 60)):
        at = Line(t_s=t_s, step=name, stage=name, phase=name, pid=os.getpid())
        with run.progress.open("ab") as file:
            file.write(msgspec.json.encode(at) + b"\n")
        observer = observer or Observer(run)
        state = observer.look()
        assert state.target_qps == qps and f"{name} at {qps} queries/s:" in line(state)
