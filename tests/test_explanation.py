"""A verdict's reasons contain by how much, since when and how to fix it; no rule is blamed for
another's breach."""

from __future__ import annotations

import json
from array import array
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cli import ROOT
from handmade_logs import MEAN_TOKENS, NUM, Value, broken, server, ten_queries, write
from plans import plan_of
from records import PLAN

from sut.errors import InputError
from sut.plan.benchmark import Preset
from sut.results import audit, mllog, rounds, sample_log
from sut.results.budget import Hopeless
from sut.results.early_stopping import queries_needed
from sut.results.judge import Verdict, judge_performance
from sut.results.rules import Check
from sut.results.sample_log import SampleLog
from sut.rundir import SAMPLES
from sut.verdict import main as print_verdict

INVALID: dict[str, Value] = {"result_validity": "INVALID"}


def judge(
    folder: Path, values: dict[str, Value], errors: tuple[str, ...] = (), **known: Any
) -> Verdict:
    return judge_performance(mllog.read(write(folder, values, errors)), **known)


def codes(verdict: Verdict) -> set[str]:
    return {reason.code for reason in verdict.reasons}


def reason(verdict: Verdict, code: str) -> Check:
    (found,) = (check for check in verdict.reasons if check.code == code)
    return found


def remedy(verdict: Verdict, code: str) -> str:
    text = reason(verdict, code).remedy
    assert text is not None
    return text


def unstopped(what: str, more: int) -> dict[str, Value]:
    """Early stopping not met for TTFT or TPOT, as LoadGen logs it."""
    return {
        "early_stopping_met": False,
        f"early_stopping_{what}_result": f" * Run unsuccessful.  * Processed {NUM} queries.  * "
        f"Would need to run at least {more} more queries,  with the run being successful if every "
        "additional  query were under latency.",
    }


# Ten queries.


def test_ten_queries_are_only_few_and_short(tmp_path: Path) -> None:
    error = "IssueQueryThread 0 Ending early: Max query count reached. query_count 10"
    verdict = judge(tmp_path, ten_queries(), (error,))
    assert codes(verdict) == {"min_duration", "min_queries", "early_stopping", "loadgen_errors"}
    assert {"ttft_p99", "tpot_p99"} <= {check.code for check in verdict.checks if check.met}
    assert "449 more queries" in reason(verdict, "early_stopping").text
    assert remedy(verdict, "early_stopping").startswith("449 more queries")
    assert remedy(verdict, "min_queries").startswith("90 more queries")
    assert "max_query_count (10) ended the test" in remedy(verdict, "min_queries")
    assert "15,001 queries" in remedy(verdict, "min_duration")  # 600 s at 25 a second


@pytest.mark.parametrize(
    ("preset", "how"),
    [
        (Preset.QUICK, "choose --preset smoke"),
        (Preset.SMOKE, "remove scenarios.server.max_query_count from the benchmark and from --set"),
    ],
)
def test_a_run_with_a_plan_is_not_sent_to_its_user_conf(
    tmp_path: Path, preset: Preset, how: str
) -> None:
    error = "IssueQueryThread 0 Ending early: Max query count reached. query_count 10"
    plan = plan_of("replay", preset=preset)
    verdict = judge(tmp_path, ten_queries(), (error,), plan=plan)
    for code in ("min_duration", "min_queries", "loadgen_errors"):
        assert remedy(verdict, code).endswith(f": {how}.")
    # Another harness has a user.conf of its own.
    verdict = judge(tmp_path, ten_queries(), (error,))
    for code in ("min_duration", "min_queries", "loadgen_errors"):
        assert remedy(verdict, code).endswith(": remove max_query_count from user.conf.")


def test_ten_queries_are_not_blamed_on_latency(tmp_path: Path) -> None:
    verdict = judge(tmp_path, ten_queries())
    said = [reason.text + str(reason.remedy) for reason in verdict.reasons]
    said += verdict.notes
    for word in ("TTFT", "TPOT", "slow", "load"):
        assert word not in " ".join(said).replace("LoadGen", "").replace("loadgen", "")


# Every rule broken alone.

