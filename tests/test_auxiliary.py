"""What a run does beside its measurement may fail: the result is the same, and the record names it.

Every case is a whole run with a real fault. ``make chaos`` runs all and writes docs/reliability.md;
``make test`` runs those that are not marked.
"""

from __future__ import annotations

import io
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import chaos
import msgspec
import pytest
from chaos import Outcome, Running, fill, running, small_disk
from cli import environment, until
from jobs import Job, plan_for, write_plan

from sut.machine.wall_clock import WallClock
from sut.plan.plan import Mode, Part, Replica
from sut.report.summary import summary
from sut.results import record, telemetry
from sut.results.auxiliary import AuxiliaryFailure
from sut.results.progress import Progress, Reader
from sut.rundir import LineFile, RunDir

FASTER = "scenarios.server.target_qps=100"
SHORT = ("scenarios.server.min_duration_ms=5000", FASTER)

table = pytest.fixture(chaos.table_of("beside the measurement"), scope="module")


# Replay engines on the GPUs of a stand-in for the driver.
ON_GPU = ("site.device=cuda", "site.num_replicas=1")


@pytest.fixture
def gpu(fake_driver: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Variables of a run with two GPUs."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return {"LD_LIBRARY_PATH": str(fake_driver), "FAKE_GPUS": "22700,22700"}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as folder:
        yield folder


def valid(run: Running, fault: str, within_s: float = 120) -> tuple[Outcome, record.Record]:
    """The run's end, which must be that of a run without the fault."""
    found = run.ended(fault, within_s)
    assert (found.exit_code, found.status, found.code) == (0, "completed", "")
    result = record.read(run.run_dir.record)
    assert result.verdict == "VALID"
    return found, result


def parts_of(result: record.Record) -> list[str]:
    return [each.part for each in result.auxiliary_failures]


def fill_last_page(path: Path) -> None:
    """A file on a full disk can still grow to the end of its last page. Blank lines are skipped."""
    with path.open("ab", buffering=0) as file:
        file.write(b"\n" * (-path.stat().st_size % resource.getpagesize()))


@pytest.mark.parametrize(
    ("fault", "variable", "cause"),
    [
        ("the driver loses its GPUs", "FAKE_NVML_LOST", "GPU is lost"),
        ("the driver hangs", "FAKE_NVML_HANG", "the driver does not answer"),
    ],
)
def test_meters_fail(
    tmp_path: Path,
    gpu: dict[str, str],
    table: list[Outcome],
    fault: str,
    variable: str,
    cause: str,
) -> None:
    env = {**gpu, variable: "4"}
    with running(tmp_path, "performance", (*SHORT, *ON_GPU), env=env) as run:
        found, result = valid(run, fault)
    (failure,) = result.auxiliary_failures
    assert failure.part == "telemetry" and cause in failure.cause
    assert failure.at_s is not None and failure.until_s is None
    line = f"telemetry stopped at {failure.at_s:.3g} s: {failure.cause}; the result does not"
    assert line in summary(result, run.run_dir)
    assert line in run.run_dir.report.read_text() and line in run.run_dir.report_html.read_text()
    table.append(found)


def test_disk_is_full_for_a_moment(
    tmp_path: Path, disk: Path, gpu: dict[str, str], table: list[Outcome]
) -> None:
    with running(tmp_path, "performance", (*SHORT, *ON_GPU), root=disk, env=gpu) as run:
        filler = fill(disk)
        for path in (run.run_dir.progress, *run.run_dir.telemetry_files()):
            fill_last_page(path)
        time.sleep(2.5)
        filler.unlink()
        found, result = valid(run, "disk full for 2 s")
    for failure in result.auxiliary_failures:
        assert failure.cause == "No space left on device"
        assert failure.at_s is not None and failure.until_s is not None
        assert 0 < failure.until_s - failure.at_s < 60
    assert parts_of(result) == ["progress", "telemetry"]
    assert "progress has a gap from " in summary(result, run.run_dir)
    table.append(found)


def test_reports_cannot_be_written(tmp_path: Path, table: list[Outcome]) -> None:
    with running(tmp_path, "performance", SHORT) as run:
        for path in (run.run_dir.report, run.run_dir.report_html):
            path.mkdir()
        found, result = valid(run, "folders in place of both reports")
    assert parts_of(result) == ["report", "report"]
    assert all("Is a directory" in each.cause for each in result.auxiliary_failures)
    table.append(found)


BROKEN = {
    "plots raise an error": ("raise RuntimeError('no fonts')", "no fonts"),
    "plots crash": ("import os; os.abort()", "exited with code -6"),
    "plots hang": ("import time; time.sleep(999)", "timed out after 60 s"),
}


@pytest.mark.parametrize(
    "fault",
    [
        name if name == "plots raise an error" else pytest.param(name, marks=pytest.mark.chaos)
        for name in BROKEN
    ],
)
def test_plots_fail(tmp_path: Path, table: list[Outcome], fault: str) -> None:
    text, cause = BROKEN[fault]
    package = tmp_path / "broken" / "matplotlib"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(text)
    env = {"PYTHONPATH": f"{package.parent}:{environment()['PYTHONPATH']}"}
    with running(tmp_path, "performance", SHORT, env=env) as run:
        found, result = valid(run, fault, 300)
    (failure,) = result.auxiliary_failures
    assert failure.part == "plots" and cause in failure.cause
    assert run.run_dir.report.read_text().startswith("# VALID")
    assert "has the plots" not in summary(result, run.run_dir)
    page = run.run_dir.report_html.read_text()
    assert "TTFT: distribution" not in page and cause in page
    table.append(found)


@pytest.mark.parametrize("whole", [True, False], ids=["folder", "damaged"])
def test_index_is_unusable(tmp_path: Path, table: list[Outcome], whole: bool) -> None:
    with running(tmp_path, "performance", SHORT) as run:
        index = run.run_dir.root.parent / ".history.sqlite"
        if whole:
            index.mkdir()
        else:
            index.write_bytes(b"SQLite format 3\0" + 4096 * b"\xff")
        found, result = valid(run, "folder in place of the index" if whole else "index damaged")
        listed = subprocess.run(
            [sys.executable, "-m", "sut.history", "--root", str(index.parent)],
            env=environment(),
            capture_output=True,
            text=True,
        )
    assert listed.returncode == 0 and result.run_id in listed.stdout, listed.stderr
    assert result.auxiliary_failures == ()  # no run uses it
    table.append(found)


@pytest.mark.chaos
def test_notify_command_hangs(tmp_path: Path, table: list[Outcome]) -> None:
    with running(tmp_path, "performance", SHORT, options=["--notify", "sleep 999"]) as run:
        found, _ = valid(run, "`--notify` command hangs", 120)
    table.append(found)


def test_record_is_cut_in_half_while_the_run_goes_on(tmp_path: Path, table: list[Outcome]) -> None:
    """The record between two phases: the run's own, at its end, is whole."""
    with running(tmp_path, "accuracy", (FASTER,)) as run:
        path = run.run_dir.record
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        time.sleep(1)  # the command looks at it
        found = run.ended("record cut in half", 120)
    assert found.status == "completed" and found.exit_code in (0, 1)
    assert [phase.name for phase in record.read(path).phases][:2] == ["performance", "accuracy"]
    table.append(found)


def on_gpus(num_nodes: int, folder: Path, *sets: str, mode: Mode = Mode.PERFORMANCE) -> RunDir:
    """A run directory with a plan of one GPU on each node."""
    replicas = tuple(Replica(index=i, parts=(Part(node=i, gpus=(0,)),)) for i in range(num_nodes))
    return write_plan(plan_for(num_nodes, *ON_GPU, *sets, mode=mode, replicas=replicas), folder)


def test_progress_and_telemetry_never_begin(tmp_path: Path, gpu: dict[str, str]) -> None:
    run_dir = on_gpus(1, tmp_path / "run")
    run_dir.progress.mkdir()
    (run_dir.root / "telemetry").touch()
    with Job(run_dir, 1, env={0: gpu}) as job:
        assert job.wait() == {0: 0}, job.output(0)
        result = job.record
    assert result.verdict == "VALID"
    causes = {each.part: each.cause for each in result.auxiliary_failures}
    assert causes == {"telemetry": "File exists", "progress": "Is a directory"}
    printed = job.output(0)
    assert "Traceback" not in printed and "progress stopped at " in printed
    watched = subprocess.run(
        [sys.executable, "-m", "sut.watch", "--once", str(job.run_dir)],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert watched.returncode == 0 and "Traceback" not in watched.stderr, watched.stderr


def test_meters_of_another_node_fail(tmp_path: Path, gpu: dict[str, str]) -> None:
    run_dir = on_gpus(2, tmp_path / "run", "scenarios.server.min_duration_ms=7000")
    env = {0: gpu, 1: {**gpu, "FAKE_NVML_LOST": "4"}}
    with Job(run_dir, 2, env=env) as job:
        assert job.wait()[0] == 0, job.output(0)
        (failure,) = job.record.auxiliary_failures
    assert (failure.part, failure.node) == ("telemetry", "n1")
    assert "GPU is lost" in failure.cause
    assert failure.text.startswith("telemetry of n1 stopped at ")
    assert failure.at_s is not None and 0 < failure.at_s < job.record.timings[-1].start_s


def test_a_failure_of_an_earlier_attempt_stays_in_the_record(
    tmp_path: Path, gpu: dict[str, str]
) -> None:
    sets = ("scenarios.server.target_qps=50", "scenarios.server.max_query_count=10")
    run_dir = on_gpus(1, tmp_path / "run", *sets, mode=Mode.ALL)
    with Job(run_dir, 1, env={0: {**gpu, "FAKE_NVML_LOST": "4"}}) as job:
        job.until_measuring("accuracy")
        until(lambda: len(telemetry.read(run_dir.telemetry("n0"))) > 5)
        job.signal(0, signal.SIGUSR2)
        assert job.wait() == {0: 3}
    before = job.record.auxiliary_failures
    assert [each.part for each in before] == ["telemetry"]
    with Job(run_dir, 1, attempt=1, env={0: gpu}) as again:
        assert again.wait()[0] in (0, 1), again.output(0)
    assert again.record.auxiliary_failures == before


def test_a_failure_in_words() -> None:
    failure = AuxiliaryFailure(part="telemetry", cause="No space left on device", at_s=12.3)
    why = "No space left on device; the result does not depend on it"
    assert failure.text == f"telemetry stopped at 12.3 s: {why}"
    for_a_time = msgspec.structs.replace(failure, until_s=20.0, node="jw3")
    assert for_a_time.text == f"telemetry of jw3 has a gap from 12.3 s to 20 s: {why}"
    once = AuxiliaryFailure(part="plots", cause="no fonts")
    assert once.text == "plots failed: no fonts; the result does not depend on it"


@pytest.fixture
def limited() -> Iterator[Callable[[int], None]]:
    """Limits the size of a file that this process writes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 3])
def test_a_lost_line_costs_no_other(
    room: int, tmp_path: Path, limited: Callable[[int], None]
) -> None:
    path = tmp_path / "lines"
    lines = LineFile(path)
    lines.append(b"first")
    limited(path.stat().st_size + room)
    lines.append(b"lost")
    assert lines.outage is not None and lines.outage.end is None
    assert lines.outage.cause == "File too large"
    limited(resource.RLIM_INFINITY)
    lines.append(b"kept")
    assert path.read_bytes() == b"first\n" + (b"los\n" if room else b"") + b"kept\n"
    assert lines.outage.end is not None and lines.outage.end >= lines.outage.begin


def test_a_progress_file_that_appears_later_is_used(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    path.mkdir()
    progress = Progress(path)
    assert Reader(path).read() == []
    assert progress.outage is not None and progress.outage.cause == "Is a directory"
    path.rmdir()
    progress.step("kept")
    assert [line.step for line in Reader(path).read()] == ["kept"]


def test_each_new_step_is_printed_on_a_terminal(tmp_path: Path) -> None:
    terminal = io.StringIO()
    progress = Progress(tmp_path / "progress.jsonl", terminal)
    for step in ("starting the engines", "warming up", "warming up", "judging performance"):
        progress.step(step)
    assert terminal.getvalue() == (
        "  starting\n  starting the engines\n  warming up\n  judging performance\n"
    )


def test_a_clock_that_is_not_set_has_no_step() -> None:
    clock = WallClock()
    time.sleep(0.3)
    assert clock.step_s() is None
