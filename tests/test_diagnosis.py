"""What is shown of a failure's log: a known cause, or its last error lines."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from cli import ROOT, environment, fast, latest, submit
from failing_logs import HEALTHY, LOGS
from records import failed
from rich.console import Console

from sut.plan import keys
from sut.report.summary import Message, summary
from sut.results import diagnosis
from sut.results.diagnosis import known_failures
from sut.results.record import Failure
from sut.run.failures import KILLED
from sut.rundir import RunDir
from sut.watch.frame import frame
from sut.watch.state import RunState, Shown
from tools import troubleshooting

OUT_OF_MEMORY = next(text for name, text in LOGS if name == "gpu_memory")


def of_text(folder: Path, *texts: str) -> diagnosis.Diagnosis:
    logs = [folder / f"{i}.log" for i in range(len(texts))]
    for log, text in zip(logs, texts, strict=True):
        log.write_text(text)
    return diagnosis.of(*logs)


# Known failures.


@pytest.mark.parametrize(("name", "text"), LOGS, ids=[f"{n}-{i}" for i, (n, _) in enumerate(LOGS)])
def test_finds_a_known_failure(tmp_path: Path, name: str, text: str) -> None:
    shown, known = of_text(tmp_path, HEALTHY + text), known_failures()[name]
    assert shown.known == known
    assert shown.lines and all(re.search(known.pattern, line) for line in shown.lines)
    assert shown.message("replica 0 failed").startswith(f"replica 0 failed: {known.cause}\nfrom ")
    assert str(shown.error("x", code="c", hint="otherwise")).endswith(f"\nhint: {known.remedy}")


def alternatives(pattern: str) -> Iterator[str]:
    """The parts of a pattern between bars outside of parentheses."""
    depth, part = 0, ""
    for char in re.sub(r"\\.", lambda escaped: escaped[0].replace("|", "\0"), pattern):
        depth += {"(": 1, ")": -1}.get(char, 0)
        if char == "|" and depth == 0:
            yield part
            part = ""
        else:
            part += char
    yield part


def test_every_alternative_of_a_pattern_has_a_log() -> None:
    assert {name for name, _ in LOGS} == set(known_failures())
    for name, known in known_failures().items():
        own = [text for each, text in LOGS if each == name]
        flags = "(?i)" if known.pattern.startswith("(?i)") else ""
        for part in alternatives(
            known.pattern.removeprefix("(?i)").replace(r"\(", r"[(]").replace(r"\)", "[)]")
        ):
            part = part.replace("\0", "|")
            assert any(re.search(flags + part, text, re.MULTILINE) for text in own), (name, part)


@pytest.mark.parametrize("text", [HEALTHY, "", "Killed the other process\n"])
def test_a_log_without_a_known_failure_has_none(tmp_path: Path, text: str) -> None:
    assert of_text(tmp_path, text).known is None


def test_remedies_name_keys_that_exist() -> None:
    names = {key.name for key in keys.all_keys()}
    for name, known in known_failures().items():
        for path in re.findall(r"\b((?:site|engine)(?:\.[a-z_]+)+)", known.remedy):
            assert path in names, (name, path)
        assert known.source.startswith("https://")


def test_the_page_has_the_table() -> None:
    page = troubleshooting.PAGE.read_text()
    assert page == troubleshooting.with_table(page), "run python -m tools.troubleshooting"


def test_the_cause_can_be_in_the_log_of_another_part(tmp_path: Path) -> None:
    timeout = next(text for name, text in LOGS if name == "rendezvous_timeout")
    shown = of_text(tmp_path, timeout, OUT_OF_MEMORY)
    assert shown.known == known_failures()["gpu_memory"] and shown.log.name == "1.log"
    assert of_text(tmp_path, timeout, HEALTHY).known == known_failures()["rendezvous_timeout"]


def test_an_earlier_attempt_is_not_the_cause(tmp_path: Path) -> None:
    preempted = next(text for name, text in LOGS if name == "preempted")
    start = "submitit INFO (2026-11-24 06:40:31,519) - Starting with JobEnvironment(job_id=4711)\n"
    shown = of_text(tmp_path, f"{preempted}{start}ImportError: no module\n")
    assert shown.known is None and shown.lines == ("ImportError: no module",)
    assert of_text(tmp_path, preempted).known == known_failures()["preempted"]


# Mistakes that the installed libraries report, without a GPU, an engine or a network.
MISTAKES = {
    "port_in_use": "TCPStore('127.0.0.1', TAKEN.getsockname()[1], 1, True, timeout=SECOND)",
    "rendezvous_timeout": "TCPStore('127.0.0.1', 0, 2, True, timeout=SECOND)",
    "host_memory": "torch.empty(10**15)",
    "model_incomplete": "safe_open(FOLDER / 'model.safetensors', 'pt')",
    "model_missing": "AutoConfig.from_pretrained(FOLDER / 'empty')",
    "model_unsupported": "AutoConfig.from_pretrained(FOLDER / 'odd')",
}
PROGRAM = """
import datetime, json, pathlib, socket, sys, traceback
import torch
from safetensors import safe_open
from torch.distributed import TCPStore
from transformers import AutoConfig
FOLDER, SECOND = pathlib.Path(sys.argv[1]), datetime.timedelta(seconds=1)
TAKEN = socket.socket()
TAKEN.bind(("127.0.0.1", 0))
TAKEN.listen()
for name, mistake in json.loads(sys.argv[2]).items():
    try:
        eval(mistake)
    except Exception:
        (FOLDER / f"{name}.log").write_text(traceback.format_exc())
