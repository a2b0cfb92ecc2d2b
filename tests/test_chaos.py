"""Faults at every stage of a run with the replay engine. ``make chaos`` runs all and writes
docs/reliability.md; ``make test`` runs those that are not marked."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import chaos
import msgspec
import psutil
import pytest
from chaos import (
    STAGES,
    Outcome,
    Running,
    Stalling,
    at_once,
    fill,
    kill,
    own_shared_memory,
    running,
    small_disk,
    started,
)
from cli import environment, fast, processes_of, until

from sut.results import attempts, record
from sut.rundir import RunDir

MEASURING = ("performance", "accuracy")
SHORT = ("scenarios.server.min_duration_ms=5000",)
FASTER = "scenarios.server.target_qps=100"


table = pytest.fixture(chaos.table_of("one machine"), scope="module")


def every_stage(*marked: str) -> Callable[[object], object]:
    """Cases of all stages; ``marked`` are those of ``make chaos`` only."""
    stages = [
        pytest.param(stage, marks=[pytest.mark.chaos] if stage in marked else [])
        for stage in STAGES
    ]
    return pytest.mark.parametrize("stage", stages)


@every_stage("warm-up", "accuracy")
def test_engine_killed(tmp_path: Path, table: list[Outcome], stage: str) -> None:
    with running(tmp_path, stage) as run:
        kill(run.engine, signal.SIGKILL)
        found = run.ended("engine killed", 120)
    assert (found.exit_code, found.code) == (3, "engine_died")
    table.append(found)


STOPPED = {"load": "not_ready", "warm-up": "warm_up", "performance": "stall", "accuracy": "stall"}


@every_stage("warm-up", "accuracy")
def test_engine_stopped(tmp_path: Path, table: list[Outcome], stage: str) -> None:
    with running(tmp_path, stage) as run:
        kill(run.engine, signal.SIGSTOP)
        found = run.ended("engine stopped", 90)
    assert (found.exit_code, found.code) == (3, STOPPED[stage])
    table.append(found)


def short(stage: str) -> Sequence[str]:
    """Settings with which a run that goes on ends soon."""
    return (*SHORT, FASTER) if stage == "performance" else (FASTER,)


def folder(parent: Path, stage: str) -> Path:
    """Where a run at this stage is started."""
    (parent / stage).mkdir()
    return parent / stage


@pytest.mark.chaos
def test_engine_stopped_and_resumed(tmp_path: Path, table: list[Outcome]) -> None:
    def case(stage: str) -> Outcome:
        with running(folder(tmp_path, stage), stage, short(stage)) as run:
            engine = run.engine
            kill(engine, signal.SIGSTOP)
            time.sleep(1.5)
            kill(engine, signal.SIGCONT)
            found = run.ended("engine stopped for 1.5 s", 200)
        assert found.status == "completed" and found.exit_code in (0, 1)
        return found

    table += at_once(MEASURING, case)


@pytest.mark.chaos
def test_engine_is_slow(tmp_path: Path, table: list[Outcome]) -> None:
    """Its tokens take 20 ms instead of 2, and the limit is 10."""
    sets = (*SHORT, "engine.replay.faults=[slow@40:10]", "scenarios.server.tpot_latency_ms=10")
    with started(tmp_path, "performance", sets) as run:
        found = run.ended("engine slow by 10 times", 200)
        (phase,) = record.read(run.run_dir.record).phases
    assert (found.exit_code, found.status) == (1, "completed")
    assert "tpot" in " ".join(check.code for check in phase.verdict.reasons)
    table.append(found)


@pytest.mark.chaos
def test_engine_dies_while_loading(tmp_path: Path, table: list[Outcome]) -> None:
    with started(tmp_path, "load", ["engine.replay.faults=[die-loading]"]) as run:
        found = run.ended("engine: `die-loading`", 120)
    assert (found.exit_code, found.code) == (3, DIED)
    table.append(found)


@pytest.mark.chaos
def test_run_killed(tmp_path: Path, table: list[Outcome]) -> None:
    def case(stage: str) -> Outcome:
        with running(folder(tmp_path, stage), stage) as run:
            kill(run.head, signal.SIGKILL)
            found = run.ended("run killed", 120)
        assert (found.exit_code, found.code) == (3, "no_record")
        return found

    table += at_once(STAGES, case)


@pytest.mark.chaos
def test_command_killed(tmp_path: Path, table: list[Outcome]) -> None:
    """The run outlives the command that started it."""
    with running(tmp_path, "performance", SHORT) as run:
        begin = time.monotonic()
        kill(run.process.pid, signal.SIGKILL)
        until(lambda: attempts.has_record(run.run_dir), 60)
        until(lambda: processes_of(run.run_dir.root) == [], 60)
        took_s = time.monotonic() - begin
        found = run.outcome("command killed", took_s, 0, "")
    assert found.status == "completed"
    table.append(found)


SIGNALS: dict[str, tuple[Callable[[Running], None], str, str]] = {
    "SIGTERM to the command": (lambda run: kill(run.process.pid, signal.SIGTERM), "", "cancelled"),
    "Ctrl-C": (lambda run: os.killpg(run.process.pid, signal.SIGINT), "", "cancelled"),
    "SIGTERM to the run": (lambda run: kill(run.head, signal.SIGTERM), "", "cancelled"),
    "SIGUSR2 to the run (wall limit)": (
        lambda run: kill(run.head, signal.SIGUSR2),
        "truncated",
        "truncated",
    ),
}


@pytest.mark.chaos
@pytest.mark.parametrize("name", SIGNALS)
def test_signal(tmp_path: Path, table: list[Outcome], name: str) -> None:
    send, status, code = SIGNALS[name]

    def case(stage: str) -> Outcome:
        with running(folder(tmp_path, stage), stage) as run:
            send(run)
            found = run.ended(name, 120)
        assert (found.exit_code, found.status, found.code) == (3, status or "failed", code)
        return found

    table += at_once(STAGES, case)


@pytest.mark.chaos
def test_ctrl_c_twice(tmp_path: Path, table: list[Outcome]) -> None:
    def case(stage: str) -> Outcome:
        with running(folder(tmp_path, stage), stage) as run:
            for _ in range(2):
                os.killpg(run.process.pid, signal.SIGINT)
                time.sleep(0.2)
            found = run.ended("Ctrl-C twice", 120)
        assert (found.exit_code, found.code) == (3, "cancelled")
        return found

    table += at_once(STAGES, case)


@pytest.mark.chaos
def test_signal_while_the_report_is_written(tmp_path: Path, table: list[Outcome]) -> None:
    """The record is written, and stays."""
    slow = tmp_path / "slow" / "matplotlib"
    slow.mkdir(parents=True)
    (slow / "__init__.py").write_text("import time; time.sleep(8); raise RuntimeError('no fonts')")
    env = {"PYTHONPATH": f"{slow.parent}:{environment()['PYTHONPATH']}"}
    kinds = {"run killed": lambda run: kill(run.head, signal.SIGKILL)}
    kinds |= {name: send for name, (send, _, _) in SIGNALS.items()}

    def case(name: str) -> Outcome:
        cwd = folder(tmp_path, name)
        with started(cwd, record.REPORT, short("performance"), env=env) as run:
            until(run.is_there, 120)
            kinds[name](run)
            found = run.ended(name, 120)
            result = record.read(run.run_dir.record)
        assert (result.status, result.verdict) == ("completed", "VALID")
        return found

    table += at_once(kinds, case)


@pytest.mark.chaos
@pytest.mark.skipif(shutil.which("bindfs") is None, reason="needs bindfs")
def test_shared_folder_stalls(tmp_path: Path, table: list[Outcome]) -> None:
    """The run waits for it; its engine and LoadGen go on."""

    def case(stage: str) -> Outcome:
        with (
            Stalling(folder(tmp_path, stage)) as shared,
            running(tmp_path / stage, stage, short(stage), root=shared.folder) as run,
        ):
            shared.stall()
            time.sleep(60)
            shared.resume()
            found = run.ended("folder of the run stalls for 60 s", 200)
        failures = {"load": "not_ready", "warm-up": "warm_up"}
        assert found.code == failures.get(stage, "")
        return msgspec.structs.replace(found, took_s=60 + found.took_s)

    table += at_once(STAGES, case)


@pytest.mark.chaos
@pytest.mark.skipif(shutil.which("bindfs") is None, reason="needs bindfs")
def test_signal_while_the_shared_folder_stalls(tmp_path: Path, table: list[Outcome]) -> None:
    def case(name: str) -> Outcome:
        send, status, code = SIGNALS[name]
        cwd = folder(tmp_path, name)
        with (
            Stalling(cwd) as shared,
            running(cwd, "performance", root=shared.folder) as run,
        ):
            assert run.head  # read before the file stalls
            shared.stall()
            time.sleep(3)
            send(run)
            time.sleep(7)
            shared.resume()
            found = run.ended(f"folder of the run stalls for 10 s; {name}", 120)
        assert (found.exit_code, found.status, found.code) == (3, status or "failed", code)
        return msgspec.structs.replace(found, took_s=7 + found.took_s)

    table += at_once(SIGNALS, case)


# The run sees what the test mounts later.
SAME_MOUNTS = ("env",)


@pytest.mark.chaos
def test_disk_full(tmp_path: Path, table: list[Outcome]) -> None:
    def case(stage: str) -> Outcome:
        cwd = folder(tmp_path, stage)
        with (
            small_disk(cwd / "disk") as disk,
            running(cwd, stage, short(stage), root=disk) as run,
        ):
            fill(disk)
            found = run.ended("disk of the run full", 200)
        assert found.exit_code == 3
        return found

    table += at_once(STAGES, case)


@pytest.mark.chaos
def test_disk_read_only(tmp_path: Path, table: list[Outcome]) -> None:
    def case(stage: str) -> Outcome:
        cwd, same = folder(tmp_path, stage), SAME_MOUNTS
        with (
            small_disk(cwd / "disk") as disk,
            running(cwd, stage, short(stage), root=disk, within=same) as run,
        ):
            # New files only: a file system with open files cannot become read-only.
            subprocess.run(["mount", "--bind", str(disk), str(disk)], check=True)
            subprocess.run(["mount", "-o", "remount,bind,ro", str(disk)], check=True)
            try:
                found = run.ended("folder of the run read-only", 200)
            finally:
                subprocess.run(["umount", "--lazy", str(disk)], check=True)
        assert found.exit_code == 3
        return found

    table += at_once(STAGES, case)


def small_shared_memory(then: str = "true") -> list[str]:
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    return own_shared_memory("128m", then)


@pytest.mark.chaos
def test_shared_memory_full(tmp_path: Path, table: list[Outcome]) -> None:
    with running(tmp_path, "performance", SHORT, within=small_shared_memory()) as run:
        fill(Path(f"/proc/{run.head}/root/dev/shm"))
        found = run.ended("/dev/shm full", 100)
    assert found.status == "completed"
    table.append(found)


def test_shared_memory_full_before_the_start(tmp_path: Path, table: list[Outcome]) -> None:
    full = small_shared_memory("head -c 100m /dev/zero >/dev/shm/filler")
    with started(tmp_path, "preflight", within=full) as run:
        found = run.ended("/dev/shm full", 120)
    assert (found.exit_code, found.code) == (3, "preflight")
    table.append(found)


def make_unwritable(run: Running, log: str) -> None:
    """A folder in place of one of LoadGen's logs, before its test begins."""
    (run.run_dir.loadgen("performance") / log).mkdir(parents=True)