ALONE: dict[str, tuple[dict[str, Value], tuple[str, ...], dict[str, Any], str]] = {
    "min_duration": (
        INVALID | {"result_min_duration_met": False, "result_scheduled_samples_per_sec": 50.0},
        (),
        {},
        "At the measured 50 queries/s, 600 s take about 30,001 queries, 10,001 more.",
    ),
    "min_queries": (
        INVALID | {"result_min_queries_met": False, "effective_min_query_count": 30_000},
        (),
        {},
        "10,000 more queries.",
    ),
    "ttft_p99": (
        INVALID
        | {
            "result_perf_constraints_met": False,
            "result_first_token_99.00_percentile_latency_ns": 2_500_000_000,
        },
        (),
        {},
        "Offer less load: a lower target_qps. No load can be estimated",
    ),
    "tpot_p99": (
        INVALID
        | {
            "result_perf_constraints_met": False,
            "result_time_per_output_token_99.00_percentile_ns": 120_000_000,
        },
        (),
        {},
        "Offer less load: a lower target_qps. No load can be estimated",
    ),
    "early_stopping": (
        INVALID | unstopped("ttft", 5_000),
        (),
        {},
        "5,000 more queries, all within the limits.",
    ),
    "loadgen_errors": (
        {"num_errors": 1},
        ("Received second completion for query",),
        {},
        "Fix what the first error names",
    ),
    "loadgen_validity": (INVALID, (), {}, "mlperf_log_summary.txt"),
    "failed_samples": ({}, (), {"num_failed": 2}, "Read the replicas' logs"),
    "idle_replicas": ({}, (), {"replica_samples": (NUM, 0)}, "Read the idle replica's log"),
    "token_count": (
        {"result_completed_tokens_per_second": 25.0 * 128.5},
        (),
        {"max_tokens": 128},
        "Report the number of token ids the engine returned",
    ),
    "tpot_plausible": (
        {"result_time_per_output_token_50.00_percentile_ns": 42},
        (),
        {},
        "Call FirstTokenComplete when the first token exists",
    ),
    "round_seeds": (
        {"effective_qsl_rng_seed": 7},
        (),
        {},
        "Remove the seeds from user.conf: this LoadGen contains those of v6.1.",
    ),
    "round_settings": (
        {"effective_min_duration_ms": 60_000},
        (),
        {"asked_round": "v6.1"},
        "Remove them from user.conf",
    ),
}


@pytest.mark.parametrize("code", ALONE)
def test_a_rule_broken_alone_has_its_own_remedy(code: str, tmp_path: Path) -> None:
    changes, errors, known, words = ALONE[code]
    verdict = judge(tmp_path, broken(changes), errors, **known)
    assert verdict.verdict == "INVALID"
    assert codes(verdict) == {code}
    assert words in remedy(verdict, code)


def test_the_unbroken_log_is_valid(tmp_path: Path) -> None:
    assert judge(tmp_path, server(), max_tokens=128, asked_round="v6.1").reasons == ()


def test_all_broken_rules_are_reported_together(tmp_path: Path) -> None:
    values, known = server(), dict[str, Any]()
    for changes, _, facts, _ in ALONE.values():
        values |= changes
        known |= facts
    verdict = judge(tmp_path, values, ("Received second completion for query",), **known)
    assert codes(verdict) == ALONE.keys() - {"loadgen_validity"}  # there are other reasons


def test_reasons_contain_the_distance_to_the_limit(tmp_path: Path) -> None:
    changes = {"result_first_token_99.00_percentile_latency_ns": 2_500_000_000}
    text = reason(judge(tmp_path, broken(changes)), "ttft_p99").text
    assert text == "TTFT p99 was 2,500 ms; the limit is 2,000 ms (25% over)."


def test_an_error_has_its_time(tmp_path: Path) -> None:
    found = reason(judge(tmp_path, server(), ("Boo",)), "loadgen_errors")
    assert found.crossed_s == pytest.approx(1.5, abs=0.1)
    assert "1 error, at 1.52 s from the start of its log: " in found.text


def test_more_queries_cannot_fix_a_large_share_over(tmp_path: Path) -> None:
    more = queries_needed(230, 0.99) - NUM
    text = remedy(judge(tmp_path, broken(INVALID | unstopped("tpot", more))), "early_stopping")
    assert text.startswith(f"{more:,} more queries, all within the limits.")
    assert "With the same share over (1.15%), no number is enough" in text


