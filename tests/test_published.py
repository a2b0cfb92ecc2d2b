"""A VALID result is ranked among the published ones of its benchmark and scenario, per accelerator,
with the labels that MLCommons asks for."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from handmade_logs import Value, broken, server, write
from loadgen_logs import smallest_valid
from records import PLAN, PLAN_OF_SMALLEST_VALID, completed, performance, render

from sut.errors import InputError
from sut.plan.benchmark import Scenario
from sut.plan.plan import Part, Replica
from sut.plan.site import Device
from sut.results import messaging, mllog, published, record
from sut.results.published import Standing, Subject
from sut.results.record import Record
from sut.rundir import RunDir
from sut.verdict import main as print_verdict

FILE = Path(published.__file__).with_name("published.csv")
ROWS = list(csv.DictReader(FILE.open(encoding="utf-8")))
SERVER = {
    "requested_server_ttft_latency": 2_000_000_000,
    "requested_server_tpot_latency": 100_000_000,
}
INTERACTIVE = {
    "requested_server_ttft_latency": 500_000_000,
    "requested_server_tpot_latency": 30_000_000,
}


def values(tokens_per_s: float, changes: Mapping[str, Value] | None = None) -> dict[str, Value]:
    return server() | {"result_completed_tokens_per_second": tokens_per_s} | dict(changes or {})


def offline(tokens_per_s: float) -> dict[str, Value]:
    return {"effective_scenario": "Offline", "result_tokens_per_second": tokens_per_s}


def rows(benchmark: str, scenario: str, *, accelerated: bool = True) -> list[dict[str, str]]:
    return [
        row
        for row in ROWS
        if (row["benchmark"], row["scenario"], row["division"]) == (benchmark, scenario, "closed")
        and (row["accelerators"] != "0") == accelerated
    ]


def rank(found: Standing) -> int:
    (mine,) = (place.rank for place in found.places if place.published is None)
    return mine


def h100s(num: int) -> Subject:
    return Subject(
        benchmark="llama3.1-8b", accelerators=num, accelerator="NVIDIA H100 80GB HBM3", nodes=1
    )


# The data.


def test_every_row_is_a_result() -> None:
    assert len(published.results()) == len(ROWS) == 669
    assert {each.benchmark for each in published.results()} == set(published.BENCHMARKS)
    assert {each.round for each in published.results()} == {"v5.1", "v6.0", "v6.1"}
    for each in published.results():
        assert each.result > 0 and each.nodes > 0 and each.organization and each.system
        assert bool(each.accelerator) == bool(each.accelerators)


def test_a_published_number_is_the_one_that_was_published() -> None:
    (found,) = (
        each.result
        for each in published.results()
        if (each.round, each.organization, each.benchmark, each.scenario, each.accelerators)
        == ("v5.1", "NVIDIA", "llama3.1-8b", "Interactive", 8)
    )
    assert found == 102_903  # result_completed_tokens_per_second of its log


# The rank.


@pytest.mark.parametrize("num", [1, 8, 72])
@pytest.mark.parametrize("per", [1.0, 1_500.0, 5_800.0, 12_000.0, 1e6])
def test_the_rank_counts_the_better_results_per_accelerator(num: int, per: float) -> None:
    found = published.standing(offline(per * num), h100s(num))
    others = rows("llama3.1-8b", "Offline")
    better = [row for row in others if float(row["result"]) / int(row["accelerators"]) > per]
    assert rank(found) == len(better) + 1
    assert found.num == len(others)
    assert found.unit == "tokens/s per accelerator" and found.metric == "tokens/s"


def test_a_result_equal_to_a_published_one_is_not_behind_it() -> None:
    row = rows("llama3.1-8b", "Offline")[10]
    num = int(row["accelerators"])
    found = published.standing(offline(float(row["result"])), h100s(num))
    mine = rank(found)
    next_place = next(place for place in found.places if place.rank == mine + 1)
    assert next_place.per_unit == float(row["result"]) / num


def test_shows_the_best_the_worst_the_nearest_and_the_same_chip() -> None:
    found = published.standing(offline(2_000.0), h100s(1))
    ranks = [place.rank for place in found.places]
    mine = rank(found)
    assert ranks == sorted(ranks) and ranks[0] == 1 and ranks[-1] == found.num + 1
    assert {mine - 2, mine - 1, mine, mine + 1, mine + 2} <= set(ranks)
    names = [place.published.accelerator for place in found.places if place.published]
    assert any("H100" in name for name in names)
    per_unit = [place.per_unit for place in found.places]
    assert per_unit == sorted(per_unit, reverse=True)


def test_without_accelerators_it_is_ranked_per_node() -> None:
    subject = Subject(benchmark="llama3.1-8b", accelerators=0, nodes=2)
    found = published.standing(offline(2_000.0), subject)
    others = rows("llama3.1-8b", "Offline", accelerated=False)
    assert found.num == len(others) and found.unit == "tokens/s per node"
    assert rank(found) == 1 + sum(float(row["result"]) > 1_000 for row in others)


def test_the_shorter_latency_is_the_better_one() -> None:
    subject = Subject(benchmark="llama3.1-8b-edge", accelerators=1)

    def of(latency_ms: float) -> Standing:
        key = "result_90.00_percentile_latency_ns"
        return published.standing(
            {"effective_scenario": "SingleStream", key: latency_ms * 1e6}, subject
        )

    (row,) = rows("llama3.1-8b-edge", "SingleStream")
    published_ms = float(row["result"])
    assert rank(of(published_ms - 1)) == 1 and rank(of(published_ms + 1)) == 2
    assert of(1).unit == "p90 of latency, ms"


@pytest.mark.parametrize(
    ("limits", "scenario", "name"),
    [
        (SERVER, None, "Server"),
        (INTERACTIVE, None, "Interactive"),
        (INTERACTIVE, Scenario.SERVER, "Server"),
        (INTERACTIVE, Scenario.INTERACTIVE, "Interactive"),
        (INTERACTIVE | {"requested_server_tpot_latency": 31_000_000}, None, "Server"),
    ],
)
def test_the_limits_tell_the_scenario(
    limits: dict[str, Value], scenario: Scenario | None, name: str
) -> None:
    found = published.standing(values(5_000.0, limits), h100s(1), scenario)
    assert found.scenario == name and found.num == len(rows("llama3.1-8b", name))


@pytest.mark.parametrize(
    ("limits", "scenario"),
    [
        (SERVER | {"requested_server_tpot_latency": 100_000_001}, None),
        (SERVER | {"requested_server_ttft_latency": 2_000_000_001}, Scenario.SERVER),
        (SERVER, Scenario.INTERACTIVE),
    ],
)
def test_easier_limits_are_not_comparable(
    limits: dict[str, Value], scenario: Scenario | None
) -> None:
    with pytest.raises(InputError, match="easier than MLPerf's"):
        published.standing(values(5_000.0, limits), h100s(1), scenario)


@pytest.mark.parametrize(
    ("name", "chip"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100-SXM-80GB", "H100"),
        ("NVIDIA A30", "A30"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA GB300", "GB300"),
        ("NVIDIA B300-SXM-270GB", "B300"),
        ("AMD Instinct MI355X 288GB HBM3e", "MI355X"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX PRO 6000"),
        ("Intel(R) Arc(TM) Pro B70", "B70"),
        ("", ""),
        ("NVIDIA Graphics Device", ""),
    ],
)
def test_finds_the_chip_in_a_name(name: str, chip: str) -> None:
    assert published.chip(name) == chip


# The command.

OPTIONS = ["--published", "--benchmark", "llama3.1-8b", "--accelerators", "8"]


def test_the_command_ranks_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, values(40_000.0))
    assert print_verdict([str(tmp_path), *OPTIONS]) == 0
    out = capsys.readouterr().out
    assert "tokens/s per accelerator: 5,000 (unverified), rank " in out
    assert "llama3.1-8b, Server, published in the closed division of MLPerf Inference v5.1" in out
    assert "this result (unverified)" in out
    for text in (messaging.UNVERIFIED, messaging.COMPARED, messaging.TRADEMARK):
        assert text in out
    assert "tokens/s per accelerator is a derived metric" in out
    best = published.standing(values(40_000.0), h100s(8)).places[0].published
    assert best is not None
    (row,) = (line for line in out.splitlines() if line.split()[:1] == ["1"])
    assert best.round in row and f"{best.organization}, {best.system}" in row


def test_the_command_prints_the_rank_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, values(40_000.0))
    assert print_verdict([str(tmp_path), *OPTIONS, "--json"]) == 0
    found = msgspec.convert(json.loads(capsys.readouterr().out)["published"], Standing)
    assert found == published.standing(
        mllog.read(tmp_path).values, Subject(benchmark="llama3.1-8b", accelerators=8)
    )


SHORT = {"effective_min_duration_ms": 500, "result_query_count": 10}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, ()),
        ({"effective_min_duration_ms": 599_999}, ()),  # it ran 800 s all the same
        (SHORT | {"effective_min_duration_ms": 600_000}, ()),  # LoadGen found it long enough
        (SHORT, ("the test ran 0.36 s, MLPerf's run at least 600 s",)),
    ],
)
def test_a_test_shorter_than_mlperfs_is_not_comparable(
    changes: dict[str, Value], why: tuple[str, ...]
) -> None:
    assert published.standing(values(40_000.0, changes), h100s(8)).not_comparable == why


@pytest.mark.parametrize(("num", "comparable"), [(13_367, False), (13_368, True)])
def test_an_offline_test_of_a_part_of_the_data_set_is_not_comparable(
    num: int, comparable: bool
) -> None:
    found = published.standing(
        offline(2_000.0) | {"generated_samples_per_query": num, "result_query_count": 1}, h100s(1)
    )
    why = "the test issued 13,367 samples, MLPerf's of Offline issue at least 13,368"
    assert found.not_comparable == (() if comparable else (why,))


def test_the_command_warns_before_it_ranks_a_short_log(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert print_verdict([str(smallest_valid()), *OPTIONS]) == 0
    out = capsys.readouterr().out
    warning = "Not comparable with published results: the test ran "
    assert 0 < out.index(warning) < out.index("would be rank ")


def test_an_invalid_result_has_no_rank(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, broken({"result_validity": "INVALID"}))
    assert print_verdict([str(tmp_path), *OPTIONS]) == 1
    assert "rank" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--published"], "neither its benchmark nor its accelerators"),
        (["--published", "--benchmark", "llama3.1-8b"], "neither its benchmark"),
        (["--benchmark", "llama3.1-8b"], "belong to --published"),
        (["--accelerators", "0"], "belong to --published"),
        ([*OPTIONS[:2], "lama3.1-8b", *OPTIONS[3:]], "(did you mean 'llama3.1-8b'?)"),
        ([*OPTIONS[:2], "resnet50", *OPTIONS[3:]], "known are gpt-oss-120b, llama2-70b-99.9"),
        ([*OPTIONS[:2], "llama3.1-8b-edge", *OPTIONS[3:]], "llama3.1-8b-edge, Server"),
    ],
)
def test_the_command_names_what_it_needs(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, server())
    assert print_verdict([str(tmp_path), *options]) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err


def run_folder(folder: Path, benchmark: str) -> Path:
    """A run's folder, on processors, with the smallest VALID test and its record."""
    run_dir = RunDir(folder)
    plan = msgspec.structs.replace(PLAN_OF_SMALLEST_VALID, benchmark=benchmark)
    shutil.copytree(smallest_valid(), run_dir.loadgen("performance"))
    run_dir.plan.write_bytes(msgspec.json.encode(plan))
    record.write(completed(performance(smallest_valid()), plan=plan), run_dir)
    return folder