ACCURACY_LOG = "mlperf_log_accuracy.json"
PIPE_BYTES = 4096
UNWRITABLE = {
    "mlperf_log_summary.txt": "loadgen_error",
    "mlperf_log_detail.txt": "os_error",
}


@pytest.mark.parametrize("log", UNWRITABLE)
def test_loadgens_log_is_not_writable(tmp_path: Path, table: list[Outcome], log: str) -> None:
    with started(tmp_path, "performance") as run:
        make_unwritable(run, log)
        found = run.ended(f"folder in place of `{log}`", 120)
    assert (found.exit_code, found.code) == (3, UNWRITABLE[log])
    table.append(found)


def make_unread(run: Running, phase: str, log: str) -> None:
    """A pipe in place of one of LoadGen's logs, before its test begins."""
    folder = run.run_dir.loadgen(phase)
    folder.mkdir(parents=True, exist_ok=True)
    os.mkfifo(folder / log)


@pytest.mark.chaos
def test_loadgen_never_begins(tmp_path: Path, table: list[Outcome]) -> None:
    """It waits for a reader when it opens its log."""
    with started(tmp_path, "performance") as run:
        make_unread(run, "performance", ACCURACY_LOG)
        found = run.ended("LoadGen waits for ever for its log", 200)
    assert (found.exit_code, found.status, found.code) == (3, "failed", "loadgen_hung")
    table.append(found)


