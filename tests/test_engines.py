"""Engines that a run keeps for the next one: used, refused, and ended."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import psutil
import pytest
from cli import environment, fast, latest, set_arguments, submit, until
from plans import plan_of
from replay import links_with

from sut import _core
from sut.cluster.allocation import Allocation
from sut.inputs import dataset
from sut.inputs.cache import CACHE_VARIABLE, cache_dir
from sut.results import record
from sut.results.progress import Progress
from sut.results.record import Record
from sut.run import keeping
from sut.run.replicas import NUM_WARMUP_SAMPLES, Replicas
from sut.run.serving import Serving
from sut.rundir import RunDir
from sut.serving import ended, engine_settings, keepers, kept, keys, registry
from sut.serving.ended import Ended
from sut.serving.keeper_messages import Served, Setup, StartEngine
from sut.serving.nodes import Nodes
from sut.serving.process import Command
from sut.serving.wire import PINNED_LAYOUT, VLLM_VERSION

# Limits that a busy machine meets.
ROOM = ("scenarios.server.ttft_latency_ms=20000", "scenarios.server.tpot_latency_ms=2000")
KEEP = ["--keep-engine", "5"]
LONG = set_arguments(["scenarios.server.min_duration_ms=60000"])
START_S = 60.0
WAITING = Command(argv=("sleep", "600"), env=dict(os.environ))
SERVED = Served(started_utc="2026-11-27T00:00:00Z", runs=1, samples=(3,), ready=(b"ready",))


@pytest.fixture(autouse=True)
def _registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A registry of this test alone, empty again at its end."""
    monkeypatch.setenv(CACHE_VARIABLE, str(cache_dir()))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield
    left = owners()
    for owner in left:
        keepers.kill(owner.pid)  # of a keeper that has not started, the owner is this process
    psutil.wait_procs([each for each in left if each.pid != os.getpid()], 10)


def owners() -> list[psutil.Process]:
    found = []
    for keeper in registry.ids():
        connected = registry.connect(keeper)
        if connected is not None:
            found.append(psutil.Process(registry.pid_of(connected)))
            connected.close()
    return found


def engines_of(keeper: psutil.Process) -> list[psutil.Process]:
    return keeper.children(recursive=True)


