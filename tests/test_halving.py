"""The best of several engine settings, by successive halving."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from cli import set_arguments, submit

from sut.results import halving
from sut.results.halving import Measurement


def searched(
    speeds: list[float], deviation: float = 0.0, failing: int = -1, seed: int = 5
) -> list[Measurement]:
    """All measurements of a search among settings with these true figures."""
    chance, measured = random.Random(seed), list[Measurement]()
    while True:
        number, todo = halving.to_measure(len(speeds), measured)
        if not todo:
            return measured
        setting = todo[0]
        new = Measurement(setting=setting, round=number, run_dir="", job_id="")
        if setting == failing:
            measured.append(_with(new, why="out of memory"))
        else:
            measured.append(_with(new, value=speeds[setting] * chance.lognormvariate(0, deviation)))


def _with(new: Measurement, *, value: float | None = None, why: str = "") -> Measurement:
    return Measurement(
        setting=new.setting, round=new.round, run_dir="", job_id="", value=value, why=why
    )


def test_each_round_keeps_the_better_half() -> None:
    measured = searched([5.0, 9.0, 7.0, 1.0, 8.0, 2.0])
    rounds = [[m.setting for m in measured if m.round == number] for number in range(4)]
    assert rounds == [[0, 1, 2, 3, 4, 5], [1, 4, 2], [1, 4, 4, 1], []]
    found = halving.result(6, measured)
    assert found is not None and (found.best, found.second) == (1, 4)
    assert found.margin == pytest.approx(9 / 8 - 1) and found.is_certain


@pytest.mark.parametrize(
    ("faster", "least", "most"), [(1.0, 0, 15), (1.02, 0, 50), (2.0, 195, 200)]
)
def test_a_margin_within_noise_is_rarely_certain(faster: float, least: int, most: int) -> None:
    """Of 200 searches with a noise of 5%: by a 95% interval some 10 with equal settings."""
    found = [
        halving.result(3, searched([10.0, faster * 10.0, 3.0], deviation=0.05, seed=seed))
        for seed in range(200)
    ]
    assert least <= sum(each is not None and each.is_certain for each in found) <= most
    assert all(each is not None and each.best == 1 for each in found) or faster < 2


def test_a_setting_whose_engines_fail_is_left_out() -> None:
    measured = searched([5.0, 9.0, 7.0], failing=1)
    assert [m.setting for m in measured if m.round == 0] == [0, 1, 2]
    found = halving.result(3, measured)
    assert found is not None and (found.best, found.second) == (2, 0)
    assert [m.setting for m in measured].count(1) == 1
    assert halving.result(1, searched([5.0], failing=0)) is None
    alone = halving.result(2, searched([5.0, 9.0], failing=1))
    assert alone is not None and alone.best == 0 and alone.margin is None


def test_finds_the_known_best_setting_and_continues(tmp_path: Path) -> None:
    """A step takes 20 ms for any number of sequences, so more at once are faster."""
    sets = ["engine.replay.step_base_us=20000", "engine.replay.step_per_sequence_us=0"]
    options = ["--config", "replay", "--scenario", "offline", *set_arguments(sets), "--json"]
    sweep = ["--sweep", "engine.max_num_seqs=4,32", "--seconds", "1"]
    run = submit(tmp_path, *options, *sweep, command="tune", timeout_s=280)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["best"] == {"engine.max_num_seqs": 32} and found["result"]["margin"] > 1
    again = submit(tmp_path, "--resume", found["folder"], command="tune")
    assert again.returncode == 0, again.stderr
    assert "--set engine.max_num_seqs=32" in again.stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--sweep", "engine.dtype=a,b"], "only engine.max_num_seqs and"),
        (["--seconds", "5"], "need --sweep engine.KEY"),
        (["--sweep", "engine.max_num_seqs=1,2", "--no-wait"], "--no-wait cannot be combined"),
        (["--sweep", "engine.max_num_seqs=1", "--sweep", "engine.max_num_seqs=2"], "given twice"),
        (["--config", "replay", "--resume", "nowhere"], "--config cannot be combined with"),
        (["--resume", "nowhere"], "no search of engine settings found"),
    ],
)
def test_refuses_what_is_no_search(tmp_path: Path, arguments: list[str], text: str) -> None:
    run = submit(tmp_path, *arguments, command="tune")
    assert run.returncode == 2 and text in run.stderr and "Traceback" not in run.stderr
    assert not (tmp_path / "runs").exists()