def test_more_queries_fix_a_small_share_over(tmp_path: Path) -> None:
    # 3 of 500 over the limit: 0.6%
    more = queries_needed(3, 0.99) - 500
    changes = INVALID | unstopped("ttft", more) | {"result_query_count": 500}
    text = remedy(judge(tmp_path, broken(changes)), "early_stopping")
    assert text.startswith(f"{more} more queries")
    assert "With the same share over (0.60%), about" in text and "(an estimate)" in text


def test_every_reason_is_documented() -> None:
    page = (ROOT / "docs/verdict.md").read_text()
    assert all(f"`{code}`" in page for code in ALONE)


# What the samples show.


def samples(num: int, slow_from: int, ttft_ms: float) -> SampleLog:
    """25 a second; from one of them on, all with another TTFT."""
    issued = array("d", (40.0 * row for row in range(num)))
    first = array(
        "d", (at + (ttft_ms if row >= slow_from else 50.0) for row, at in enumerate(issued))
    )
    zeros = array("q", [0] * num)
    tokens = array("q", (90 if row % 4 else 91 for row in range(num)))
    return SampleLog(
        sample_index=zeros,
        replica=zeros,
        prompt_tokens=zeros,
        output_tokens=tokens,
        issued_ms=issued,
        admitted_ms=issued,
        first_token_ms=first,
        completed_ms=array("d", (at + 100.0 for at in first)),
    )


SLOW_TTFT = INVALID | {
    "result_perf_constraints_met": False,
    "result_first_token_99.00_percentile_latency_ns": 2_500_000_000,
}


def test_a_crossed_limit_has_its_time(tmp_path: Path) -> None:
    verdict = judge(tmp_path, broken(SLOW_TTFT), samples=samples(NUM, 10_000, 2500))
    found = reason(verdict, "ttft_p99")
    assert found.crossed_s == pytest.approx(402.6)
    assert "10,000 samples exceeded the limit, the first at 403 s; from 409 s on" in found.text


def test_a_crossing_of_two_rules_is_told_once(tmp_path: Path) -> None:
    both = SLOW_TTFT | unstopped("ttft", 1000)
    verdict = judge(tmp_path, broken(both), samples=samples(NUM, 10_000, 2500))
    texts = {code: reason(verdict, code).text for code in ("ttft_p99", "early_stopping")}
    (where,) = [code for code, text in texts.items() if "By the dispatcher's clock" in text]
    other = next(code for code in texts if code != where)
    assert texts[other].endswith(f"The samples over the limit are those of {where}.")
    assert reason(verdict, other).crossed_s == reason(verdict, where).crossed_s


def test_samples_that_waited_were_too_many_before_the_first_was_complete(tmp_path: Path) -> None:
    known = Hopeless(limit="TTFT", since_s=401.5, num_over=161, num_allowed=160, num_queries=20_000)
    log = samples(NUM, 10_000, 2500)
    found = reason(judge(tmp_path, broken(SLOW_TTFT), samples=log, hopeless=known), "ttft_p99")
    assert found.crossed_s == 401.5
    assert (
        "10,000 samples exceeded the limit. From 402 s on, counting samples that still waited, too "
        "many were over the limit for a run this long; the first one completed at 403 s."
        in found.text
    )


def test_estimates_the_load_that_meets_the_limits(tmp_path: Path) -> None:
    verdict = judge(tmp_path, broken(SLOW_TTFT), samples=samples(NUM, 10_000, 2500))
    assert verdict.qps_estimate is not None and verdict.qps_estimate.qps is not None
    assert verdict.qps_estimate.qps < 25
    assert "An estimate: about" in remedy(verdict, "ttft_p99")


def test_estimates_no_load_without_samples(tmp_path: Path) -> None:
    verdict = judge(tmp_path, broken(SLOW_TTFT))
    assert verdict.qps_estimate is not None and verdict.qps_estimate.qps is None
    assert "there is no samples.csv" in remedy(verdict, "ttft_p99")


