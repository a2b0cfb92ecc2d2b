"""Watching a run that is pending, running or finished, without affecting it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from cli import environment, fast, latest, processes_of, submit
from loadgen_logs import smallest_valid
from plans import plan_of
from records import completed, failed, performance
from rich.console import Console
from rich.spinner import Spinner

from sut.cluster import liveness, runs
from sut.errors import InputError
from sut.launch import newrun, notices
from sut.launch.notices import Notices
from sut.plan.plan import load_plan
from sut.results import diagnosis, record, usual
from sut.results.measures import measure
from sut.results.progress import Line, ReplicaProgress
from sut.results.record import EngineOrigin, Engines, Step
from sut.rundir import RunDir, write_atomic
from sut.watch import follow
from sut.watch.frame import frame, line
from sut.watch.observer import NOTIFYING, REPORTING, Observer
from sut.watch.projection import Projection
from sut.watch.screen import Screen, is_waiting
from sut.watch.state import PhaseState, RunState, with_result

A_MINUTE = ("--set", "scenarios.server.min_duration_ms=60000")


def watch(cwd: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sut.watch", *arguments],
        cwd=cwd,
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=60,
    )


def look(cwd: Path, *arguments: str, **env: str) -> dict[str, Any]:
    shown = watch(cwd, "--json", *arguments, **env)
    assert shown.returncode == 0, shown.stderr
    return dict(json.loads(shown.stdout))


def until(true: object, timeout_s: float = 120) -> None:
    assert callable(true)
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"not true after {timeout_s} s"
        time.sleep(0.05)


def a_phase_runs(run: Path) -> bool:
    progress = run / "progress.jsonl"
    return progress.is_file() and '"ttft_over"' in progress.read_text()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Path]:
    """The folder of a run of a minute of LoadGen on two replicas."""
    arguments = [*fast(), "--mode", "all", "--set", "site.num_replicas=2", *A_MINUTE]
    assert submit(tmp_path, *arguments, "--no-wait").returncode == 0
    run = (tmp_path / "runs" / "latest").resolve()
    until(lambda: a_phase_runs(run))
    yield run
    pid = msgspec.json.decode((run / "progress.jsonl").read_text().splitlines()[0], type=Line).pid
    assert pid is not None
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    until(lambda: (run / "report.md").is_file())


def test_reports_every_phase_and_replica_of_a_run(running: Path) -> None:
    until(lambda: look(running.parent.parent)["phases"][0]["elapsed_s"] > 2)
    state = look(running.parent.parent)
    assert state["state"] == "running" and state["step"] == "performance"
    performance, accuracy, compliance = state["phases"]
    assert performance["state"] == "running"
    assert accuracy["state"] == compliance["state"] == "waiting"
    assert performance["completed"] > 0 and performance["output_tokens_per_s"] > 0
    assert performance["projection"]["verdict"] == "VALID"
    assert performance["projection"]["num_samples"] > 40_000  # a minute of 800 queries
    assert performance["ttft_p99_ms"] < performance["ttft_limit_ms"] == 500
    assert performance["tpot_p99_ms"] < performance["tpot_limit_ms"] == 50
    assert 0 < state["left_s"] < 60
    assert [replica["index"] for replica in performance["replicas"]] == [0, 1]
    for replica in performance["replicas"]:
        assert replica["samples"] > 0 and replica["prompt_tokens_per_s"] > 0


def test_one_frame_fits_80_columns(running: Path) -> None:
    shown = watch(running.parent.parent, "--once", COLUMNS="80")
    assert shown.returncode == 0 and str(running) in shown.stdout.replace("\n", "")
    for words in ("VALID so far", "in flight", "queued", "TTFT p99", "limit 500 ms", "TPOT p99"):
        assert words in shown.stdout
    assert "left, ends about" in shown.stdout and "accuracy" in shown.stdout
    assert not [line for line in shown.stdout.splitlines() if line != line.rstrip()]
    rows = [line for line in shown.stdout.splitlines() if "localhost" in line]
    assert len(rows) == 2 and max(map(len, shown.stdout.splitlines())) <= 80


def test_shows_a_steps_time_and_usual_time(queued: RunDir, tmp_path: Path) -> None:
    alike = completed(plan=load_plan(queued.plan), timings=(step("load", 95.0),))
    record.write(alike, RunDir(queued.root.parent / "20200101T000000Z-earlier"))
    append(
        queued,
        Line(t_s=0.0, step="starting", pid=1, host="jw2"),
        Line(t_s=3.0, step="starting the engines", stage="load"),
        Line(t_s=15.0, step="loading: waiting for replica 0", stage="load"),
    )
    env = slurm_prints(tmp_path, squeue=f"RUNNING|None|||jw2|{queued}")
    state = look(tmp_path, "4711", **env)
    assert state["stage"] == "load" and state["stage_s"] >= 12 and state["usual_s"] == 95
    shown = watch(tmp_path, "4711", "--once", **env).stdout
    assert re.search(r"replica 0 \(job .*\)(, \d+ s)?, load: [1-9]\d s, usually 1 min 35 s", shown)
    append(queued, Line(t_s=20.0, step="performance", stage="performance", phase="performance"))
    assert look(tmp_path, "4711", **env)["stage_s"] is None


def step(name: str, duration_s: float) -> Step:
    return Step(name=name, start_s=0.0, duration_s=duration_s)


def test_usual_times_are_of_runs_that_were_alike(tmp_path: Path) -> None:
    plan = plan_of("replay")
    other = plan_of("replay", sets=["engine.max_num_seqs=7"])
    for name, of, duration_s in (
        ("20260101", plan, 10.0),
        ("20260102", plan, 20.0),
        ("20260103", plan, 90.0),
        ("20260104", other, 500.0),
    ):
        earlier = completed(plan=of, timings=(step("load", duration_s),))
        record.write(earlier, RunDir(tmp_path / f"{name}-x"))
    (tmp_path / "latest").symlink_to("20260104-x")
    write_atomic(RunDir(tmp_path / "20260105-x").record, "{")
    broken = msgspec.structs.replace(failed(record.Failure(code="x", message="y")), plan=plan)
    record.write(broken, RunDir(tmp_path / "20260106-x"))
    origin = EngineOrigin(replica=0, warm=True, started_utc="2026-01-06T00:00:00Z")
    warm = completed(plan=plan, timings=(step("load", 0.1),), engines=Engines(replicas=(origin,)))
    record.write(warm, RunDir(tmp_path / "20260107-x"))
    assert usual.step_times(tmp_path, plan) == {"load": 20.0}
    assert usual.step_times(tmp_path, plan, "20260103-x") == {"load": 15.0}
    assert usual.step_times(tmp_path, other) == {"load": 500.0}
    assert usual.step_times(tmp_path, plan_of("replay", sets=["engine.max_num_seqs=9"])) == {}
    assert usual.step_times(tmp_path / "none", plan) == {}


def test_shows_silence_only_without_the_time_of_a_step() -> None:
    silent = run_state(silent_s=43.0, step="performance", phases=(phase_state("running", None),))
    assert "no progress for 43 s" in plain(drawn(frame(silent)))
    loading = run_state(silent_s=43.0, step="loading", stage="load", stage_s=43.0, step_s=43.0)
    assert "no progress" not in plain(drawn(frame(loading)))


def test_spins_while_it_loads_and_only_then() -> None:
    loading = run_state(step="loading", stage="load", stage_s=7.0, step_s=7.0, usual_s=34.0)
    running = run_state(step="performance", phases=(phase_state("running", "VALID"),))
    spinner = Spinner("dots")
    now = plain(drawn(frame(loading, spinner))).splitlines()[-1]
    assert now[0] in spinner.frames and now[1:] == " loading, 7 s, usually 34 s"
    reporting = run_state(state="finished", ending="writing the report", stage_s=7.0, step_s=7.0)
    assert is_waiting(loading) and is_waiting(reporting) and not is_waiting(running)
    assert not is_waiting(run_state(state="finished"))
    piped = io.StringIO()
    with Screen(Console(file=piped)) as screen:
        screen.show(loading)
        screen.wait(0.0)
        screen.show(run_state(state="finished"))  # its result follows
    assert piped.getvalue() == "   7.0 s  loading, 7 s, usually 34 s\n"


@pytest.mark.parametrize(
    ("stage_s", "step_s", "usual_s", "times"),
    [
        (7.0, 7.0, None, ", 7 s"),
        (7.0, 7.0, 34.0, ", 7 s, usually 34 s"),
        (9.0, 2.0, None, ", 2 s"),
        (9.0, 0.0, None, ""),
        (9.0, 2.0, 12.0, ", 2 s, measure the load: 9 s, usually 12 s"),
        (0.4, 0.4, 12.0, ""),
        (None, None, None, ""),
    ],
)
def test_a_part_of_a_step_has_its_own_time(
    stage_s: float | None, step_s: float | None, usual_s: float | None, times: str
) -> None:
    state = run_state(
        step="simulating", stage="measure the load", stage_s=stage_s, step_s=step_s, usual_s=usual_s
    )
    assert line(state) == f"   7.0 s  simulating{times}"


def run_state(**changes: Any) -> RunState:
    values: dict[str, Any] = {
        "run": "/runs/x",
        "benchmark": "replay",
        "scenario": "server",
        "mode": "performance",
        "preset": "smoke",
        "site": "local",
        "state": "running",
        "job": None,
        "t_s": 7.0,
        "step": "",
        "silent_s": 0.0,
        "unheard_s": 0.0,
        "stage": "",
        "stage_s": None,
        "step_s": None,
        "usual_s": None,
        "left_s": None,
        "phases": (),
    }
    return RunState(**{**values, **changes})


def phase_state(state: Any, expected: Any, verdict: str | None = None) -> PhaseState:
    projection = Projection(
        verdict=expected, certain=expected == "INVALID", reasons=(), num_samples=10, left_s=1.0
    )
    return PhaseState(
        name="performance",
        state=state,
        verdict=verdict,
        elapsed_s=5.0,
        completed=10,
        projection=None if verdict else projection,
    )


def drawn(renderable: Any) -> str:
    out = io.StringIO()
    Console(file=out, force_terminal=True, color_system="standard", width=100).print(renderable)
    return out.getvalue()


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[\d;]*m", "", text)


@pytest.mark.parametrize(
    ("phase", "color"),
    [
        (phase_state("running", "VALID"), "32"),
        (phase_state("running", "INVALID"), "31"),
        (phase_state("running", None), "34"),
        (phase_state("done", None, "VALID"), "32"),
        (phase_state("done", None, "INVALID"), "31"),
    ],
)
def test_colours_follow_the_verdict(phase: PhaseState, color: str) -> None:
    text = drawn(frame(run_state(phases=(phase,))))
    (bar,) = re.findall(r"\x1b\[(\d+)m━+", text)
    assert bar == color
    word = re.search(r"\x1b\[(\d+)m(?:VALID|INVALID|will be INVALID)", text)
    assert (word is not None) == (color != "34") and (word is None or word[1] == color)
    assert ("\x1b[32m" in text) == (color == "32")


def test_long_names_have_a_column_of_their_own() -> None:
    phases = (
        phase_state("done", None, "VALID"),
        PhaseState(name="performance-10", state="stopped"),
    )
    lines = plain(drawn(frame(run_state(phases=phases)))).splitlines()
    (first,) = [row for row in lines if row.startswith("performance ")]
    (second,) = [row for row in lines if row.startswith("performance-10")]
    assert second.rstrip() == "performance-10 stopped"
    assert len(first) - len(first[len("performance") :].lstrip()) == len("performance-10  ")


def test_a_finished_tests_latencies_are_loadgens() -> None:
    seen = msgspec.structs.replace(phase_state("done", None, "VALID"), ttft_p99_ms=1.0)
    judged = performance(smallest_valid())
    shown = with_result(seen, judged)
    assert shown.ttft_p99_ms == measure(judged.loadgen).ttft_ms.p99
    assert shown.ttft_p99_ms not in (None, 1.0)


def test_a_run_is_over_when_its_own_process_has_ended(tmp_path: Path) -> None:
    """A signal to a group of processes ends the one that waits for the run before the run."""
    run = tmp_path / "run"
    observer = SimpleNamespace(run=run)
    code = "import time; time.sleep(60)"
    (tmp_path / "sut").mkdir()
    (tmp_path / "sut/__init__.py").touch()
    (tmp_path / "sut/run.py").write_text(code)
    command = [sys.executable, "-m", "sut.run", str(run)]
    process = subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}
    )
    try:
        until(lambda: not follow._is_over(lambda: True, observer))  # once it is Python
    finally:
        process.kill()
        process.wait()
    assert follow._is_over(lambda: True, observer) and not follow._is_over(lambda: False, observer)


def test_watchers_do_not_affect_the_run(running: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in unchanging(running)}
    for number in (signal.SIGKILL, signal.SIGINT, signal.SIGTERM):
        watcher = subprocess.Popen(
            [sys.executable, "-m", "sut.watch"],
            cwd=running.parent.parent,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert watcher.stdout is not None and b"performance" in watcher.stdout.readline()
        watcher.send_signal(number)
        watcher.communicate(timeout=20)
        assert watcher.returncode == (0 if number == signal.SIGINT else -number)
    assert before == {path: path.stat().st_mtime_ns for path in unchanging(running)}
    assert look(running.parent.parent)["state"] == "running"


def unchanging(run: Path) -> list[Path]:
    """Files that a running run does not touch."""
    return [run, run / "plan.json", run / "user.conf", run / "job", run / "logs", run / "loadgen"]


def test_shows_the_result_when_the_run_finishes(tmp_path: Path) -> None:
    assert submit(tmp_path, *fast(), "--no-wait").returncode == 0
    shown = watch(tmp_path, "latest")
    assert shown.returncode == 0, shown.stderr
    assert "VALID  replay, server" in shown.stdout and "report.md" in shown.stdout
    state = look(tmp_path)
    assert (state["state"], state["verdict"], state["exit_code"]) == ("finished", "VALID", 0)
    assert state["phases"][0]["state"] == "done" and state["phases"][0]["verdict"] == "VALID"


def test_finished_invalid_run_shows_reasons_and_exit_code(tmp_path: Path) -> None:
    submit(tmp_path, "--config", "replay", "--preset", "quick")
    shown = watch(tmp_path, "latest")
    assert shown.returncode == 1 and "early_stopping" in shown.stdout
    frame = watch(tmp_path, "latest", "--once")
    assert frame.returncode == 0 and "finished: INVALID" in frame.stdout


def test_a_run_killed_with_its_host_is_lost(running: Path) -> None:
    root = running.parent.parent
    while left := processes_of(running):  # its host would record the end
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process.partition(":")[0]), signal.SIGKILL)
    assert look(root)["state"] == "lost"
    shown = watch(root)
    assert shown.returncode == 3
    assert "ended without a record: its process has ended" in shown.stdout
    write_atomic(running / "report.md", "")  # the fixture waits for it


def submitted_by(run: RunDir, process: liveness.Process) -> None:
    write_atomic(run.submitter, msgspec.json.encode(process))


def test_a_run_that_was_never_submitted_is_lost(tmp_path: Path) -> None:
    run = newrun.create(plan_of("replay"), tmp_path / "runs")
    assert look(tmp_path)["state"] == "starting"  # this process may still submit it
    us = liveness.this_process()
    submitted_by(run, msgspec.structs.replace(us, started=(us.started or 0) - 1))
    state = look(tmp_path)
    assert state["state"] == "lost" and "ended before submitting it" in state["why"]
    submitted_by(run, msgspec.structs.replace(us, host="elsewhere"))
    assert look(tmp_path)["state"] == "unknown"


def test_a_run_whose_controller_ended_is_lost(tmp_path: Path) -> None:
    run = newrun.create(plan_of("replay"), tmp_path / "runs")
    code = "import time; time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(run.job)]) as controller:
        (run.job / f"{controller.pid}_submitted.pkl").touch()
        assert look(tmp_path)["state"] == "starting"
        controller.kill()
    state = look(tmp_path)
    assert (state["state"], state["why"]) == ("lost", "its process has ended")
    assert {phase["state"] for phase in state["phases"]} == {"not started"}
    (run.job / f"{controller.pid}_submitted.pkl").rename(run.job / f"{os.getpid()}_submitted.pkl")
    assert look(tmp_path)["state"] == "lost"  # a process with its id, but another one


def test_shows_what_a_run_with_a_record_still_does(tmp_path: Path) -> None:
    plan = plan_of("replay")
    run = newrun.create(plan, tmp_path / "runs")
    code = "import time; time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(run.job)]) as controller:
        (run.job / f"{controller.pid}_submitted.pkl").touch()
        append(run, Line(t_s=8.0, step="writing the report", stage="report"))
        record.write(completed(plan=plan), run)
        observer = Observer(run)
        state = observer.look()
        assert (state.state, state.ending, state.stage) == ("finished", REPORTING, "report")
        watcher = subprocess.Popen(
            [sys.executable, "-m", "sut.watch"],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert watcher.stdout is not None
        assert "finished: INVALID; writing the report" in watcher.stdout.readline()
        write_atomic(run.report_html, "")
        assert observer.look().ending == ""
        notices.write(Notices(command="mail"), run)
        assert observer.look().ending == NOTIFYING
        assert watcher.poll() is None
        controller.kill()
    assert observer.look().ending == ""
    assert watcher.communicate(timeout=60)[0].startswith("INVALID  replay")


def test_a_job_that_slurm_forgot_is_unknown(queued: RunDir, tmp_path: Path) -> None:
    state = look(tmp_path, str(queued), **slurm_prints(tmp_path))
    assert state["state"] == "unknown" and "does not know job 4711" in state["why"]
    shown = watch(tmp_path, str(queued), "--once", **slurm_prints(tmp_path))
    assert "unknown: no record yet, and Slurm does not know job 4711" in shown.stdout


def test_redraws_the_frame_on_a_terminal(running: Path) -> None:
    terminal, ours = pty.openpty()
    watcher = subprocess.Popen(
        [sys.executable, "-m", "sut.watch"],
        cwd=running.parent.parent,
        env=environment(TERM="xterm"),
        stdout=ours,
        stderr=ours,
    )
    os.close(ours)
    shown = b""
    while shown.count(b"TTFT p99") < 2:
        shown += os.read(terminal, 4096)
    watcher.send_signal(signal.SIGINT)
    with contextlib.suppress(OSError):
        while chunk := os.read(terminal, 4096):
            shown += chunk
    assert watcher.wait(20) == 0
    text = shown.decode()
    assert "\x1b[2K" in text and "detached; the run continues" in text


# Slurm's commands are faked at the process boundary; everything above is real.


@pytest.fixture
def queued(tmp_path: Path) -> RunDir:
    """A run of two nodes, submitted as job 4711."""
    run = newrun.create(plan_of("replay", site="devcluster", nodes="all"), tmp_path / "runs")
    (run.job / "4711_submitted.pkl").touch()
    return run


def slurm_prints(folder: Path, squeue: str = "", sacct: str = "") -> dict[str, str]:
    """An environment in which squeue and sacct print these lines."""
    for name, printed in (("squeue", squeue), ("sacct", sacct)):
        program = folder / "bin" / name
        program.parent.mkdir(exist_ok=True)
        answer = f"cat <<'end'\n{printed}\nend\n" if printed else "exit 1\n"
        program.write_text(f"#!/bin/sh\n{answer}")
        program.chmod(0o755)
    return {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}


def test_pending_job_shows_reason_and_expected_start(queued: RunDir, tmp_path: Path) -> None:
    printed = f"PENDING|Resources|2026-11-24T10:00:00|2026-11-24T12:00:00||{queued}"
    env = slurm_prints(tmp_path, squeue=printed)
    state = look(tmp_path, "4711", **env)
    assert state["run"] == str(queued) and state["state"] == "pending"
    assert [phase["state"] for phase in state["phases"]] == ["waiting"] * len(state["phases"])
    shown = watch(tmp_path, str(queued), "--once", **env).stdout
    assert "job 4711 is PENDING: Resources, since 2026-11-24T10:00:00" in shown
    assert "expected to start at 2026-11-24T12:00:00" in shown


def test_requeued_job_starts_again_from_zero(queued: RunDir, tmp_path: Path) -> None:
    attempt = [
        Line(t_s=0.0, step="starting", pid=1, host="jw2"),
        Line(t_s=9.0, step="performance", phase="performance", completed=90, elapsed_s=8.0),
    ]
    append(queued, *attempt)
    env = slurm_prints(tmp_path, squeue=f"RUNNING|None|||jw[2-3]|{queued}")
    assert look(tmp_path, "4711", **env)["phases"][0]["completed"] == 90
    env = slurm_prints(tmp_path, squeue=f"PENDING|BeginTime|||jw[2-3]|{queued}")
    assert look(tmp_path, "4711", **env)["state"] == "pending"
    append(queued, attempt[0])
    env = slurm_prints(tmp_path, squeue=f"RUNNING|None|||jw[2-3]|{queued}")
    state = look(tmp_path, "4711", **env)
    assert state["state"] == "starting" and state["phases"][0]["state"] == "waiting"


def test_the_next_trial_of_a_search_has_rates_of_its_own(queued: RunDir, tmp_path: Path) -> None:
    def trial(t_s: float, elapsed_s: float, tokens: int) -> Line:
        return Line(
            t_s=t_s,
            step="performance",
            phase="performance",
            elapsed_s=elapsed_s,
            output_tokens=tokens,
        )

    begin = Line(t_s=0.0, step="starting", pid=1, host="jw2")
    first = [trial(10.0, 1.0, 100), trial(39.0, 30.0, 3_000)]
    append(queued, begin, *first, trial(41.0, 30.5, 3_050), trial(45.0, 2.0, 400))
    env = slurm_prints(tmp_path, squeue=f"RUNNING|None|||jw[2-3]|{queued}")
    assert look(tmp_path, "4711", **env)["phases"][0]["output_tokens_per_s"] == 200
    append(queued, trial(47.0, 4.0, 700))
    assert look(tmp_path, "4711", **env)["phases"][0]["output_tokens_per_s"] == 150


def test_shows_the_node_that_slurm_chose(tmp_path: Path) -> None:
    run = newrun.create(plan_of("replay", site="devcluster"), tmp_path / "runs")
    (run.job / "4711_submitted.pkl").touch()
    replica = ReplicaProgress(
        index=0, in_flight=1, running=1, waiting=0, kv_cache_usage=0.0, output_tokens=1
    )
    line = Line(t_s=9.0, step="performance", phase="performance", replicas=(replica,))
    append(run, Line(t_s=0.0, step="starting", pid=1, host="jw3"), line)
    for nodes, shown in (("jw3", "jw3"), ("other", "node 0")):
        env = slurm_prints(tmp_path, squeue=f"RUNNING|None|||{nodes}|{run}")
        phase = look(tmp_path, "4711", **env)["phases"][0]
        assert [each["node"] for each in phase["replicas"]] == [shown]


def test_job_without_a_record_is_lost(queued: RunDir, tmp_path: Path) -> None:
    append(queued, Line(t_s=0.0, step="starting", pid=1, host="jw2"))
    printed = f"NODE_FAIL|2026-11-24T10:00:00|2026-11-24T10:01:00|jw[2-3]|{queued}"
    env = slurm_prints(tmp_path, sacct=printed)
    assert look(tmp_path, "4711", **env)["state"] == "lost"
    shown = watch(tmp_path, "4711", "--once", **env).stdout
    assert "ended without a record: job 4711 on jw[2-3] is NODE_FAIL" in shown


def test_a_lost_job_shows_what_its_output_reports(queued: RunDir, tmp_path: Path) -> None:
    append(queued, Line(t_s=0.0, step="starting", pid=1, host="jw2"))
    error = "slurmstepd: error: execve(): /no/python: No such file or directory"
    (queued.job / "4711_0_log.out").write_text(f"{error}\n")
    printed = f"FAILED|2026-11-24T10:00:00|2026-11-24T10:01:00|jw[2-3]|{queued}"
    env = slurm_prints(tmp_path, sacct=printed)
    known = diagnosis.known_failures()["program_missing"]
    shown = look(tmp_path, "4711", **env)["shown"]
    assert (shown["cause"], shown["hint"], shown["lines"]) == (known.cause, known.remedy, [error])
    text = watch(tmp_path, "4711", "--once", **env).stdout
    assert f"job 4711 on jw[2-3] is FAILED: {known.cause}" in text
    assert f"\njob/4711_0_log.out:\n{error}\n" in text and f"hint: {known.remedy}" in text


@pytest.mark.parametrize("by", ["squeue", "sacct"])
def test_scancel_before_the_start_is_shown(queued: RunDir, tmp_path: Path, by: str) -> None:
    printed = {
        "squeue": f"CANCELLED|None|2026-11-24T10:00:00|N/A||{queued}",
        "sacct": f"CANCELLED by 1500|2026-11-24T10:00:00|None|None assigned|{queued}",
    }
    env = slurm_prints(tmp_path, **{by: printed[by]})
    shown = watch(tmp_path, "4711", "--once", **env).stdout
    assert "ended without a record: job 4711 was cancelled before it started" in shown
    listed = subprocess.run(
        [sys.executable, "-m", "sut.history", "--root", str(queued.root.parent)],
        env=environment(**env),
        capture_output=True,
        text=True,
    )
    assert f"{queued.root.name} (lost: job 4711 was cancelled before it started)" in listed.stdout


def append(run: RunDir, *lines: Line) -> None:
    with run.progress.open("ab") as file:
        file.writelines(msgspec.json.encode(line) + b"\n" for line in lines)


def test_finds_a_job_by_comment_link_or_files(
    queued: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    env = slurm_prints(tmp_path, squeue=f"RUNNING|None|||jw2|{queued}")
    monkeypatch.setenv("PATH", env["PATH"])
    assert runs.find("4711", elsewhere).root == queued.root
    slurm_prints(tmp_path)
    assert runs.find("4711", queued.root.parent).root == queued.root
    (queued.root.parent / ".job-99").symlink_to(queued.root.name)
    assert runs.find("99", queued.root.parent).root == queued.root
    with pytest.raises(InputError, match="no run of job 4711 in Slurm or under"):
        runs.find("4711", elsewhere)


def test_missing_run_gives_the_next_command(tmp_path: Path) -> None:
    shown = watch(tmp_path, "nothing")
    assert shown.returncode == 2 and "no such run" in shown.stderr
    assert "--root DIR or SUT_RUN_ROOT" in shown.stderr and "Traceback" not in shown.stderr


def test_reports_a_damaged_plan(tmp_path: Path) -> None:
    run = newrun.create(plan_of("replay"), tmp_path / "runs")
    run.plan.write_text("{")
    shown = watch(tmp_path)
    assert shown.returncode == 2 and f"{run.plan} is not a plan" in shown.stderr


def test_skips_an_invalid_line_of_progress(queued: RunDir, tmp_path: Path) -> None:
    append(queued, Line(t_s=0.0, step="starting", pid=1, host="jw2"))
    with queued.progress.open("ab") as file:
        file.write(b'{"t_s": 1.0, "st\n\xff\xfe\n')
    append(queued, Line(t_s=2.0, step="loading"))
    env = slurm_prints(tmp_path, squeue=f"RUNNING|None|||jw2|{queued}")
    assert look(tmp_path, "4711", **env)["step"] == "loading"


def test_reads_a_run_copied_elsewhere(tmp_path: Path) -> None:
    submit(tmp_path, *fast())
    shutil.copytree((tmp_path / "runs" / "latest").resolve(), tmp_path / "copy")
    assert look(tmp_path, str(tmp_path / "copy"))["verdict"] == latest(tmp_path).verdict
    assert load_plan(tmp_path / "copy" / "plan.json").benchmark == "replay"