def test_the_command_knows_a_runs_benchmark_and_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(run_folder(tmp_path, "llama3.1-8b"))
    print_verdict([run, "--published"])
    out = capsys.readouterr().out
    assert out.startswith("VALID") and "tokens/s per node: " in out
    because = "; ".join(PLAN_OF_SMALLEST_VALID.not_official_because)
    assert f"not comparable by MLPerf's rules: {because}" in out
    assert print_verdict([run, *OPTIONS]) == 2
    assert "a run's benchmark and accelerators are in its plan" in capsys.readouterr().err


def test_a_run_of_an_unpublished_benchmark_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(run_folder(tmp_path, "smollm2-135m-news"))
    assert print_verdict([run, "--published"]) == 2
    assert "no published results of 'smollm2-135m-news'" in capsys.readouterr().err


# The report.

ON_GPUS = msgspec.structs.replace(
    PLAN,
    benchmark="llama3.1-8b",
    scenario=Scenario.SERVER,
    device=Device.CUDA,
    replicas=tuple(
        Replica(index=i, parts=(Part(node=0, gpus=(2 * i, 2 * i + 1)),)) for i in (0, 1)
    ),
)


def test_a_plans_accelerators_are_those_of_its_replicas() -> None:
    subject = published.subject_of(ON_GPUS, "NVIDIA A30")
    assert (subject.accelerators, subject.accelerator) == (4, "NVIDIA A30")
    on_cpu = published.subject_of(msgspec.structs.replace(ON_GPUS, device=Device.CPU), "NVIDIA A30")
    assert (on_cpu.accelerators, on_cpu.accelerator) == (0, "")


def run_of(benchmark: str, **changes: object) -> Record:
    plan = msgspec.structs.replace(ON_GPUS, benchmark=benchmark)
    return completed(performance(smallest_valid()), plan=plan, **changes)


def test_a_report_has_the_rank_of_a_known_benchmark() -> None:
    text = render(run_of("llama3.1-8b"))
    assert "## Among published results" in text
    assert "this result (unverified)" in text and messaging.COMPARED in text
    assert "not comparable by MLPerf's rules" in text  # the plan is not official


def test_a_report_of_another_benchmark_has_no_rank() -> None:
    assert "Among published results" not in render(run_of("smollm2-135m-news"))


def test_a_report_of_an_invalid_run_has_no_rank() -> None:
    phase = performance(smallest_valid())
    invalid = msgspec.structs.replace(
        phase, verdict=msgspec.structs.replace(phase.verdict, verdict="INVALID")
    )
    assert "Among published results" not in render(completed(invalid, plan=ON_GPUS))