def test_a_growing_queue_is_the_remedys_load(tmp_path: Path) -> None:
    # Too few for an estimate; each waits 20 ms longer than the one before: 1,000/60 a second.
    slow = samples(400, 0, 100)
    waits = array("d", (at + 20.0 * row for row, at in enumerate(slow.issued_ms)))
    done = array("d", (at + 100.0 for at in waits))
    queue = msgspec.structs.replace(
        slow, admitted_ms=waits, first_token_ms=waits, completed_ms=done
    )
    values = broken(SLOW_TTFT | {"result_query_count": 400})
    text = remedy(judge(tmp_path, values, samples=queue), "ttft_p99")
    assert text.startswith("Offer less load: target_qps 15. No load can be estimated")
    assert "the replicas completed 16.7 samples/s." in text
    text = remedy(judge(tmp_path, values, samples=queue, plan=PLAN), "ttft_p99")
    assert text.startswith("Offer less load: --set scenarios.server.target_qps=15. ")


def test_incomplete_samples_are_not_used(tmp_path: Path) -> None:
    verdict = judge(tmp_path, broken(SLOW_TTFT), samples=samples(100, 10, 2500))
    assert verdict.notes == ("samples.csv contains 100 of 20,000 samples, so it was not used.",)
    assert reason(verdict, "ttft_p99").crossed_s is None


# Tokens.


def test_129_tokens_in_every_answer_is_a_miscount(tmp_path: Path) -> None:
    verdict = judge(tmp_path, broken({"result_completed_tokens_per_second": 25.0 * 129}))
    assert codes(verdict) == {"token_count"}
    text = reason(verdict, "token_count").text
    assert "is 128.994 tokens an answer, more than 128, a usual limit" in text


@pytest.mark.parametrize("tokens", [128.1, 128.983, 128.989, 129, 129.001])
def test_a_mean_just_above_a_usual_limit_is_a_miscount(tokens: float, tmp_path: Path) -> None:
    values = broken({"result_completed_tokens_per_second": 25.0 * tokens})
    assert codes(judge(tmp_path, values)) == {"token_count"}


def test_what_loadgen_does_not_judge_is_a_doubt_of_another_harness(tmp_path: Path) -> None:
    odd = {
        "result_completed_tokens_per_second": 25.0 * 129,
        "result_time_per_output_token_50.00_percentile_ns": 12,
    }
    values = broken(odd)
    verdict = judge(tmp_path, values, foreign=True)
    assert verdict.verdict == "VALID" and verdict.reasons == ()
    assert {doubt.code for doubt in verdict.doubts} == {"token_count", "tpot_plausible"}
    assert {check.code for check in verdict.checks if not check.met} == {
        "token_count",
        "tpot_plausible",
    }
    assert judge(tmp_path, values).verdict == "INVALID"


def test_loadgens_own_rules_decide_on_another_harness(tmp_path: Path) -> None:
    values = broken(SLOW_TTFT | {"result_completed_tokens_per_second": 25.0 * 129})
    verdict = judge(tmp_path, values, foreign=True)
    assert verdict.verdict == "INVALID" and codes(verdict) == {"ttft_p99"}
    assert {doubt.code for doubt in verdict.doubts} == {"token_count"}


def test_a_round_that_was_asked_for_decides_on_another_harness(tmp_path: Path) -> None:
    values = broken({"effective_schedule_rng_seed": 7})
    assert [doubt.code for doubt in judge(tmp_path, values, foreign=True).doubts] == ["round_seeds"]
    verdict = judge(tmp_path, values, foreign=True, asked_round="v6.1")
    assert verdict.verdict == "INVALID" and codes(verdict) == {"round_seeds"}


def test_an_infinite_rate_gives_no_mean(tmp_path: Path) -> None:
    values = broken({"result_completed_tokens_per_second": 1e308})
    assert "token_count" not in {check.code for check in judge(tmp_path, values).checks}


@pytest.mark.parametrize("tokens", [128, 66, 130])
def test_a_plausible_mean_passes(tokens: float, tmp_path: Path) -> None:
    values = broken({"result_completed_tokens_per_second": 25.0 * tokens})
    assert judge(tmp_path, values).verdict == "VALID"


