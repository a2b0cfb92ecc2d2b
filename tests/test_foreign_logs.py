"""Logs of other harnesses and systems, as LoadGen writes them there: strings that it does not
escape, names with a date, errors from before the log, and modes that have no verdict."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from handmade_logs import broken, line, server, write
from hypothesis import given, settings
from hypothesis import strategies as st
from loadgen_logs import SMALLEST_VALID, make, smallest_valid, ten_queries, with_value

from sut.results import log_lines, mllog
from sut.verdict import main as print_verdict

MULTIPLE = "Multiple conf files are used. This is not valid for official submission."


def changed(folder: Path, change: Callable[[str], str], log: Path | None = None) -> Path:
    """A copy of the smallest VALID log, or ``log``, with ``change`` made to its text."""
    text = ((log or smallest_valid()) / mllog.FILE_NAME).read_text()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / mllog.FILE_NAME).write_text(change(text), newline="")
    return folder


def printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    """The exit code of ``sut.verdict --json``, and what it printed."""
    code = print_verdict([str(folder), "--json"])
    return code, json.loads(capsys.readouterr().out)


def refusal(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert print_verdict([str(folder)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err


def rule(verdict: dict[str, Any], code: str) -> dict[str, Any]:
    (found,) = (check for check in verdict["checks"] if check["code"] == code)
    return found


def codes(checks: list[dict[str, Any]]) -> set[str]:
    return {check["code"] for check in checks}


# Strings that LoadGen does not escape.

PATHS = [
    r"D:\inference\loadgen\mlperf.conf",  # \i is no escape of JSON
    r"D:\new\table\user.conf",  # every backslash begins one
    r"C:\users\u0041\x",
    'confs of "v6.1"/user.conf',
    "two\nlines/user.conf",
    "tab\t/user.conf",
]


@pytest.mark.parametrize("path", PATHS)
def test_reads_a_path_that_loadgen_could_not_open(
    path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make(tmp_path / "log", user_conf=SMALLEST_VALID, more_confs=[path])
    messages = [error.message for error in mllog.read(folder).errors]
    assert messages == [MULTIPLE, f"can't open file {path}"]
    code, verdict = printed(folder, capsys)
    assert code == 0  # LoadGen's word: its errors alone make no log INVALID
    assert verdict["loadgen_validity"] == "VALID"
    errors = rule(verdict, "loadgen_errors")
    assert errors["measured"] == 2 and MULTIPLE in errors["text"]
    assert "loadgen_errors" in codes(verdict["doubts"])


def test_an_invalid_log_with_a_raw_path_is_invalid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conf = {"target_qps": 1000, "max_query_count": 10}
    folder = make(tmp_path / "log", user_conf=conf, more_confs=[PATHS[0]])
    code, verdict = printed(folder, capsys)
    assert code == 1 and verdict["verdict"] == "INVALID"
    errors = rule(verdict, "loadgen_errors")
    assert errors["measured"] == 3 and errors["text"].count(MULTIPLE) == 1


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_reads_reasons_on_several_lines(
    newline: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conf = SMALLEST_VALID | {"ttft_latency": 10, "tpot_latency": 10}
    slow = make(tmp_path / "slow", user_conf=conf, ttft_ms=40, tpot_ms=20)
    reasons = f"TTFT constrain not met.{newline} * TPOT constrain not met. "

    def change(text: str) -> str:
        (old,) = (each for each in text.splitlines() if '"result_invalid_reason"' in each)
        return text.replace(old, line("result_invalid_reason", reasons).strip())

    code, verdict = printed(changed(tmp_path / "log", change, slow), capsys)
    assert code == 1
    assert codes(verdict["reasons"]) == {"ttft_p99", "tpot_p99", "early_stopping"}
    assert verdict["metrics"]["result_invalid_reason"] == reasons.replace("\r", "")


@pytest.mark.parametrize(
    "name", ["two\nlines", "one\n\n\nafter empty ones", 'a }}\n"quoted" end}}', "\ufeffmark"]
)
def test_reads_a_name_that_is_not_json(name: str, tmp_path: Path) -> None:
    log = mllog.read(write(tmp_path, broken({"sut_name": name})))
    assert log.values["sut_name"] == name
    assert log.values["num_errors"] == 0


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
@settings(max_examples=300)
def test_reads_any_string_as_it_was_logged(text: str) -> None:
    content = line("sut_name", text) + line("num_errors", 0)
    found = [entry for _, entry in log_lines.entries(content.encode())]
    as_lines = text.replace("\r\n", "\n")  # of a log that was written on Windows
    assert [(e.key, e.value) for e in found if isinstance(e, log_lines.Entry)] == [
        ("sut_name", as_lines),
        ("num_errors", 0),
    ]


def test_reads_a_byte_that_is_not_utf_8(tmp_path: Path) -> None:
    path = write(tmp_path, server(), ("can't open file C:\\J@rg\\user.conf",)) / mllog.FILE_NAME
    path.write_bytes(path.read_bytes().replace(b"@", b"\xfc"))
    (error,) = mllog.read(tmp_path).errors
    assert error.message == r"can't open file C:\J\xfcrg\user.conf"


@pytest.mark.parametrize(
    ("logged", "value"),
    [
        (r"abc Say \"so\"\nand \\ more", 'abc Say "so"\nand \\ more'),
        ('abc Say "so"', 'abc Say "so"'),
    ],
    ids=["escaped", "of a LoadGen that escaped nothing"],
)
def test_reads_gits_strings_which_loadgen_escapes(logged: str, value: str, tmp_path: Path) -> None:
    log = mllog.read(write(tmp_path, broken({"loadgen_git_log_message": logged})))
    assert log.values["loadgen_git_log_message"] == value


@pytest.mark.parametrize("text", ["nan", "-nan", "inf", "-inf", "-nan(ind)", "nan(snan)"])
def test_reads_a_number_that_is_not_finite(text: str, tmp_path: Path) -> None:
    def change(log: str) -> str:
        return with_value("result_mean_latency_ns", 7)(log).replace(": 7,", f": {text},")

    assert mllog.read(changed(tmp_path, change)).number("result_mean_latency_ns") is None


@pytest.mark.parametrize("text", ["]", "}"])
def test_reads_an_empty_list_and_an_empty_map(text: str, tmp_path: Path) -> None:
    path = write(tmp_path, broken({"sut_name": "?"})) / mllog.FILE_NAME
    path.write_text(path.read_text().replace('"?"', text))
    assert "sut_name" not in mllog.read(tmp_path).values


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: "\ufeff" + text.replace("\n", "\r\n") + "\r\n",
    ],
    ids=["lines end as on Windows", "a mark of the byte order", "both"],
)
def test_reads_a_log_saved_on_windows(change: Callable[[str], str], tmp_path: Path) -> None:
    assert mllog.read(changed(tmp_path, change)).values == mllog.read(smallest_valid()).values


@pytest.mark.parametrize(
    ("change", "line_number"),
    [
        (lambda lines: ["Killed", *lines], 1),
        (lambda lines: [*lines[:9], "Killed", *lines[9:]], 10),
        (lambda lines: [*lines[:7], lines[7] + lines[8], *lines[9:]], 8),
        (lambda lines: [*lines[:8], lines[8].replace("Only", "\0"), *lines[9:]], 9),
        (lambda lines: [*lines[:9], lines[9][:40], *lines[10:]], 10),
    ],
    ids=["first", "between", "two in one", "zero bytes in a string", "truncated"],
)
def test_still_refuses_a_line_that_loadgen_did_not_write(
    change: Callable[[list[str]], list[str]],
    line_number: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def rejoined(text: str) -> str:
        return "\n".join(change(text.splitlines()))

    log = changed(tmp_path / "log", rejoined, write(tmp_path / "whole", server()))
    err = refusal(log, capsys)
    assert f"damaged or truncated LoadGen log ({log / mllog.FILE_NAME}:{line_number})" in err


def test_the_line_of_an_error_counts_the_lines_of_the_file(tmp_path: Path) -> None:
    folder = write(tmp_path, broken({"loadgen_version": "6.0.17\n@\nabc"}), ("Boo",))
    (error,) = mllog.read(folder).errors
    assert "Boo" in (tmp_path / mllog.FILE_NAME).read_text().split("\n")[error.line - 1]


# Errors from before the log.


def test_an_error_from_before_the_log_has_no_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "user.conf"
    empty.write_text("")
    folder = make(tmp_path / "log", user_conf=SMALLEST_VALID, more_confs=[str(empty)])
    text = (folder / mllog.FILE_NAME).read_text()
    assert '"time_ms": 18446744073' in text  # LoadGen's negative time
    _, verdict = printed(folder, capsys)
    errors = rule(verdict, "loadgen_errors")
    assert errors["crossed_s"] is None
    assert errors["text"] == f'LoadGen logged 1 error: "{MULTIPLE}".'


@pytest.mark.parametrize("time_ms", [-0.5, 2**63 / 1e6, 2**64 / 1e6])
def test_a_time_before_the_origin_is_none(time_ms: float, tmp_path: Path) -> None:
    path = write(tmp_path, server()) / mllog.FILE_NAME
    early = line("error_runtime", "Boo", is_error=True, time_ms=time_ms)
    path.write_text(early + path.read_text())
    assert [error.time_ms for error in mllog.read(tmp_path).errors] == [None]


def test_the_first_of_two_errors_may_have_no_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path, broken({"num_errors": 2}), ("during the test",))
    path = folder / mllog.FILE_NAME
    early = line("error_invalid_config", "before it", is_error=True, time_ms=(2**64 - 7) / 1e6)
    path.write_text(early + path.read_text())
    errors = rule(printed(folder, capsys)[1], "loadgen_errors")
    assert errors["text"] == 'LoadGen logged 2 errors, the first: "before it".'
    assert errors["crossed_s"] is None


# Flags and counts of errors.


def flag_all(text: str) -> str:
    return text.replace('"is_error": false', '"is_error": true')


@pytest.mark.parametrize("round_name", ["v5.0", "v6.1"])  # v5.0 has no num_errors
def test_flags_on_every_line_are_no_errors(
    round_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = changed(tmp_path / "log", flag_all, write(tmp_path / "made", server(round_name)))
    log = mllog.read(folder)
    assert log.errors == () and log.num_errors == 0
    code, verdict = printed(folder, capsys)
    assert code == 0 and codes(verdict["doubts"]) == {"error_flags"}
    assert "that are no errors by their keys" in rule(verdict, "error_flags")["text"]
    assert "6.0" not in rule(verdict, "loadgen_errors")["text"]


def test_an_error_among_lines_that_are_all_flagged_is_found(tmp_path: Path) -> None:
    folder = changed(tmp_path / "log", flag_all, ten_queries())
    assert mllog.read(folder).errors == mllog.read(ten_queries()).errors
    assert mllog.read(folder).num_errors == 1


def test_an_error_whose_flag_was_cleared_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(text: str) -> str:
        return text.replace('"is_error": true', '"is_error": false')

    _, verdict = printed(changed(tmp_path, change, ten_queries()), capsys)
    assert {"loadgen_errors", "error_flags"} <= codes(verdict["doubts"])
    assert "Max query count reached" in rule(verdict, "loadgen_errors")["text"]


@pytest.mark.parametrize(("count", "errors"), [(2, ("one",)), (3, ()), (1, ("one", "two"))])
def test_a_count_that_is_not_the_number_of_errors_is_named(
    count: int, errors: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, verdict = printed(write(tmp_path, broken({"num_errors": count}), errors), capsys)
    text = rule(verdict, "error_flags")["text"]
    assert f"num_errors is {count}, the log has {len(errors)} error" in text
    assert rule(verdict, "loadgen_errors")["measured"] == max(count, len(errors))


def test_an_unknown_key_is_an_error_where_the_count_confirms_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, broken({"num_errors": 1})) / mllog.FILE_NAME
    path.write_text(line("timeout", "No answer", is_error=True) + path.read_text())
    _, verdict = printed(tmp_path, capsys)
    assert codes(verdict["doubts"]) == {"loadgen_errors"}
    assert "No answer" in rule(verdict, "loadgen_errors")["text"]


def test_an_error_after_the_count_is_no_contradiction(tmp_path: Path) -> None:
    path = write(tmp_path, server()) / mllog.FILE_NAME
    path.write_text(path.read_text() + line("error_runtime", "Late", is_error=True))
    log = mllog.read(tmp_path)
    assert log.contradictions == () and log.num_errors == 1


# Modes without a verdict.


def test_names_the_load_that_a_search_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = "FindPeakPerformance: Found peak performance field: 9200.250000"
    values = {"effective_test_mode": "FindPeakPerformance", "generic_message": found}
    err = refusal(write(tmp_path, broken(values)), capsys)
    assert "It found 9,200 queries/s" in err
    assert "PerformanceOnly with target_qps 9200.25" in err
    assert "accuracy" not in err


def test_names_the_load_at_which_a_search_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conf = {"target_qps": 400, "min_duration": 100, "min_query_count": 20, "ttft_latency": 10}
    folder = make(tmp_path / "log", mode="FindPeakPerformance", user_conf=conf, ttft_ms=40)
    err = refusal(folder, capsys)
    assert "It found no load" in err and "target_qps (400)" in err
    assert "lower target_qps" in err


def test_a_search_needs_the_server_scenario(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make(tmp_path / "log", mode="FindPeakPerformance", scenario="Offline")
    err = refusal(folder, capsys)
    assert "FindPeakPerformance is for Server, not for Offline" in err


def test_names_the_errors_of_an_accuracy_test(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make(
        tmp_path / "log", mode="AccuracyOnly", scenario="Offline", more_confs=["/none/user.conf"]
    )
    err = refusal(made, capsys)
    assert "accuracy test (AccuracyOnly), which LoadGen does not judge" in err
    assert f'LoadGen logged 2 errors in it, the first: "{MULTIPLE}"' in err
    assert "mlperf_log_accuracy.json" in err


def test_an_accuracy_test_without_errors_names_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    err = refusal(make(tmp_path / "log", mode="AccuracyOnly", scenario="Offline"), capsys)
    assert "errors" not in err and "score its mlperf_log_accuracy.json" in err


def test_a_submission_run_has_a_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One log of an accuracy test and of the performance test that follows it."""
    folder = make(tmp_path / "log", mode="SubmissionRun", user_conf=SMALLEST_VALID)
    code, verdict = printed(folder, capsys)
    assert (code, verdict["verdict"]) == (0, verdict["loadgen_validity"]) == (0, "VALID")


