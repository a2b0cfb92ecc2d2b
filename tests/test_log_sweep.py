"""The sweep over a results repository reports each log on which we and LoadGen differ."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from handmade_logs import Value, broken, server, write

from benchmarks import log_sweep
from sut.results import mllog

ACCURACY = {"effective_test_mode": "AccuracyOnly"}
INVALID = {"result_validity": "INVALID", "result_min_duration_met": False}


def repository(folder: Path, logs: Mapping[str, Mapping[str, Value]]) -> Path:
    """A git repository of detail logs, each by its folder, with LoadGen's summary."""
    for name, values in logs.items():
        where = write(folder / name, {k: v for k, v in values.items() if k != "summary"})
        word = values.get("summary", values["result_validity"])
        (where / "mlperf_log_summary.txt").write_text(f"SUT name : x\nResult is : {word}\n")
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for command in (("init", "-q"), ("add", "."), (*identity, "commit", "-q", "-m", "logs")):
        subprocess.run(["git", "-C", str(folder), *command], check=True)
    return folder / ".git"


def sweep(git_dir: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str]:
    code = log_sweep.main([str(git_dir), *options])
    return code, capsys.readouterr().out


def test_agreement_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs = {
        "closed/a/performance/run_1": server(),
        "closed/b/performance/run_1": broken(INVALID),
        "closed/b/accuracy": broken(ACCURACY),
        "open/c/performance/run 1": server("v5.1"),
    }
    code, out = sweep(repository(tmp_path, logs), capsys)
    assert code == 0
    assert "4 detail logs judged, 0 listed and absent" in out
    assert "2  PerformanceOnly, VALID, VALID -> VALID" in out
    assert "1  PerformanceOnly, INVALID, INVALID -> INVALID" in out
    assert "1  AccuracyOnly, VALID, VALID -> refused" in out
    assert out.rstrip().endswith("problems:\n  none")
    code, out = sweep(tmp_path / ".git", capsys, "--under", "open")
    assert code == 0 and "1 detail logs judged" in out


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"summary": "INVALID"}, "VALID, and LoadGen calls it INVALID"),
        ({"result_min_duration_met": False}, "INVALID, and LoadGen calls it VALID"),
        ({"result_query_count": "many"}, "refused, and LoadGen has a result"),
    ],
)
def test_a_difference_is_named(
    changes: dict[str, Value], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    git_dir = repository(tmp_path, {"good": server(), "bad/run_1": broken(changes)})
    code, out = sweep(git_dir, capsys)
    assert code == 1
    assert f"1  {problem}\n          bad/run_1/{mllog.FILE_NAME}" in out.partition("problems:")[2]


def test_a_traceback_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(log: object) -> None:
        raise ZeroDivisionError

    git_dir = repository(tmp_path / "logs", {"run_1": server()})
    monkeypatch.setattr("sut.results.rules.of_loadgen", fails)
    (path,) = log_sweep.detail_logs(git_dir, "")
    (judged,) = log_sweep.judge_all(git_dir, [path])
    assert judged.found == judged.problem == "traceback"