def gone(processes: Sequence[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


def run(cwd: Path, *arguments: str) -> Record:
    """A fast run that must be VALID."""
    done = submit(cwd, *fast(), *set_arguments(ROOM), *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return latest(cwd)


def origin(of: Record) -> record.EngineOrigin:
    assert of.engines is not None
    (only,) = of.engines.replicas
    return only


def sut_engines(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "sut", "engines", *arguments]
    return subprocess.run(argv, env=environment(), capture_output=True, text=True, timeout=60)


def started(cwd: Path, *arguments: str) -> RunDir:
    """A long run that is measuring."""
    done = submit(cwd, *fast(), *LONG, "--no-wait", *arguments)
    assert done.returncode == 0, done.stderr
    run_dir = RunDir(cwd / "runs" / "latest")
    until(lambda: run_dir.progress.is_file() and "output_tokens" in run_dir.progress.read_text())
    return run_dir


def head_of(run_dir: RunDir) -> psutil.Process:
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if words[1:3] == ["-m", "sut.run"] and words[3:] == [str(run_dir)]:
            return process
    raise AssertionError(f"{run_dir} has no process")


def test_the_next_run_uses_the_engines_of_the_first(tmp_path: Path) -> None:
    first = run(tmp_path, *KEEP)
    assert first.engines is not None and first.engines.kept
    assert not origin(first).warm and origin(first).earlier_runs == 0
    (keeper,) = owners()
    (engine,) = engines_of(keeper)
    second = run(tmp_path, *KEEP)
    third = run(tmp_path, *KEEP)
    for number, each in enumerate((second, third), 1):
        assert origin(each).warm and origin(each).earlier_runs == number
        assert origin(each).started_utc == origin(first).started_utc
        assert each.plan_digest == first.plan_digest
    (phase,) = second.phases
    assert phase.dispatcher is not None
    # Its own samples, and the one that each warm replica answers before it counts as ready.
    served = origin(third).earlier_samples - origin(second).earlier_samples
    assert served == phase.dispatcher.completed + 1
    assert owners() == [keeper] and engines_of(keeper) == [engine]


def test_the_record_and_the_summary_say_that_engines_were_warm(tmp_path: Path) -> None:
    first = run(tmp_path, *KEEP)
    done = submit(tmp_path, *fast(), *KEEP)
    samples = origin(latest(tmp_path)).earlier_samples
    started_utc = origin(first).started_utc
    assert f"1 replica warm: started {started_utc}, had served 1 run, {samples} samples" in (
        done.stdout
    )
    run_dir = RunDir(tmp_path / "runs" / "latest")
    assert "1 replica warm" in run_dir.report.read_text()
    assert run_dir.replica_log(0).read_text().startswith(f"warm engine, started {started_utc};")


def test_a_run_that_does_not_ask_starts_its_own(tmp_path: Path) -> None:
    run(tmp_path, *KEEP)
    (keeper,) = owners()
    engines = engines_of(keeper)
    second = run(tmp_path)
    assert second.engines is not None and not origin(second).warm and not second.engines.kept
    (note,) = second.engines.notes
    assert note.startswith("ended idle engines ")
    assert gone(engines) and registry.ids() == []


def test_other_engine_settings_start_other_engines(tmp_path: Path) -> None:
    run(tmp_path, *KEEP)
    (keeper,) = owners()
    engines = engines_of(keeper)
    second = run(tmp_path, *KEEP, *set_arguments(["engine.max_num_seqs=72"]))
    assert second.engines is not None and not origin(second).warm and second.engines.kept
    (note,) = second.engines.notes
    assert note.endswith("other replica 0: command")
    assert gone(engines) and len(owners()) == 1


def test_a_measured_load_stays_with_the_engines(tmp_path: Path) -> None:
    auto = set_arguments(["scenarios.server.target_qps=auto"])
    first, second = run(tmp_path, *auto, *KEEP), run(tmp_path, *auto, *KEEP)
    assert first.load is not None and second.load is not None
    assert second.load.target_qps == first.load.target_qps
    assert second.load.full == first.load.full
    assert first.load.measured_by == ""
    assert second.load == msgspec.structs.replace(first.load, measured_by=first.run_id)
    run_dir = RunDir(tmp_path / "runs" / "latest")
    assert f"measured by run {first.run_id} on the same engines" in run_dir.report.read_text()
    third = run(tmp_path, *auto, *KEEP)
    assert third.load == second.load


def test_another_load_uses_the_same_engines(tmp_path: Path) -> None:
    run(tmp_path, *KEEP)
    second = run(tmp_path, *KEEP, *set_arguments(["scenarios.server.target_qps=700"]))
    assert origin(second).warm
    again = submit(tmp_path, "--again", "runs/latest", *KEEP)
    assert again.returncode == 0 and "differs: " not in again.stdout
    assert origin(latest(tmp_path)).earlier_runs == 2


def test_a_dry_run_shows_how_long_engines_stay(tmp_path: Path) -> None:
    done = submit(tmp_path, *fast(), *KEEP, "--dry-run")
    assert "stays for 5 minutes after the run" in " ".join(done.stdout.split())


def test_a_second_run_at_once_starts_its_own(tmp_path: Path) -> None:
    started(tmp_path, *KEEP)
    (keeper,) = owners()
    second = run(tmp_path, *KEEP)
    assert second.engines is not None and not origin(second).warm and not second.engines.kept
    (note,) = second.engines.notes
    assert note.startswith("own engines, which end with this run (engines ")
    assert "in use by " in note
    assert owners() == [keeper]


def test_a_killed_run_leaves_no_engine(tmp_path: Path) -> None:
    run_dir = started(tmp_path, *KEEP)
    (keeper,) = owners()
    engines = engines_of(keeper)
    head_of(run_dir).kill()
    until(lambda: gone([keeper, *engines]))
    assert registry.ids() == []


def test_a_cancelled_run_leaves_no_engine(tmp_path: Path) -> None:
    run_dir = started(tmp_path, *KEEP)
    (keeper,) = owners()
    engines = engines_of(keeper)
    head_of(run_dir).send_signal(signal.SIGTERM)
    until(lambda: run_dir.record.is_file() and not record.read(run_dir.record).interim)
    assert gone(engines) and registry.ids() == []
    until(lambda: gone([keeper]))
    failed = record.read(run_dir.record)
    assert failed.failure is not None and failed.failure.code == "cancelled"
    assert failed.engines is not None and not failed.engines.kept


def test_a_killed_keeper_ends_its_engines_and_the_run(tmp_path: Path) -> None:
    run_dir = started(tmp_path, *KEEP)
    (keeper,) = owners()
    engines = engines_of(keeper)
    keeper.kill()
    until(lambda: gone(engines))
    until(lambda: run_dir.record.is_file() and not record.read(run_dir.record).interim)
    failed = record.read(run_dir.record)
    assert failed.failure is not None
    assert failed.failure.code in ("keeper_lost", "connection_lost")


def test_a_killed_idle_keeper_is_forgotten(tmp_path: Path) -> None:
    run(tmp_path, *KEEP)
    (keeper,) = owners()
    engines = engines_of(keeper)
    keeper.kill()
    until(lambda: gone(engines))
    assert len(registry.ids()) == 1
    assert "no kept engines" in sut_engines().stdout
    assert registry.ids() == []
    assert not origin(run(tmp_path, *KEEP)).warm


def test_an_engine_that_dies_idle_ends_its_keeper(tmp_path: Path) -> None:
    run(tmp_path, *KEEP)
    (keeper,) = owners()
    (engine,) = engines_of(keeper)
    engine.kill()
    until(lambda: gone([keeper]))
    assert not origin(run(tmp_path, *KEEP)).warm


def test_a_frozen_engine_is_replaced(tmp_path: Path) -> None:
    run(tmp_path, *KEEP)
    (keeper,) = owners()
    (engine,) = engines_of(keeper)
    engine.suspend()
    second = run(tmp_path, *KEEP)
    assert second.engines is not None and not origin(second).warm and not second.engines.kept
    (note,) = second.engines.notes
    assert "was not ready after 5 s" in note
    assert gone([engine])


def test_stopping_engines_in_use_waits_for_their_run(tmp_path: Path) -> None:
    done = submit(tmp_path, *fast(), *KEEP, "--no-wait", *set_arguments(SHORT))
    assert done.returncode == 0, done.stderr
    run_dir = RunDir(tmp_path / "runs" / "latest")
    until(lambda: run_dir.progress.is_file() and "output_tokens" in run_dir.progress.read_text())
    (keeper,) = owners()
    stop = sut_engines("stop", "--all")
    assert stop.returncode == 3 and f"in use by {run_dir}" in stop.stdout
    until(lambda: run_dir.record.is_file() and not record.read(run_dir.record).interim)
    found = record.read(run_dir.record)
    assert found.status == "completed" and found.engines is not None and not found.engines.kept
    until(lambda: gone([keeper]))


SHORT = ["scenarios.server.min_duration_ms=4000"]


def test_stop_ends_idle_engines(tmp_path: Path) -> None:
    run(tmp_path, *KEEP)
    (keeper,) = owners()
    engines = engines_of(keeper)
    (keeper_id,) = registry.ids()
    assert keeper_id in sut_engines().stdout and "idle" in sut_engines().stdout
    assert sut_engines("stop", keeper_id[:6]).stdout == f"{keeper_id}: stopped\n"
    assert gone(engines)
    assert sut_engines("stop", "--all").stdout == "no kept engines on this machine\n"


def test_stop_kills_a_keeper_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, *KEEP)
    (keeper,) = owners()
    engines = engines_of(keeper)
    (keeper_id,) = registry.ids()
    keeper.suspend()
    monkeypatch.setattr(keepers, "END_S", 0.1, "by this test")
    assert keepers.stop(keeper_id, 0.1, "by this test") == ""
    until(lambda: gone([keeper, *engines]))


def test_a_frozen_keeper_fails_no_run(tmp_path: Path) -> None:
    done = submit(tmp_path, *fast(), *KEEP, "--no-wait", *set_arguments(SHORT))
    assert done.returncode == 0, done.stderr
    run_dir = RunDir(tmp_path / "runs" / "latest")
    until(lambda: run_dir.progress.is_file() and "output_tokens" in run_dir.progress.read_text())
    (keeper,) = owners()
    engines = engines_of(keeper)
    keeper.suspend()
    until(lambda: run_dir.record.is_file() and not record.read(run_dir.record).interim)
    found = record.read(run_dir.record)
    assert found.failure is None and found.verdict == "VALID"
    assert found.engines is not None and not found.engines.kept
    until(lambda: gone([keeper, *engines]))


def test_a_slow_keeper_may_take_as_long_as_an_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "ANSWER_S", 1)
    hold = kept.create(small_setup(tmp_path, keep_s=600), "127.0.0.1", 1)
    keeper = psutil.Process(hold.pid)
    keeper.suspend()
    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(hold.start, (0, 0), WAITING, START_S)
        try:
            with pytest.raises(TimeoutError):
                started.result(2)
        finally:
            keeper.resume()
        started.result()
    assert hold.exits() == {}
    hold.stop(1.0)
    until(lambda: gone([keeper]))


def test_a_keeper_that_accepts_no_connection_is_not_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "ANSWER_S", 1)
    hold = with_an_engine(small_setup(tmp_path, keep_s=600))
    (keeper,) = owners()
    assert hold.release(SERVED)
    keeper.suspend()
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(BlockingIOError):
            while connected := registry.connect("test"):  # until its backlog is full
                stack.enter_context(connected)
        assert list(keepers.living()) == [("test", None)]
        assert registry.ids() == ["test"]
        assert "no answer" in keepers.stop("test", 0.1, "by this test")
        with pytest.raises(OSError, match="in use"):
            kept.create(small_setup(tmp_path, keep_s=600), "127.0.0.1", 1)
    keeper.resume()