@pytest.mark.parametrize("signalled", [False, pytest.param(True, marks=pytest.mark.chaos)])
def test_loadgen_never_returns(tmp_path: Path, table: list[Outcome], signalled: bool) -> None:
    """The thread that writes its logs waits for a reader, all samples are answered, and whoever
    ends or aborts the test waits for that thread."""
    with started(tmp_path, "accuracy", STAGES["accuracy"]) as run:
        make_unread(run, "accuracy", ACCURACY_LOG)
        pipe = os.open(run.run_dir.loadgen("accuracy") / ACCURACY_LOG, os.O_RDONLY | os.O_NONBLOCK)
        try:
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            until(run.is_there, 120)
            if signalled:
                until(lambda: is_full(pipe), 60)
                kill(run.head, signal.SIGTERM)
            how = ", and SIGTERM to the run" if signalled else ""
            found = run.ended(f"LoadGen never returns: its log takes nothing{how}", 200)
        finally:
            os.close(pipe)
    code = "cancelled" if signalled else "loadgen_hung"
    assert (found.exit_code, found.status, found.code) == (3, "failed", code)
    assert found.kept.startswith("verdict of performance, logs")
    table.append(found)


def is_full(pipe: int) -> bool:
    waiting = fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))
    return int.from_bytes(waiting, sys.byteorder) >= PIPE_BYTES // 2


