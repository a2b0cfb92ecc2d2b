"""samples.csv contains every completed sample once, with its times, even if the phase failed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from cli import fast, latest, set_arguments, submit
from replay import MAX_TOKENS, served

from sut.errors import InputError
from sut.results import sample_log
from sut.rundir import RunDir


def read(path: Path) -> sample_log.SampleLog:
    log = sample_log.read(path)
    assert log is not None
    return log


def test_reads_the_dispatchers_samples_to_the_microsecond(tmp_path: Path) -> None:
    with served(20, 2) as dispatcher:
        dispatcher.generate([3, 4], 0, 30.0)
        dispatcher.reset_stats()
        dispatcher.generate(range(20), 1, 30.0)
        columns, stats = dispatcher.samples(), dispatcher.stats()
    with pytest.raises(FileNotFoundError):  # the folder of a run that was removed
        sample_log.write(tmp_path / "gone" / "samples.csv", columns)
    assert not (tmp_path / "gone").exists()
    sample_log.write(tmp_path / "samples.csv", columns)
    log = read(tmp_path / "samples.csv")
    assert sorted(log.sample_index) == list(range(20))
    assert set(log.replica) == {1} and set(log.prompt_tokens) == {3}
    assert set(log.output_tokens) == {MAX_TOKENS}
    for row in range(20):
        assert log.completed_ms[row] == round(columns["completed_ns"][row] / 1e6, 3)
        times = (log.issued_ms, log.admitted_ms, log.first_token_ms, log.completed_ms)
        moments = [column[row] for column in times]
        assert moments == sorted(moments) and moments[0] >= 0
    longest = max(log.ttft_ms(row) for row in range(20))
    assert longest == pytest.approx(stats.ttft_ns["max"] / 1e6, abs=0.002)
    assert list(log.completed_ms) == sorted(log.completed_ms)


def test_a_run_writes_one_row_a_sample(tmp_path: Path) -> None:
    submit(tmp_path, *fast(), "--mode", "all", "--set", "site.num_replicas=2")
    for phase in latest(tmp_path).phases:
        log = read(RunDir(tmp_path / "runs/latest").samples(phase.name))
        assert phase.dispatcher is not None
        assert len(log) == phase.dispatcher.completed
        work = {replica.index: replica.samples for replica in phase.replicas}
        assert Counter(log.replica) == work
        assert sum(log.output_tokens) == phase.dispatcher.output_tokens


def test_a_failed_phase_keeps_its_completed_samples(tmp_path: Path) -> None:
    faults = set_arguments(['engine.replay.faults=["error@100"]'])
    assert submit(tmp_path, *fast(), *faults).returncode == 3
    log = read(RunDir(tmp_path / "runs/latest").samples("performance"))
    # Warm-up samples are complete and not in it.
    assert 0 < len(log) < 100


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the first line is not"),
        ("a,b\n1,2\n", "the first line is not"),
        (sample_log.HEADER + "\n0,0,3,8,0.1,0.2,0.3\n", ":2: damaged"),
        (sample_log.HEADER + "\n0,0,3,8,0.1,0.2,0.3,x\n", ":2: damaged"),
        (sample_log.HEADER + "\n0,0,3,8.5,0.1,0.2,0.3,0.4\n", ":2: damaged"),
    ],
)
def test_refuses_a_damaged_file(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "samples.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        sample_log.read(path)


def test_a_missing_file_is_no_log(tmp_path: Path) -> None:
    assert sample_log.read(tmp_path / "samples.csv") is None


def test_a_single_token_has_no_tpot(tmp_path: Path) -> None:
    path = tmp_path / "samples.csv"
    path.write_text(sample_log.HEADER + "\n0,0,3,1,1,2,5,5\n1,0,3,5,1,2,5,25\n")
    log = read(path)
    assert (log.ttft_ms(0), log.tpot_ms(0), log.tpot_ms(1)) == (4, None, 5)