def test_loadgen_and_the_engines_must_agree_on_tokens(tmp_path: Path) -> None:
    log = samples(NUM, NUM, 0)
    given = sum(log.output_tokens) / NUM
    assert given == MEAN_TOKENS
    assert judge(tmp_path, server(), samples=log).verdict == "VALID"
    values = broken({"result_completed_tokens_per_second": 25.0 * (given + 1)})
    assert codes(judge(tmp_path, values, samples=log)) == {"token_count"}


def answers(folder: Path, *lengths: tuple[int, int]) -> Path:
    """An accuracy log of answers with these numbers of token ids, and these reported."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = [
        {"seq_id": i, "qsl_idx": i, "data": "0A000000" * logged, "token_count": reported}
        for i, (logged, reported) in enumerate(lengths)
    ]
    (folder / "mlperf_log_accuracy.json").write_text(json.dumps(entries))
    return folder


@pytest.mark.parametrize(
    ("lengths", "max_tokens", "words"),
    [
        ([(128, 128)] * 9 + [(70, 70)], 128, None),
        ([(128, 128)] * 9 + [(70, 70)], None, None),
        (
            [(129, 129)] * 9 + [(70, 70)],
            128,
            "9 of 10 answers have 129 tokens, more than the limit of 128",
        ),
        (
            [(129, 129)] * 9 + [(70, 70)],
            None,
            "9 of 10 answers have 129 tokens, more than 128, a usual limit",
        ),
        ([(129, 129)] + [(70, 70)] * 99, None, None),  # one may be that long
        (
            [(128, 129)] * 9,
            200,
            "number of token ids differs from the reported one in 9 of 9 answers",
        ),
    ],
)
def test_logged_answers_are_counted(
    lengths: list[tuple[int, int]], max_tokens: int | None, words: str | None, tmp_path: Path
) -> None:
    found, unread = audit.read(answers(tmp_path, *lengths))
    assert unread is None
    check = audit.of_answers(found, max_tokens)
    assert check is not None and check.met == (words is None)
    assert words is None or words in check.text


def test_a_truncated_accuracy_log_is_reported_as_unread(tmp_path: Path) -> None:
    (tmp_path / "mlperf_log_accuracy.json").write_text('[\n{ "seq_id" : 4\n\n...\n\n0000" }\n]')
    found, unread = audit.read(tmp_path)
    assert found is None and unread is not None and "truncated for a submission" in unread


@pytest.mark.parametrize("text", ["", "[\n]\n"])
def test_a_performance_test_logs_no_answers(text: str, tmp_path: Path) -> None:
    (tmp_path / "mlperf_log_accuracy.json").write_text(text)
    assert audit.read(tmp_path) == (None, None)
    assert audit.read(tmp_path / "none") == (None, None)


@pytest.mark.parametrize("text", ["[{", '[{"seq_id": 1}]', '[{"data": "0A0000"}]', "[3]"])
def test_damaged_answers_give_no_verdict(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, server())
    (tmp_path / "mlperf_log_accuracy.json").write_text(text)
    with pytest.raises(InputError, match="damaged"):
        audit.read(tmp_path)
    assert print_verdict([str(tmp_path)]) == 2
    assert capsys.readouterr().out == ""


def test_two_tokens_at_once_are_plausible(tmp_path: Path) -> None:
    assert judge(tmp_path, broken({"result_time_to_output_token_min": 40})).verdict == "VALID"


# Rounds.


@pytest.mark.parametrize("name", rounds.NAMES)
def test_finds_the_round_of_a_log(name: str, tmp_path: Path) -> None:
    verdict = judge(tmp_path, server(name))
    assert verdict.verdict == "VALID" and verdict.notes == ()
    (found,) = (check for check in verdict.checks if check.code == "round_seeds")
    assert found.text == f"The seeds are those of {name}."


@pytest.mark.parametrize("name", rounds.NAMES)
def test_refuses_a_truncated_log_of_every_round(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, server(name)) / mllog.FILE_NAME
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(InputError, match="incomplete"):
        mllog.read(tmp_path)


def test_compares_seeds_with_the_round_asked_for(tmp_path: Path) -> None:
    verdict = judge(tmp_path, server("v5.1"), asked_round="v6.0")
    assert codes(verdict) == {"round_seeds"}
    assert reason(verdict, "round_seeds").text == "The seeds are those of v5.1, not those of v6.0."
    assert "(6.0.5 is the first)" in remedy(verdict, "round_seeds")


def test_compares_seeds_with_the_plans_round(tmp_path: Path) -> None:
    assert PLAN.round == "v6.1"
    assert codes(judge(tmp_path, server("v5.1"), plan=PLAN)) == {"round_seeds"}


@pytest.mark.parametrize("version", ["7.0.1 @ abc", "4.1.2 @ abc", "whatever"])
def test_unknown_seeds_are_reported_and_not_judged(version: str, tmp_path: Path) -> None:
    values = broken({"loadgen_version": version, "effective_qsl_rng_seed": 7})
    verdict = judge(tmp_path, values)
    assert verdict.verdict == "VALID"
    assert "round_seeds" not in {check.code for check in verdict.checks}
    assert "no known round (v5.0 to v6.1)" in " ".join(verdict.notes)


@pytest.mark.parametrize("version", ["5.0.21", "6.0.4", "6.0.15"])
def test_a_loadgen_between_rounds_has_unknown_seeds(version: str, tmp_path: Path) -> None:
    values = broken({"loadgen_version": f"{version} @ abc", "effective_qsl_rng_seed": 7})
    assert "contains" not in remedy(judge(tmp_path, values), "round_seeds")


def test_lowered_settings_match_no_round(tmp_path: Path) -> None:
    values = broken({"effective_min_duration_ms": 5_000})
    values["effective_target_latency_percentile"] = 0.5
    values["result_first_token_50.00_percentile_latency_ns"] = 1
    assert judge(tmp_path, values).verdict == "VALID"  # LoadGen's own verdict, on its settings
    text = reason(judge(tmp_path, values, asked_round="v6.1"), "round_settings").text
    assert "min_duration is 5 s, not 600 s" in text and "percentile is 0.5, not 0.99" in text


def test_limits_come_from_the_plans_benchmark(tmp_path: Path) -> None:
    loose = broken({"requested_server_tpot_latency": 200_000_000})
    assert judge(tmp_path, loose, asked_round="v6.1").notes != ()
    text = reason(judge(tmp_path, loose, asked_round="v6.1", plan=PLAN), "round_settings").text
    assert "the TPOT limit is 200 ms, not 100 ms" in text


# The command.


def test_the_command_prints_how_to_fix_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, ten_queries())
    assert print_verdict([str(tmp_path), "--round", "v6.1"]) == 1
    out = capsys.readouterr().out
    assert "How to fix it:" in out and "early_stopping: 449 more queries" in out
    assert "Not judged:" in out


def test_the_command_prints_each_remedy_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = {"result_time_per_output_token_99.00_percentile_ns": 120_000_000}
    write(tmp_path, broken(SLOW_TTFT | both))
    assert print_verdict([str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "ttft_p99, tpot_p99: Offer less load" in out
    assert out.count("No load can be estimated") == 1


def test_the_command_prints_the_highest_load_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, server())
    log = samples(NUM, NUM, 0)
    sample_log.write(
        tmp_path / SAMPLES,
        {
            field.replace("_ms", "_ns"): [round(1e6 * value) for value in getattr(log, field)]
            if field.endswith("_ms")
            else list(getattr(log, field))
            for field in log.__struct_fields__
        },
    )
    assert print_verdict([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "Highest load:\n  - 25 queries/s, which LoadGen offered on average, met" in out
    write(tmp_path, broken(SLOW_TTFT))
    assert print_verdict([str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert out.count("met the limits") == 1 and "Highest load:" not in out


def test_the_command_refuses_an_unknown_round(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        print_verdict([str(write(tmp_path, server())), "--round", "v4.1"])
    assert "v5.0" in capsys.readouterr().err


def test_the_command_checks_tokens_against_its_limit(tmp_path: Path) -> None:
    write(tmp_path, server())
    assert print_verdict([str(tmp_path)]) == 0
    assert print_verdict([str(tmp_path), "--max-tokens", "64"]) == 1