def test_engines_are_found_after_a_logout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    login = tmp_path / "login"
    login.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(login))
    hold = with_an_engine(small_setup(tmp_path, keep_s=600))
    assert hold.release(SERVED)
    shutil.rmtree(login)
    assert sut_engines("stop", "test").stdout == "test: stopped\n"


def test_refuses_to_stop_unknown_engines() -> None:
    stop = sut_engines("stop", "abc")
    assert stop.returncode == 2 and "error: no engines with id abc" in stop.stderr


@pytest.mark.parametrize("folder", ["a file", "public"])
def test_without_a_private_registry_the_run_keeps_nothing(tmp_path: Path, folder: str) -> None:
    if folder == "public":
        registry.folder().mkdir(parents=True)
        registry.folder().chmod(0o755)
    else:
        registry.folder().parent.parent.mkdir(parents=True, exist_ok=True)
        registry.folder().parent.write_text("")
    first = run(tmp_path, *KEEP)
    assert first.engines is not None and not first.engines.kept
    (note,) = first.engines.notes
    assert note.startswith(f"own engines, which end with this run ({registry.folder()}")
    if folder == "public":
        listed = sut_engines()
        assert listed.returncode == 0 and "no kept engines" in listed.stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--keep-engine", "0"], "0 is not a whole number of 1 or more"),
        (["--keep-engine", "x"], "x is not a whole number of 1 or more"),
    ],
)
def test_refuses_an_invalid_time(tmp_path: Path, arguments: list[str], text: str) -> None:
    done = submit(tmp_path, *fast(), *arguments)
    assert done.returncode == 2 and text in done.stderr