@pytest.mark.parametrize("phase", MEASURING)
def test_loadgens_folder_is_full(tmp_path: Path, table: list[Outcome], phase: str) -> None:
    sets = (FASTER, *(STAGES["accuracy"] if phase == "accuracy" else SHORT))
    with (
        started(tmp_path, phase, sets, within=SAME_MOUNTS) as run,
        small_disk(run.run_dir.loadgen(phase), "16k"),
    ):
        found = run.ended("disk of LoadGen's logs full", 120)
    assert (found.exit_code, found.code) == (3, "os_error")
    table.append(found)


def test_loadgen_logs_an_error(tmp_path: Path, table: list[Outcome]) -> None:
    """An answer of one token has no time per output token."""
    one = ("generation.min_tokens=1", "generation.max_tokens=1")
    with started(tmp_path, "performance", (FASTER, *SHORT, *one)) as run:
        found = run.ended("LoadGen logs an error", 120)
        (phase,) = record.read(run.run_dir.record).phases
    assert (found.exit_code, found.status) == (1, "completed")
    assert "loadgen_errors" in [check.code for check in phase.verdict.reasons]
    table.append(found)


@pytest.fixture(scope="session")
def fake_clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library for LD_PRELOAD."""
    library = tmp_path_factory.mktemp("clock") / "fake_clock.so"
    source = Path(__file__).with_name("fake_clock.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return library


@pytest.mark.parametrize(
    ("stage", "hours"),
    [
        pytest.param("warm-up", 1, marks=pytest.mark.chaos),
        ("performance", 1),
        ("performance", -1),
        pytest.param("accuracy", -1, marks=pytest.mark.chaos),
    ],
)
def test_clock_is_set(
    tmp_path: Path, fake_clock: Path, table: list[Outcome], stage: str, hours: int
) -> None:
    file = tmp_path / "ahead"
    file.write_bytes(struct.pack("q", 0))
    env = {"LD_PRELOAD": str(fake_clock), "FAKE_CLOCK": str(file)}
    with running(tmp_path, stage, env=env) as run:
        with file.open("r+b") as ahead:
            ahead.write(struct.pack("q", 3600 * hours))
        found = run.ended(f"clock set {abs(hours)} h {'ahead' if hours > 0 else 'back'}", 90)
    # In the warm-up nothing measures with it; this one ends by its deadline.
    code = "warm_up" if stage == "warm-up" else "clock_set"
    assert (found.exit_code, found.code) == (3, code)
    table.append(found)


@pytest.mark.chaos
def test_record_of_a_killed_run_cut_in_half(tmp_path: Path, table: list[Outcome]) -> None:
    """No attempt continues from it, and none overwrites it."""
    with running(tmp_path, "accuracy") as run:
        kill(run.process.pid, signal.SIGKILL)
        kill(run.head, signal.SIGKILL)
        until(lambda: processes_of(run.run_dir.root) == [], 60)
        whole = run.run_dir.record.read_bytes()
        run.run_dir.record.write_bytes(whole[: len(whole) // 2])
        begin = time.monotonic()
        again = subprocess.run(
            [sys.executable, "-m", "sut.job", str(run.run_dir)],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
        took_s = round(time.monotonic() - begin, 1)
        assert again.returncode == 2 and "not a complete record" in again.stderr, again.stderr
        assert "Traceback" not in again.stderr
        assert run.run_dir.record.read_bytes() == whole[: len(whole) // 2]
    table.append(
        Outcome(
            "record of a killed run cut in half, then started again (refused)",
            "accuracy",
            again.returncode,
            "refused",
            "",
            took_s,
            "record as it was, logs",
        )
    )


DIED = "engine_died"
FRAMES = {
    "die": DIED,
    "dead": "engine_dead",
    "stall": "stall",
    "error": "request_failed",
    "garbage": "protocol_error",
    "truncate": "protocol_error",
    "unknown-id": "protocol_error",
    "oversize": "connection_lost",
    "duplicate": "protocol_error",
    "reorder": "protocol_error",
    "abort": "request_failed",
    "empty": "empty_output",
    "endless": "too_many_tokens",
    "forget": "sample_deadline",
    "foreign-token": "protocol_error",
    "reset-input": "connection_lost",
    "reset-output": "connection_lost",
}
AFTER = {"warm-up": 4, "performance": 40, "accuracy": 60}  # completed requests of the engine


@pytest.mark.chaos
@pytest.mark.parametrize("fault", FRAMES)
def test_engines_fault(tmp_path: Path, table: list[Outcome], fault: str) -> None:
    def case(stage: str) -> Outcome:
        sets = [f"engine.replay.faults=[{fault}@{AFTER[stage]}]", "site.timeouts.sample_s=10"]
        sets += STAGES["accuracy"] if stage == "accuracy" else ()
        with started(folder(tmp_path, stage), stage, sets) as run:
            found = run.ended(f"engine: `{fault}`", 90)
        codes = {FRAMES[fault]}
        if fault in ("stall", "forget") and stage == "warm-up":
            codes = {"warm_up"}
        if fault in ("dead", "oversize"):  # the engine exits at the same time
            codes.add(DIED)
        assert found.exit_code == 3 and found.code in codes
        return found

    table += at_once(AFTER, case)


# An engine of the embedded model on the CPU, whose start takes some ten seconds.
VLLM = (
    "scenarios.server.target_qps=2",
    "site.timeouts.ready_s=200",
    "site.timeouts.warmup_s=100",
    "site.timeouts.stall_s=10",
)


@pytest.mark.chaos
@pytest.mark.vllm
@pytest.mark.own_cache
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, DIED), (signal.SIGSTOP, "stall")], ids=["KILL", "STOP"]
)
def test_vllm(tmp_path: Path, table: list[Outcome], number: signal.Signals, code: str) -> None:
    vllm = {"config": "smollm2-135m-news", "within_s": 250}
    # A stopped process answers no heartbeat either, which ends the connection after 10 s.
    sets = (*VLLM, "site.timeouts.stall_s=5")
    with running(tmp_path, "performance", sets, **vllm) as run:
        kill(run.engine, number)
        how = "killed" if number is signal.SIGKILL else "stopped"
        found = run.ended(f"vLLM engine {how}", 60)
    assert (found.exit_code, found.code) == (3, code)
    table.append(found)


@pytest.mark.chaos
@pytest.mark.vllm
@pytest.mark.own_cache
@pytest.mark.timeout(900)
def test_vllm_worker_stopped(tmp_path: Path, table: list[Outcome]) -> None:
    """One of an engine's two worker processes; the engine core itself goes on."""
    sets = (
        *VLLM,
        "engine.pipeline_parallel_size=2",
        "engine.enforce_eager=false",
        "engine.extra_args=[-cc.mode=2, -cc.backend=eager]",
        "site.timeouts.ready_s=500",  # three processes, each of which imports vllm
    )
    vllm = {"config": "smollm2-135m-news", "within_s": 650}
    with running(tmp_path, "performance", sets, **vllm) as run:
        workers = psutil.Process(run.engine).children(recursive=True)
        named = [each for each in workers if "Worker" in " ".join(each.cmdline())]
        assert len(named) == 2, [each.cmdline() for each in workers]
        kill(named[1].pid, signal.SIGSTOP)
        found = run.ended("vLLM worker stopped", 90)
    assert (found.exit_code, found.code) == (3, "stall")
    table.append(found)


