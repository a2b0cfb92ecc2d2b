"""LoadGen's detail log is read as LoadGen wrote it, or refused."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from handmade_logs import SEEDS, Value, server, write
from hypothesis import given, settings
from hypothesis import strategies as st
from loadgen_logs import make, smallest_valid, ten_queries, with_value

from sut.errors import InputError
from sut.results import mllog
from sut.verdict import main as print_verdict


def detail(folder: Path) -> Path:
    return folder / mllog.FILE_NAME


def test_reads_loadgens_values() -> None:
    log = mllog.read(ten_queries())
    assert log.scenario == "Server"
    assert log.mode == "PerformanceOnly"
    assert log.token_latencies
    assert log.count("result_query_count") == 10
    assert log.flag("result_min_duration_met") is False
    assert log.count("effective_schedule_rng_seed") == 16159082839903944936
    assert "loaded_qsl_set" not in log.values  # a list, as long as the data set


def test_reads_an_error_with_its_line() -> None:
    log = mllog.read(ten_queries())
    (error,) = log.errors
    line = detail(ten_queries()).read_text().splitlines()[error.line - 1]
    assert error.message in line and '"is_error": true' in line
    assert log.num_errors == 1


def test_number_that_is_not_finite_is_none(tmp_path: Path) -> None:
    conf = {"target_qps": 50, "max_query_count": 1}
    folder = make(tmp_path / "one", user_conf=conf)
    assert "nan" in detail(folder).read_text().lower()  # LoadGen divides zero by zero
    assert mllog.read(folder).number("result_scheduled_samples_per_sec") is None


def test_accuracy_log_is_complete_without_results(tmp_path: Path) -> None:
    folder = make(tmp_path / "accuracy", mode="AccuracyOnly", scenario="Offline")
    assert mllog.read(folder).mode == "AccuracyOnly"


def without(key: str) -> Callable[[str], str]:
    return lambda text: "".join(
        line for line in text.splitlines(keepends=True) if f'"key": "{key}' not in line
    )


DAMAGE: dict[str, tuple[Callable[[str], str], str]] = {
    "empty": (lambda text: "", "empty"),
    "blank": (lambda text: "\n\n", "empty"),
    "of another program": (lambda text: "hello\n" * 9, "not a LoadGen detail log"),
    "of MLPerf Training": (
        lambda text: ':::MLLOG {"key": "seed", "value": 1, "metadata": {"is_error": false}}\n',
        "no LoadGen settings",
    ),
    "aborted": (
        lambda text: text[: text.index(':::MLLOG {"key": "result_validity"')],
        "did not finish",
    ),
    "without its last lines": (without("num_errors"), "num_errors"),
    "without its limits": (without("requested_server_ttft"), "requested_server_ttft_latency"),
    "truncated within a line": (lambda text: text[:-100], "damaged or truncated"),
    "two in one file": (lambda text: text + text, "more than one test"),
    "with a foreign line": (lambda text: text + "Killed\n", "damaged or truncated"),
    "with a line of zero bytes": (lambda text: text + "\0" * 64 + "\n", "damaged or truncated"),
    "with a word for a number": (
        with_value("result_query_count", "many"),
        "'result_query_count' should be",
    ),
    "with a number that is too large": (
        with_value("result_query_count", 10**400),
        "more than 64 bits",
    ),
    "with an invalid percentile": (
        with_value("effective_target_latency_percentile", 1.0),
        "between 0 and 1",
    ),
    "with an unknown validity": (
        with_value("result_validity", "PERHAPS"),
        "'result_validity' should be VALID or INVALID",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_gives_no_verdict_on_a_log_that_is(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, words = DAMAGE[damage]
    detail(tmp_path).write_text(change(detail(smallest_valid()).read_text()))
    assert print_verdict([str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err and str(detail(tmp_path)) in err


def test_names_a_damaged_line_by_number(tmp_path: Path) -> None:
    lines = detail(smallest_valid()).read_text().splitlines()
    lines[6] = lines[6][:-3]
    detail(tmp_path).write_text("\n".join(lines))
    with pytest.raises(InputError, match=rf"damaged or truncated .*{mllog.FILE_NAME}:7\)"):
        mllog.read(tmp_path)


def test_names_a_missing_log(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read the LoadGen log .*mlperf_log_detail\.txt"):
        mllog.read(tmp_path)


@given(st.floats(0, 1, exclude_max=True))
@settings(max_examples=60)
def test_refuses_a_log_truncated_anywhere(where: float) -> None:
    whole = detail(smallest_valid()).read_bytes().rstrip()
    truncated = detail(smallest_valid()).with_name("truncated.txt")
    truncated.write_bytes(whole[: int(where * len(whole))])
    with pytest.raises(InputError):
        mllog.read(truncated)


@pytest.mark.parametrize("name", SEEDS)
@given(st.integers(0, 60))
@settings(max_examples=20)
def test_refuses_any_rounds_log_truncated_after_any_line(name: str, num_lines: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = detail(write(Path(folder), server(name)))
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[: min(num_lines, len(lines) - 1)]))
        with pytest.raises(InputError):
            mllog.read(path)


NUMBERS = st.integers(-1, 3_000_000_000) | st.floats(allow_nan=False) | st.booleans() | st.text()


@given(st.dictionaries(st.sampled_from(sorted(server())), NUMBERS))
@settings(max_examples=150)
def test_never_overrules_an_invalid_of_loadgen(changes: dict[str, Value]) -> None:
    values = server() | changes | {"result_validity": "INVALID"}
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), values)
        assert print_verdict([folder]) in (1, 2)


@given(st.dictionaries(st.sampled_from(sorted(server())), NUMBERS))
@settings(max_examples=150)
def test_foreign_value_gives_a_verdict_or_an_error(
    changes: dict[str, Value],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), server() | changes)
        assert print_verdict([folder]) in (0, 1, 2)


@given(st.floats(0, 1))
@settings(max_examples=60)
def test_reads_a_log_that_is_still_written(where: float) -> None:
    whole = mllog.read(smallest_valid())
    content = detail(smallest_valid()).read_bytes()
    part = detail(smallest_valid()).with_name("part.txt")
    part.write_bytes(content[: int(where * len(content))])
    so_far = mllog.read_so_far(part)
    assert so_far is not None and so_far.values.keys() <= whole.values.keys()
    assert mllog.read_so_far(part.with_name("missing.txt")) is None