def small_setup(tmp_path: Path, keep_s: float, until_pid: int | None = None) -> Setup:
    return Setup(
        keeper="test",
        what="a test",
        settings={},
        resources=("core 0",),
        job_id="",
        keys=keys.make(1),
        until_pid=until_pid,
        run=str(tmp_path / "run"),
        keep_s=keep_s,
    )


def with_an_engine(setup: Setup) -> kept.Kept:
    """A new keeper with a program that only waits."""
    hold = kept.create(setup, "127.0.0.1", 1)
    hold.start((0, 0), WAITING, START_S)
    return hold


def test_idle_engines_end_by_themselves(tmp_path: Path) -> None:
    hold = with_an_engine(small_setup(tmp_path, keep_s=0.3))
    (keeper,) = owners()
    engines = engines_of(keeper)
    assert len(engines) == 1
    assert hold.release(SERVED)
    until(lambda: gone([keeper, *engines]))
    assert registry.ids() == []


def test_engines_can_stay_for_months(tmp_path: Path) -> None:
    hold = with_an_engine(small_setup(tmp_path, keep_s=1e7))
    (keeper,) = owners()
    assert hold.release(SERVED)
    with pytest.raises(psutil.TimeoutExpired):
        keeper.wait(0.5)
    ((_, status),) = keepers.living()
    assert status is not None and status.ends_in_s is not None and status.ends_in_s > 9e6


def test_a_run_that_was_interrupted_waits_for_the_end_of_its_engines(tmp_path: Path) -> None:
    hold = kept.create(small_setup(tmp_path, keep_s=600), "127.0.0.1", 1)
    stubborn = "trap '' TERM; while :; do sleep 0.1; done"
    wanted = Command(argv=("sh", "-c", stubborn), env=dict(os.environ))
    channel = hold._channel
    assert channel is not None
    channel.send(StartEngine(part=(0, 0), command=wanted))  # its answer is never read
    assert channel.poll(10)
    (keeper,) = owners()
    engines = engines_of(keeper)
    assert engines
    hold.stop(0.5)
    assert gone(engines)