# Names of logs.


@pytest.mark.parametrize(
    "output",
    [
        {"prefix_with_datetime": True},
        {"prefix": "server_"},
        {"suffix": "_run_2"},
        {"prefix": "", "suffix": "_detail", "prefix_with_datetime": True},
    ],
)
def test_finds_the_log_by_any_name_that_loadgen_gives_it(
    output: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make(tmp_path / "log", user_conf=SMALLEST_VALID, output=output)
    assert not (folder / mllog.FILE_NAME).exists()
    code, verdict = printed(folder, capsys)
    assert code == 0 and verdict["verdict"] == "VALID"


def test_asks_which_of_several_logs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"mlperf_log_2026-11-26T18:05:{second}Z_detail.txt" for second in (39, 46)]
    for name in names:
        shutil.copy(smallest_valid() / mllog.FILE_NAME, tmp_path / name)
    err = refusal(tmp_path, capsys)
    assert all(name in err for name in names) and "give the file of one test" in err
    assert print_verdict([str(tmp_path / names[0])]) == 0


def test_names_the_folder_below_that_has_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "performance" / "run_1", server())
    for above in (tmp_path, tmp_path / "performance"):
        assert f"give the folder that contains LoadGen's {mllog.FILE_NAME}: {folder}" in refusal(
            above, capsys
        )