"""


def test_knows_the_errors_of_the_installed_libraries(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    for name, config in {"empty": "{}", "odd": '{"model_type": "odd"}'}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(config)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), json.dumps(MISTAKES)]
    done = subprocess.run(
        command, env=environment(HF_HUB_OFFLINE="1"), capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    for name in MISTAKES:
        shown = diagnosis.of(tmp_path / f"{name}.log")
        assert shown.known == known_failures()[name], (name, shown.lines)


# Error lines.


def test_an_unknown_failure_shows_its_last_error_lines(tmp_path: Path) -> None:
    text = OUT_OF_MEMORY.replace("CUDA out of memory. Tried to allocate", "new words:")
    text = re.sub(r" 224.00 MiB.*", " 224 MiB", text)
    shown = of_text(tmp_path, HEALTHY + text + "INFO 11-24 05:41:14 [x.py:1] bye\n")
    assert shown.known is None and shown.what == "last error lines of"
    assert [line.rpartition("] ")[2].rpartition("pid=104) ")[2] for line in shown.lines] == [
        "EngineCore failed to start.",
        "torch.OutOfMemoryError: new words: 224 MiB",
        "RuntimeError: Engine core initialization failed. See root cause above. "
        "Failed core proc(s): {}",
    ]


def test_a_traceback_shows_where_it_ended_and_its_whole_message(tmp_path: Path) -> None:
    text = """\
