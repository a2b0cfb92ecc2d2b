"""The report gives the verdict first, then the reasons, and calls nothing official that is not."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from loadgen_logs import make, smallest_valid, ten_queries
from records import METERS, PLAN, accuracy, completed, failed, performance, render

from sut.plan.benchmark import ScenarioSettings
from sut.report import timings
from sut.report.summary import Message, summary
from sut.results.messaging import UNVERIFIED
from sut.results.record import Command, Failure, Record, Step, headline
from sut.rundir import RunDir
from sut.units import against, exact, number, quantity

RUN_DIR = RunDir("/runs/latest")
DEATH = Failure(code="engine_died", message="replica 1 ended with code 137", replica=1)


def texts(record: Record) -> tuple[str, str]:
    return render(record), summary(record, RUN_DIR)


def test_its_commands_name_the_runs_folder() -> None:
    again = "python -m sut.submit --again '/runs/my run'"
    text = render(failed(DEATH))
    assert f"To run the same plan again: `{again}`\n" in text
    assert text.endswith("against its record: `python -m sut.verify '/runs/my run'`\n")
    assert f"fix what it reports; `{again}` runs the same plan" in text and "RUN_DIR" not in text


def test_puts_the_verdict_first() -> None:
    for text in texts(completed(performance(ten_queries()))):
        assert text.splitlines()[0].lstrip("# ").startswith("INVALID")
    for text in texts(completed(performance(smallest_valid()))):
        assert text.splitlines()[0].lstrip("# ").startswith("VALID")


def test_gives_every_reason_and_no_other_cause() -> None:
    record = completed(performance(ten_queries()))
    for text in texts(record):
        for reason in record.phases[0].verdict.reasons:
            assert reason.text in text
        assert "449 more queries" in text
    reasons, rest = render(record).split("## In short")
    assert "TTFT" not in reasons
    assert "TTFT" not in rest.split("## What to try next")[1].split("## Nodes")[0]


def test_explains_why_a_run_is_not_official() -> None:
    for record in (
        completed(performance(smallest_valid())),
        completed(performance(ten_queries())),
        failed(DEATH),
    ):
        for text in texts(record):
            assert re.search(r"(?i)not official", text)
            assert all(why in text for why in PLAN.not_official_because)
            assert UNVERIFIED in text


def test_names_benchmark_scenario_and_round_beside_unverified() -> None:
    text = render(completed(performance(smallest_valid())))
    assert "seeds of MLPerf Inference v6.1, smollm2-135m-news, Server: unverified." in text


def test_summary_is_short_and_has_the_key_figures() -> None:
    text = summary(completed(performance(ten_queries())), RUN_DIR)
    assert len(text.splitlines()) <= 13
    assert re.search(r"TTFT +p50 [\d.]+ ms +p99 [\d.]+ ms +limit 2,000 ms", text)
    assert re.search(r"TPOT +p50 3[\d.]+ ms +p99 [\d.]+ ms +limit 100 ms", text)
    assert re.search(r"[\d.]+ tokens/s, [\d.]+ samples/s", text)
    assert str(RUN_DIR.report) in text


def test_shows_the_work_and_node_of_each_replica() -> None:
    record = completed(performance(ten_queries()))
    text = render(record)
    assert "| 1 | jw3 | 4 | 400 | 32 | 0.3 s | 40.0% | - |" in text
    assert "| jw3 | 1 | 4 | 64 | 48.1 | 50.3 | 48.1 | 50.3 | 12.0% |" in text
    assert record.plan_digest in text and "a" * 64 in text and "b" * 64 in text
    assert record.environment.kernel in text


def test_names_load_engine_limits_and_command() -> None:
    command = Command(text="python -m sut.submit --set 'a=[1]' --mode all", folder="/home/you/x")
    record = completed(performance(smallest_valid()), command=command)
    text = render(record).split("## Settings")[1].split("\n## ")[0]
    assert "| `target_qps` | 1,000 |" in text  # LoadGen's; the plan's is 50
    for name, value in (
        ("max_num_seqs", "16"),
        ("max_num_batched_tokens", "4,096"),
        ("max_model_len", "2,668"),
        ("dtype", "bfloat16"),
        ("tensor_parallel_size", "1"),
        ("pipeline_parallel_size", "1"),
    ):
        assert f"| `{name}` | {value} |" in text
    assert text.rstrip().endswith(f"in `/home/you/x`:\n\n    {command.text}")
    assert "at target_qps 1,000 (unverified)" in summary(record, RUN_DIR)
    auto = msgspec.structs.replace(PLAN, loadgen_settings=ScenarioSettings(target_qps="auto"))
    chosen = render(msgspec.structs.replace(record, plan=auto))
    assert "| `target_qps` | 1,000, chosen by the run (auto) |" in chosen
    without = render(failed(DEATH)).split("## Settings")[1].split("\n## ")[0]
    assert "| `target_qps` | 50 |" in without and "```" not in without


def test_shows_where_the_time_went() -> None:
    steps = (
        Step(name="start", start_s=0.0, duration_s=2.0),
        Step(name="join", start_s=2.0, duration_s=0.1),
        Step(name="load", start_s=2.0, duration_s=12.0),
        Step(name="performance", start_s=14.0, duration_s=5.0),
        Step(name="shutdown", start_s=19.0, duration_s=1.0),
        Step(name="report", start_s=20.0, duration_s=3.0),
    )
    record = completed(performance(smallest_valid()), timings=steps)
    text = render(record).split("## Timings")[1].split("\n## ")[0]
    assert "| load | 2 s | 12 s | 60.0% |" in text and "| total |  | 20 s |  |" in text
    assert "| report |" not in text  # a report drawn again is the same
    (drawn,) = timings.section(record).figures
    assert "start: 2 s" in drawn.svg and "shutdown: 1 s" in drawn.svg
    assert "| join | 2 s | 0.1 s | 0.5% |" in text and "join" not in drawn.svg
    assert re.search(r'x="36.0"[^>]* width="216.0"', drawn.svg)  # load: from 2 to 14 of 20 s
    assert [key.label for key in drawn.keys] == ["LoadGen's test", "other"]
    assert "tests took 25.0%" in drawn.caption
    assert "took      23 s, mostly load 12 s, performance 5 s, report 3 s" in summary(
        record, RUN_DIR
    )


def test_shows_key_figures_beside_their_limits() -> None:
    text = render(completed(performance(ten_queries()), accuracy(29.0)))
    short = text.split("## In short")[1].split("\n## ")[0]
    assert re.search(r"\| TTFT, p99 \| [\d.]+ ms \| 2,000 ms \| yes \|", short)
    assert re.search(r"\| duration \| [\d.]+ s \| 600 s \| \*\*no\*\* \|", short)
    assert "| accuracy, rouge1 | 29 | 29.7 | **no** |" in short


def test_shows_rules_but_no_speed_for_compliance() -> None:
    compliance = performance(smallest_valid(), name="compliance")
    text = render(completed(performance(smallest_valid()), compliance))
    assert "| compliance | VALID |  | yes |" in text
    section = text.split("## Compliance: VALID")[1].split("\n## ")[0]
    assert "`loadgen_errors`" in section and "tokens/s" not in section


def test_lists_what_could_not_be_judged() -> None:
    phase = performance(smallest_valid())
    verdict = msgspec.structs.replace(phase.verdict, notes=("The answers' lengths: no log.",))
    text = render(completed(msgspec.structs.replace(phase, verdict=verdict)))
    assert "Not judged:\n\n- The answers' lengths: no log." in text


def test_labels_energy_as_not_mlperf_power() -> None:
    with_meters = render(completed(performance(smallest_valid(), telemetry=(METERS,))))
    section = with_meters.split("## Energy and clocks")[1].split("\n## ")[0]
    assert "This is not MLPerf Power" in section
    assert "| jw2 GPU 0 | 1,000 J | 150 W | 165 W | 1,400 MHz | 1,200 MHz | 64 °C |" in section
    assert "| jw2 CPU | 600 J | 60 W |" in section
    assert "J a token" not in with_meters  # jw3 has no meter: its energy is unknown
    assert "slowed by power in 25.0% of the readings" in with_meters
    assert "| jw2 | 1 | 6 | 96 | 48.1 | 50.3 | 48.1 | 50.3 | 12.0% | 22 GiB |" in with_meters
    both = (METERS, msgspec.structs.replace(METERS, node="jw3"))
    assert "| energy (not MLPerf Power) | 40 J a token (CPU, GPUs) |" in render(
        completed(performance(smallest_valid(), telemetry=both))
    )
    less = (METERS, msgspec.structs.replace(METERS, node="jw3", cpu_energy_j=None))
    assert "J a token" not in render(completed(performance(smallest_valid(), telemetry=less)))
    assert "no meter" in render(completed(performance(smallest_valid())))


def test_shows_accuracy_beside_reference_and_gate() -> None:
    text = render(completed(accuracy(29.0)))
    assert "| rouge1 | 29 | 30 | at least 29.7 |" in text
    assert "Scored on 100 of 300 samples" in text
    assert "accuracy, accuracy_rouge1: rouge1 is 29; at least 29.7 needed." in text


def test_failed_run_names_the_cause_and_the_log() -> None:
    text = summary(failed(DEATH), RUN_DIR, ("Killed", "out of memory"))
    assert text.startswith("FAILED")
    assert "engine_died: replica 1 ended with code 137" in text
    assert "| out of memory" in text
    assert text.splitlines()[-1].endswith(f"less {RUN_DIR.replica_log(1)}")
    report = render(failed(DEATH))
    assert "VALID" not in report and "engine_died" in report


def test_offline_labels_ttft_as_the_dispatchers(tmp_path: Path) -> None:
    conf = {"target_qps": 200, "min_duration": 50, "min_query_count": 100}
    log_dir = make(tmp_path / "offline", scenario="Offline", user_conf=conf, tpot_ms=10)
    text = summary(completed(performance(log_dir)), RUN_DIR)
    assert re.search(r"TTFT +p50 48.1 ms +p99 50.3 ms \(by the dispatcher\)", text)


def test_keeps_tables_intact_for_any_message() -> None:
    report = render(failed(Failure(code="x", message="a | b\n# c"), performance(ten_queries())))
    assert "\n# c" not in report
    for table in re.findall(r"(?:^\|.*\n)+", report, re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
        assert len(widths) == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0"),
        (0.0126, "0.0126"),
        (38.0047, "38"),
        (50.44, "50.4"),
        (1.005, "1"),
        (99.96, "100"),
        (2000.0, "2,000"),
        (1642.4, "1,642"),
        (13368, "13,368"),
        (-3.14159, "-3.14"),
    ],
)
def test_formats_numbers_with_three_significant_digits(value: float | None, text: str) -> None:
    assert number(value) == text


def test_a_chosen_number_keeps_its_digits() -> None:
    assert [exact(value) for value in (12.345, 2000.0, 1234.75, 0.1, None)] == [
        *("12.345", "2,000", "1,234.75", "0.1", "-"),
    ]


def test_units_agree_with_their_number() -> None:
    assert quantity(1, "queries") == "1 query"
    assert quantity(2, "queries") == "2 queries"
    assert against(99.9999, 100, "ms") == "99.9999 ms"
    assert against(600.018007743, 600, "s") == "600.02 s"
    assert against(13368.4, 13368, "ms") == "13,368.4 ms"
    assert against(100, 100, "ms") == "100 ms"


def test_shows_a_failures_log_and_hint_apart() -> None:
    message = "replica 1 ended with code 137\nend of r.log:\n| Killed\nhint: free memory"
    record = failed(Failure(code="engine_died", message=message, replica=1))
    text = summary(record, RUN_DIR)
    assert "\n            | Killed\n  hint      free memory\n" in text
    report = render(record)
    assert "\n\n    end of r.log:\n    Killed\n\n**Hint**: free memory\n" in report


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", Message("a", [], "")),
        ("a:\nlog 1\nlog 2\nhint: do b", Message("a:", ["log 1", "log 2"], "do b")),
        (
            "a\nhint: x\nerror: b\nlog\nhint: y\nerror: c\nhint: x",
            Message("a", ["error: b", "log", "error: c"], "x; y"),
        ),
        ("", Message("", [], "")),
    ],
)
def test_a_message_keeps_each_error_and_hint_apart(text: str, message: Message) -> None:
    assert Message.of(text) == message


@pytest.mark.parametrize(
    ("word", "mode", "shown"),
    [
        ("VALID", "performance", "VALID"),
        ("INVALID", "all", "INVALID"),
        ("VALID", "accuracy", "accuracy passed"),
        ("INVALID", "accuracy", "accuracy not passed"),
        ("VALID", "compliance", "compliance passed"),
        ("INVALID", "compliance", "compliance not passed"),
        ("FAILED", "compliance", "FAILED"),
    ],
)
def test_only_a_performance_run_is_headed_valid(word: str, mode: str, shown: str) -> None:
    assert headline(word, mode) == shown


def test_a_step_of_almost_no_time_is_not_among_the_longest(tmp_path: Path) -> None:
    timings = (
        Step(name="load", start_s=0.0, duration_s=12.0),
        Step(name="shutdown", start_s=12.0, duration_s=0.002),
    )
    shown = summary(completed(timings=timings), RunDir(tmp_path))
    assert "took      12 s, mostly load 12 s\n" in shown