@pytest.mark.chaos
@pytest.mark.vllm
@pytest.mark.own_cache
@pytest.mark.timeout(900)
def test_vllm_returns(tmp_path: Path, table: list[Outcome]) -> None:
    """Its samples wait for it, so the test of some seconds cannot end before."""
    few = ("scenarios.server.min_duration_ms=15000", "scenarios.server.min_query_count=60")
    sets = (*VLLM, *few, "site.timeouts.sample_s=400")
    restart = ("--on-replica-loss", "restart")
    vllm = {"config": "smollm2-135m-news", "within_s": 250, "options": restart}
    with running(tmp_path, "performance", sets, **vllm) as run:
        kill(run.engine, signal.SIGKILL)
        found = run.ended("vLLM engine killed, with `--on-replica-loss restart`", 500)
        (phase,) = record.read(run.run_dir.record).phases
    assert (found.exit_code, found.status) == (1, "completed")
    (loss,) = phase.losses
    assert loss.code == DIED and loss.returned_s is not None
    assert phase.dispatcher is not None and phase.dispatcher.failed == 0
    assert "lost_replicas" in [reason.code for reason in phase.verdict.reasons]
    kept = f"{found.kept}; the engine returned after {loss.returned_s - loss.at_s:.0f} s"
    table.append(msgspec.structs.replace(found, kept=kept))