Traceback (most recent call last):
  File "/opt/vllm/a.py", line 1, in f
    g()
    ~^^
  File "/opt/vllm/b.py", line 2, in g
    raise ValidationError(
    ^^^^^^
pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, Invalid repository ID or local directory specified: '/data'
    For further information visit https://errors.pydantic.dev
ready to exit
"""
    lines = text.splitlines()
    assert of_text(tmp_path, text).lines == (*lines[4:6], *lines[7:10])


def test_shows_each_error_once_and_the_last_ones(tmp_path: Path) -> None:
    level = "ERROR 11-24 05:41:12 [core.py:1]"
    chained = f"{level} During handling of the above exception, another exception occurred:"
    text = f"ValueError: a\n{chained}\nKeyError: b\n{level} ValueError: a\n"
    assert of_text(tmp_path, text).lines == ("KeyError: b", f"{level} ValueError: a")
    many = [f"ValueError: {i}" for i in range(40)]
    assert of_text(tmp_path, "\n".join(many)).lines == tuple(many[-diagnosis.NUM_LINES :])


def test_shows_the_line_of_a_known_failure_once(tmp_path: Path) -> None:
    lines = of_text(tmp_path, OUT_OF_MEMORY).lines
    assert len(lines) == 1 and lines[0].startswith("(EngineCore pid=104) ERROR 11-24")


def test_a_crash_without_python_is_an_error(tmp_path: Path) -> None:
    crash = """\
terminate called after throwing an instance of 'c10::Error'
  what():  CUDA error: misaligned address"""
    assert of_text(tmp_path, f"{HEALTHY}{crash}\n").lines == tuple(crash.splitlines())


def test_a_log_without_errors_shows_its_end(tmp_path: Path) -> None:
    shown = of_text(tmp_path, HEALTHY)
    assert shown.what == "end of" and shown.lines == tuple(HEALTHY.splitlines())
    assert of_text(tmp_path, "", "").lines == ("(empty)",)
    assert diagnosis.of(tmp_path / "absent.log").lines == ("(empty)",)


def test_shows_neither_control_characters_nor_endless_lines(tmp_path: Path) -> None:
    controls = "50%\r\x1b[2K\x1b]0;title\x07\x1b[1;36m"
    text = f"{controls}(EngineCore pid=1)\x1b[0;0m ValueError: {'x' * 9999}\n"
    shown = of_text(tmp_path, text)
    (line,) = shown.lines
    assert "(EngineCore pid=1) ValueError: xx" in line and line.isprintable()
    assert len(line) == diagnosis.WIDTH and line.endswith("...")


def test_a_line_of_a_log_is_never_taken_for_ours(tmp_path: Path) -> None:
    shown = of_text(tmp_path, "error: first\n\nValueError: second\n  hint: rm -rf /\nhint: Error\n")
    message = Message.of(str(shown.error("replica 0 failed", code="c", hint="ours")))
    assert (message.first, message.hint) == ("replica 0 failed", "ours")
    heading, *lines = message.log
    assert heading == f"last error lines of {tmp_path / '0.log'}:"
    assert lines == ["error: first", "ValueError: second", "  hint: rm -rf /", "hint: Error"]


# Where they are shown.


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the package whose replay engine prints ``engine.log`` beside it, and exits."""
    copy = tmp_path / "checkout"
    shutil.copytree(ROOT / "sut", copy / "sut")
    (copy / "configs").symlink_to(ROOT / "configs")
    engine = copy / "sut" / "replay_engine"
    engine.unlink()
    engine.write_text('#!/bin/sh\ncat "$(dirname "$0")/engine.log"\nexit 1\n')
    engine.chmod(0o755)
    return copy


def test_an_engines_known_failure_is_shown_everywhere(tmp_path: Path, checkout: Path) -> None:
    (checkout / "sut" / "engine.log").write_text(HEALTHY + OUT_OF_MEMORY)
    env = environment(PYTHONPATH=str(checkout))
    run = submit(tmp_path, *fast(), env=env)
    known, found = known_failures()["gpu_memory"], latest(tmp_path)
    assert run.returncode == 3 and found.failure is not None and found.failure.replica == 0
    assert found.failure.code == "engine_died"
    assert found.failure.first_line == f"replica 0 exited with code 1: {known.cause}"
    run_dir = RunDir(tmp_path / "runs" / "latest")
    judged = submit(tmp_path, "latest", command="verdict")
    assert judged.returncode == 2
    for text in (run.stdout, run_dir.report.read_text(), judged.stderr):
        assert f"replica 0 exited with code 1: {known.cause}" in text
        assert f"from {run_dir.replica_log(0)}:" in text
        assert "Tried to allocate 224.00 MiB" in text
        assert "lower engine.max_num_seqs or engine.max_num_batched_tokens" in text
    assert "Tried to allocate 224.00 MiB" in run_dir.report_html.read_text()


def test_an_engines_unknown_failure_shows_its_errors(tmp_path: Path, checkout: Path) -> None:
    log = f"{HEALTHY}ValueError: no known cause\n" + "INFO 11-24 05:41:14 [x.py:1] bye\n" * 20
    (checkout / "sut" / "engine.log").write_text(log)
    run = submit(tmp_path, *fast(), env=environment(PYTHONPATH=str(checkout)))
    assert run.returncode == 3
    assert "| ValueError: no known cause" in run.stdout and "bye" not in run.stdout


def test_a_killed_engines_error_names_the_usual_reason(tmp_path: Path, checkout: Path) -> None:
    (checkout / "sut" / "replay_engine").write_text("#!/bin/sh\nkill -KILL $$\n")
    run = submit(tmp_path, *fast(), env=environment(PYTHONPATH=str(checkout)))
    assert "engine_died: replica 0 was killed by signal 9\n" in run.stdout
    assert f"hint      {KILLED}" in run.stdout


def test_slurms_refusal_has_a_remedy(tmp_path: Path) -> None:
    refusal = next(text for name, text in LOGS if name == "slurm_account")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sbatch", "srun", "squeue"):
        (programs / name).write_text(f"#!/bin/sh\necho '{refusal}' >&2\nexit 1\n")
        (programs / name).chmod(0o755)
    site = tmp_path / "site.yaml"
    site.write_text(
        f"name: strict\ndevice: cpu\nnodes: [{{name: {socket.gethostname()}}}]\ninterface: lo\n"
        f"run_root: {tmp_path / 'runs'}\ncache: {tmp_path / 'cache'}\nslurm: {{account: nobody}}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "sut.submit", "--site", str(site), *fast()],
        cwd=tmp_path,
        env=environment(PATH=f"{programs}:/usr/bin:/bin"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 3, done.stderr
    assert "Invalid account or account/partition combination specified" in done.stderr
    assert f"hint: {known_failures()['slurm_account'].remedy}" in done.stderr


STATE = RunState(
    run="/home/somebody/with/a/long/path/runs/20261124T054031Z-replay-server-smoke",
    benchmark="replay",
    scenario="server",
    mode="performance",
    preset="smoke",
    site="jw",
    state="finished",
    job=None,
    t_s=None,
    step="",
    silent_s=None,
    unheard_s=0.0,
    stage="",
    stage_s=None,
    step_s=None,
    usual_s=None,
    left_s=None,
    phases=(),
)


def drawn(**changes: object) -> str:
    console = Console(width=80, force_terminal=False)
    with console.capture() as capture:
        console.print(frame(msgspec.structs.replace(STATE, **changes)))
    return capture.get()


def test_a_path_in_the_run_is_not_broken_by_a_narrow_terminal() -> None:
    failure = f"log of replica 0 not written ({STATE.run}/logs/replica-0.log): Input/output error"
    assert "(logs/replica-0.log)" in drawn(status="failed", failure=failure)
    shown = Shown(
        log=f"{STATE.run}/slurm/4711_0_log.out", lines=("FATAL:   x",), cause="y", hint="do z"
    )
    lost = drawn(state="lost", why="job 4711 on jw2 is FAILED", shown=shown)
    assert "ended without a record: job 4711 on jw2 is FAILED: y" in lost
    assert "\nslurm/4711_0_log.out:\nFATAL:   x\nhint: do z\n" in lost


def test_a_failures_first_line_has_no_path(tmp_path: Path) -> None:
    shown = of_text(tmp_path, OUT_OF_MEMORY)
    text = str(shown.error("replica 0 exited with code 1", code="engine_died"))
    record = failed(Failure(code="engine_died", message=text, replica=0))
    assert record.failure is not None and "/" not in record.failure.first_line
    assert f"            | from {shown.log}:\n" in summary(record, RunDir(tmp_path))