def test_the_summary_is_not_the_detail_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = smallest_valid() / "mlperf_log_summary.txt"
    assert "give LoadGen's mlperf_log_detail.txt" in refusal(summary, capsys)


def test_a_report_of_another_program_is_no_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in the v6.0 results, beside an accuracy log that LoadGen wrote."""
    report = tmp_path / f"dynamo_{mllog.FILE_NAME}"
    report.write_text('Benchmark Detail\n================\n{"qps_billion": 9.188757524813504}\n')
    assert f"{mllog.FILE_NAME}): No such file" in refusal(tmp_path, capsys)
    assert "LoadGen" in refusal(report, capsys)
    write(tmp_path, server())
    assert print_verdict([str(tmp_path)]) == 0


def test_a_log_of_loadgens_old_format_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = '"pid": 23352, "tid": 23352, "ts": 3493ns : version : .5a1 @ 16a5661eea\n'
    (tmp_path / mllog.FILE_NAME).write_text(line)
    assert "LoadGen's old format" in refusal(tmp_path, capsys)


@pytest.mark.parametrize(
    ("detail", "accuracy"),
    [
        ("mlperf_log_detail.txt", "mlperf_log_accuracy.json"),
        (
            "mlperf_log_2026-11-26T18:05:39Z_detail.txt",
            "mlperf_log_2026-11-26T18:05:39Z_accuracy.json",
        ),
        ("details_detail_2.txt", "details_accuracy_2.json"),
    ],
)
def test_audits_the_answers_of_the_same_test(
    detail: str, accuracy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, server())
    (tmp_path / mllog.FILE_NAME).rename(tmp_path / detail)
    answer = {"qsl_idx": 0, "data": "01000000" * 8, "token_data": "01000000", "token_count": 9}
    (tmp_path / accuracy).write_text(json.dumps([answer]))
    _, verdict = printed(tmp_path / detail, capsys)
    assert "token_count" in codes(verdict["doubts"])


# The lines by themselves.


def test_a_line_of_another_program_is_read_as_json() -> None:
    text = '{"event_type": "POINT_IN_TIME", "key": "a", "metadata": {"is_error": true}, "value": '
    content = f'{log_lines.PREFIX}{text}"\\u00e9", "time_ms": 3}}\n'.encode()
    ((number, entry),) = log_lines.entries(content)
    assert number == 1
    assert entry == log_lines.Entry("a", "é", True, 3)