SLOW_ENGINES = {
    "vllm": (
        "import time; time.sleep(1); from sut.serving import vllm_headless\n"
        "vllm_headless.end_with_parent(); time.sleep(600)"
    ),
    "replay": (
        "import os, sys, time; time.sleep(1)\n"
        "from plans import plan_of\n"
        "from sut.serving.process import Address, Launch, argv\n"
        "nowhere = Address('127.0.0.1', 1)\n"
        "launch = Launch(replica=0, part=0, handshake=nowhere, host='', kept=True)\n"
        "words = argv(plan_of('replay'), launch, None)\n"
        "os.execv(words[0], words)"
    ),
}


@pytest.mark.parametrize("code", SLOW_ENGINES.values(), ids=SLOW_ENGINES)
def test_a_keeper_killed_while_an_engine_starts_leaves_no_engine(tmp_path: Path, code: str) -> None:
    hold = kept.create(small_setup(tmp_path, keep_s=600), "127.0.0.1", 1)
    with_tests = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    hold.start((0, 0), Command(argv=(sys.executable, "-c", code), env=with_tests), START_S)
    (keeper,) = owners()
    engines = engines_of(keeper)
    assert engines
    keeper.kill()
    try:
        _, left = psutil.wait_procs(engines, 10)
        assert not left
    finally:
        for engine in engines:
            with contextlib.suppress(psutil.NoSuchProcess):
                engine.kill()


def test_stop_does_not_kill_a_run_whose_keeper_has_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import time; from sut.serving import registry\n"
        "with registry.locked(): listener = registry.listen('test')\n"
        "time.sleep(600)"
    )
    monkeypatch.setattr(keepers, "END_S", 0.1, "by this test")
    with subprocess.Popen([sys.executable, "-c", code], env=environment()) as starter:
        until(lambda: registry.ids() == ["test"])
        until(lambda: owners() != [])
        assert "no answer" in keepers.stop("test", 0.1, "by this test")
        assert starter.poll() is None
        starter.kill()
    assert keepers.stop("test", 0.1, "by this test") == ""