@pytest.mark.chaos
def test_second_attempt(tmp_path: Path, table: list[Outcome]) -> None:
    with running(tmp_path, "performance", SHORT) as run:
        second = subprocess.run(
            [sys.executable, "-m", "sut.job", str(run.run_dir)],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert second.returncode == 2, second.stdout + second.stderr
        found = run.ended("second run in the same folder (refused)", 100)
    assert found.status == "completed"
    table.append(found)


def signalled(cwd: Path, name: str, moment: float) -> None:
    """Start a run of some seconds and signal it ``moment`` seconds later. It ends soon, and what it
    leaves has a record or no folder; its verdict is none of a run that was ended."""
    cwd.mkdir()
    run = subprocess.Popen(
        [sys.executable, "-m", "sut.submit", *fast()],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    time.sleep(moment)
    number = AT_RANDOM[name]
    if "command" in name:
        kill(run.pid, number)
    elif name == "Ctrl-C" and run.poll() is None:
        os.killpg(run.pid, number)
    else:
        for line in processes_of(cwd):
            if "-m sut.run " in line:
                kill(int(line.partition(":")[0]), number)
    printed, _ = run.communicate(timeout=60)
    assert run.returncode in (0, 1, 3, 130, -number), printed
    for each in cwd.glob("runs/2*"):
        run_dir = RunDir(each)
        until(lambda run_dir=run_dir: attempts.has_record(run_dir), 30)
        until(lambda run_dir=run_dir: processes_of(run_dir.root) == [], 30)
        found = record.read(run_dir.record)
        assert (found.verdict is None) == (found.status != "completed")


AT_RANDOM = {
    "SIGTERM to the command": signal.SIGTERM,
    "Ctrl-C": signal.SIGINT,
    "SIGTERM to the run": signal.SIGTERM,
    "SIGUSR2 to the run": signal.SIGUSR2,
    "SIGKILL to the run": signal.SIGKILL,
}


@pytest.mark.chaos
def test_signal_at_a_random_moment(tmp_path: Path) -> None:
    seed = time.time_ns()
    print(f"seed {seed}")
    moments = random.Random(seed)
    cases = [(name, moments.uniform(0.0, 12.0)) for name in AT_RANDOM for _ in range(5)]
    with ThreadPoolExecutor(4) as pool:
        ends = [
            pool.submit(signalled, tmp_path / str(number), name, moment)
            for number, (name, moment) in enumerate(cases)
        ]
        for end in ends:
            end.result()