def test_engines_end_with_their_job(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as job:
        hold = with_an_engine(small_setup(tmp_path, keep_s=600, until_pid=job.pid))
        (keeper,) = owners()
        assert hold.release(SERVED)
        job.kill()
        until(lambda: gone([keeper]))


def test_only_one_keeper_of_a_kind_can_start(tmp_path: Path) -> None:
    setup = small_setup(tmp_path, keep_s=600)
    hold = with_an_engine(setup)
    with pytest.raises(FileExistsError):
        kept.create(setup, "127.0.0.1", 1)
    assert isinstance(kept.acquire("test", "other", 1), str)
    hold.stop(1.0)
    assert kept.acquire("test", "other", 1) is None


def test_no_program_gets_a_port_of_an_idle_engine(tmp_path: Path) -> None:
    hold = with_an_engine(small_setup(tmp_path, keep_s=600))
    for port in hold.ports[0]:
        with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
            stranger.bind(("127.0.0.1", port))
        with socket.socket() as engine, pytest.raises(ConnectionRefusedError):
            engine.connect(("127.0.0.1", port))
    hold.stop(1.0)


@pytest.mark.parametrize(
    ("variable", "counts"),
    [("OMP_NUM_THREADS", True), ("VLLM_USE_V1", True), ("TERM", False), ("SSH_TTY", False)],
)
def test_the_environment_of_an_engine_counts(
    variable: str, counts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def settings() -> engine_settings.Settings:
        return engine_settings.of_run(plan_of("replay"), "127.0.0.1", None, None, Allocation())

    before = settings()
    monkeypatch.setenv(variable, "changed")
    assert (engine_settings.id_of(settings()) != engine_settings.id_of(before)) == counts
    assert bool(engine_settings.differences(before, settings())) == counts
    assert "changed" not in settings().values()


def test_runs_of_one_job_share_engines_that_end_with_it(tmp_path: Path) -> None:
    words = shlex.join([sys.executable, "-m", "sut.submit", *fast(), *KEEP])
    script = (
        f"export SLURM_JOB_ID=77 SLURM_TASK_PID=$$\n{words} && {words}\nstatus=$?\nexit $status"
    )
    job = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment(), timeout=120)
    assert job.returncode == 0
    assert origin(latest(tmp_path)).warm and latest(tmp_path).attempts[-1].job_id == "77"
    until(lambda: registry.ids() == [])
    assert owners() == []


def test_released_engines_can_be_used_while_their_run_ends(tmp_path: Path) -> None:
    plan = msgspec.structs.replace(plan_of("replay"), keep_engine_min=5)
    run_dir, here = RunDir(tmp_path / "run"), Allocation()
    run_dir.root.mkdir()
    progress = Progress(run_dir.progress)
    prompts = dataset.load(plan, None).prompts
    with Nodes(plan, run_dir, here) as nodes:
        hold, _ = keeping.choose(nodes, here, None, progress)
        nodes.kept = hold
        assert hold is not None and hold.granted is None
        with Serving(nodes, None) as serving:
            serving.start(progress)
            serving.connect(prompts, (), progress)
            serving.load(progress)
            serving.warm_up()
        assert serving.engines.kept
        again, _ = keeping.choose(nodes, here, None, progress)
        assert again is not None and again.granted is not None
        assert again.granted.served.samples == (NUM_WARMUP_SAMPLES,)
        links_with(again.keys, host=nodes[0].host, ports=again.ports)
        again.stop(1.0)


def test_an_engine_that_becomes_ready_at_the_deadline_is_ready(tmp_path: Path) -> None:
    plan, run_dir = plan_of("replay"), RunDir(tmp_path)
    answers, limited = iter([False, True]), []

    class Late:
        """A dispatcher whose replica becomes ready just after the wait for it."""

        failure = None

        def wait_ready(self, _timeout_s: float) -> bool:
            return next(answers)

        def ready_response(self, _replica: int) -> bytes:
            return msgspec.msgpack.encode({"vllm_version": VLLM_VERSION, "max_num_seqs": 64})

        def set_credit(self, _replica: int, max_in_flight: int) -> None:
            limited.append(max_in_flight)

    links, store = links_with(keys.make(1)), _core.SampleStore()
    nodes = Nodes(plan, run_dir, Allocation())
    replicas = Replicas(nodes, links, store, PINNED_LAYOUT)
    replicas.dispatcher = Late()  # type: ignore[assignment]
    replicas.wait_ready(Progress(run_dir.progress), started=0.0, within_s=0.0)
    assert limited == [80]


def test_the_log_and_the_list_say_why_engines_ended(tmp_path: Path) -> None:
    run(tmp_path, *KEEP)
    (keeper_id,) = registry.ids()
    assert sut_engines("stop", "--all").returncode == 0
    log = RunDir(tmp_path / "runs" / "latest").keeper_log
    until(lambda: "the engines end: by sut engines stop" in log.read_text())
    none, _, head, row = sut_engines().stdout.splitlines()
    assert none == "no kept engines on this machine" and head.split()[0] == "ended"
    assert row.startswith(keeper_id) and row.endswith("by sut engines stop")
    again = sut_engines("stop", keeper_id)
    assert again.returncode == 2
    assert f"error: engines {keeper_id} have ended: by sut engines stop" in again.stderr


def test_the_next_run_names_the_run_that_ended_its_engines(tmp_path: Path) -> None:
    run(tmp_path, *KEEP)
    (keeper_id,) = registry.ids()
    run(tmp_path)  # without --keep-engine
    needed = f"run {(tmp_path / 'runs' / 'latest').resolve()} started its own on the same cores"
    (end,) = ended.all_recent()
    assert (end.keeper, end.why) == (keeper_id, needed)
    assert end.keeper in sut_engines().stdout
    third = run(tmp_path, *KEEP)
    assert third.engines is not None
    told = f"the engines of these settings ended at {end.ended_utc}: {needed}"
    assert told in third.engines.notes
    fourth = run(tmp_path, *KEEP)
    assert origin(fourth).warm and fourth.engines is not None and fourth.engines.notes == ()


def test_an_old_end_is_forgotten(tmp_path: Path) -> None:
    with registry.locked():
        ended.note(Ended(keeper="k", what="x", ended_utc="2026-01-01T00:00:00Z", why="y"))
        (registry.folder() / "z.ended").write_text("{")
    assert ended.all_recent() == [] and ended.of("k") is None
    assert [each.name for each in registry.folder().glob("*.ended")] == ["z.ended"]
