"""The compliance tests agree with MLCommons' scripts, and are stricter where these do not check."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from cli import fast, latest, set_arguments, submit
from loadgen_logs import smallest_valid
from plans import plan_of

from sut.errors import InputError
from sut.inputs.dataset import synthetic
from sut.plan import mlperf_conf, plan
from sut.plan.benchmark import Gate, Scenario
from sut.plan.plan import Mode
from sut.results import compliance_length
from sut.results.answers import read
from sut.results.compliance import Verification, judge, verify, verify_accuracy_text
from sut.results.mllog import read as read_log
from sut.rundir import RunDir
from sut.units import quantity

LLAMA_EOS = (128001, 128008, 128009)


def answer(
    sample: int, tokens: list[int], first: list[int] | None = None, counted: int | None = None
) -> dict[str, Any]:
    """An answer as LoadGen logs it; Offline has no ``first``."""
    return {
        "seq_id": sample,
        "qsl_idx": sample,
        "data": in_hex(tokens),
        **({} if first is None else {"token_data": in_hex(first)}),
        "token_count": len(tokens) if counted is None else counted,
    }


def in_hex(tokens: list[int]) -> str:
    return struct.pack(f"<{len(tokens)}i", *tokens).hex().upper()


def write(folder: Path, *answers: dict[str, Any]) -> Path:
    (folder / "mlperf_log_accuracy.json").write_text(json.dumps(answers))
    return folder


def text(first_token: str, eos: bool, length: bool) -> str:
    passed = first_token != "False" and eos and length
    return (
        f"First token check pass: {first_token}\n"
        f"EOS check pass: {eos}\n"
        f"Sample length check pass: {length}\n"
        f"TEST06 verification {'complete' if passed else 'failed'}\n"
    )


GOOD = answer(0, [5, 6, 7, 2], [5])
# The output of MLCommons' compliance/TEST06/run_verification.py for these logs. Its
# end-of-sequence id is 2 by default, so it is 2 here too.
AGREED = {
    "one end-of-sequence token": ("Server", [GOOD], text("True", True, True)),
    "none": ("Server", [answer(0, [5, 6], [5])], text("True", True, True)),
    "one in the middle": ("Server", [answer(0, [5, 2, 6, 2], [5])], text("True", True, True)),
    "it alone": ("Server", [answer(0, [2], [2])], text("True", True, True)),
    "two of them": ("Server", [GOOD, answer(1, [5, 2, 2], [5])], text("True", False, True)),
    "another first token": ("Server", [GOOD, answer(1, [5, 6], [6])], text("False", True, True)),
    "no first token": ("Server", [answer(0, [5, 6])], text("False", True, True)),
    "129 counted for 128": (
        "SingleStream",
        [GOOD, answer(1, [5] * 128, [5], counted=129)],
        text("True", True, False),
    ),
    "all at once": (
        "Server",
        [answer(0, [5, 6], [6]), answer(1, [5, 2, 2, 2], [5], counted=3), GOOD],
        text("False", False, False),
    ),
    "offline": ("Offline", [answer(0, [5, 2]), answer(1, [6])], text("Skipped", True, True)),
    "offline, two of them": ("Offline", [answer(0, [5, 2, 2])], text("Skipped", False, True)),
}


@pytest.mark.parametrize("case", AGREED)
def test_writes_the_same_as_mlcommons_script(tmp_path: Path, case: str) -> None:
    scenario, answers, expected = AGREED[case]
    test = verify(read(write(tmp_path, *answers)), scenario, (2,))
    assert verify_accuracy_text(test) == expected


# The same script passes all of these: it takes one id, as text; it compares only as many first
# tokens as were reported.
@pytest.mark.parametrize(
    ("tokens", "first", "failing"),
    [
        ([5, 128009, 128009], [5], "eos"),
        ([5, 128008, 128009], [5], "eos"),
        ([128001, 128001], [128001], "eos"),
        ([5, 6], [], "first_token"),
    ],
)
def test_is_stricter_than_mlcommons_script(
    tmp_path: Path, tokens: list[int], first: list[int], failing: str
) -> None:
    test = verify(read(write(tmp_path, answer(3, tokens, first))), "Server", LLAMA_EOS)
    failed = {name for name in ("first_token", "eos", "length") if getattr(test, name)}
    assert failed == {failing} and getattr(test, failing) == (3,)


@pytest.mark.parametrize(
    "content",
    ["", "[", "[]", "{}", '[{"qsl_idx": 0}]', '[{"qsl_idx": 0, "data": "0x", "token_count": 1}]'],
)
def test_a_damaged_log_gets_no_verdict(tmp_path: Path, content: str) -> None:
    (tmp_path / "mlperf_log_accuracy.json").write_text(content)
    with pytest.raises(InputError, match=r"mlperf_log_accuracy\.json"):
        read(tmp_path)


def test_a_missing_log_gets_no_verdict(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        read(tmp_path)


def test_all_is_every_test_that_applies() -> None:
    everything = tuple(map(plan.Test, (Mode.PERFORMANCE, Mode.ACCURACY, Mode.COMPLIANCE)))
    assert plan_of("replay").tests == everything
    assert plan_of("llama3.1-8b", sets=LLAMA).tests == everything
    edge = plan_of("llama3.1-8b-edge", Scenario.OFFLINE, sets=LLAMA)
    assert edge.tests == everything[:2]
    assert plan.tests(Mode.COMPLIANCE, edge.compliance, 1) == (plan.Test(Mode.COMPLIANCE),)


LLAMA = [
    "site.device=cuda",
    "site.models={Llama-3.1-8B-Instruct: /m}",
    "site.datasets={cnn_eval.json: /d, sample_cnn_eval_5000.json: /d}",
]


def test_refuses_compliance_where_no_test_applies(tmp_path: Path) -> None:
    run = submit(tmp_path, *fast(), "--mode", "compliance", *set_arguments(["compliance=null"]))
    assert run.returncode == 2
    assert "--mode compliance: benchmark replay has no compliance test" in run.stderr


@pytest.mark.parametrize("scenario", [each.value for each in Scenario])
def test_a_compliance_run_passes_in_every_scenario(tmp_path: Path, scenario: str) -> None:
    run = submit(tmp_path, *fast(scenario), "--mode", "compliance")
    assert run.returncode == 0, run.stdout + run.stderr
    (phase,) = latest(tmp_path).phases
    first_token = None if scenario == "offline" else ()
    assert phase.test06 is not None and phase.test06.num_answers >= 100
    assert phase.test06 == Verification(
        num_answers=phase.test06.num_answers, first_token=first_token, eos=(), length=()
    )
    folder = RunDir(tmp_path / "runs" / "latest").loadgen("compliance")
    written = (folder / "verify_accuracy.txt").read_text()
    assert written == text("Skipped" if scenario == "offline" else "True", True, True)


def test_answers_with_two_final_eos_tokens_are_invalid(tmp_path: Path) -> None:
    # Prompts of one token, which the replay engine repeats: every answer ends in it.
    sets = ["dataset.min_prompt_tokens=1", "dataset.max_prompt_tokens=1"]
    prompts = synthetic(plan_of("replay", sets=sets).dataset).prompts
    sets += [f"compliance.eos_token_ids={[token for (token,) in prompts]}"]
    run = submit(tmp_path, *fast(), "--mode", "compliance", *set_arguments(sets))
    assert run.returncode == 1, run.stdout + run.stderr
    assert "test06_eos: An answer ends in more than one end-of-sequence token" in run.stdout
    folder = RunDir(tmp_path / "runs" / "latest").loadgen("compliance")
    assert (folder / "verify_accuracy.txt").read_text() == text("True", False, True)


def test_too_few_answers_are_invalid(tmp_path: Path) -> None:
    run = submit(tmp_path, *fast(), "--mode", "compliance", "--preset", "quick")
    assert run.returncode == 1
    assert "10 answers logged; at least 100 needed" in run.stdout
    log = read_log(RunDir(tmp_path / "runs" / "latest").loadgen("compliance"))
    whole = Verification(num_answers=100, first_token=(), eos=(), length=())
    codes = {check.code for check in judge(whole, log, num_failed=2).reasons}
    assert "failed_samples" in codes and "test06_answers" not in codes


def test_the_audit_settings_are_loadgens(tmp_path: Path) -> None:
    assert submit(tmp_path, *fast(), "--mode", "compliance").returncode == 0
    log = read_log(RunDir(tmp_path / "runs" / "latest").loadgen("compliance"))
    for line in mlperf_conf.audit_config("TEST06", 500).splitlines()[1:]:
        key, value = line.removeprefix("*.*.").split(" = ")
        logged = log.values[
            {"min_duration": "effective_min_duration_ms"}.get(key, f"effective_{key}")
        ]
        assert logged == int(value), key


# What MLCommons' compliance/TEST09/run_verification.py writes for answers of 4, 5 and 9 tokens.
OUTPUT_LEN = f"""\
{"=" * 80}
TEST09: Verify Output Token Length in Performance Mode
{"=" * 80}

Output Token Length Statistics
{"-" * 40}
Total samples: 3
Mean output tokens: 6.00
Min output tokens: 4
Max output tokens: 9
Std deviation: 2.16

{"=" * 80}
Verification Results
{"=" * 80}
Mean output tokens: 6.00
Min threshold: 5.5
Max threshold: 6.5
Min check pass: True
Max check pass: True

TEST PASS
"""
THREE = [answer(sample, [1] * num) for sample, num in enumerate((4, 5, 9))]


def test_output_lengths_are_written_as_by_mlcommons_script(tmp_path: Path) -> None:
    found = compliance_length.measure(read(write(tmp_path, *THREE)))
    bounds = Gate(low=5.5, high=6.5)
    assert compliance_length.verify_output_len_text(found, bounds) == OUTPUT_LEN
    above = compliance_length.verify_output_len_text(found, Gate(low=4, high=5.9))
    assert above.endswith("Min check pass: True\nMax check pass: False\n\nTEST FAIL\n")
    assert "Min threshold: 4.0\n" in above


@pytest.mark.parametrize(
    ("answers", "bounds", "failed"),
    [
        (THREE, Gate(low=6, high=6), set()),
        (THREE, Gate(low=6.1, high=9), {"test09_output_tokens"}),
        (THREE, Gate(low=1, high=5.9), {"test09_output_tokens"}),
        (THREE, Gate(low=6), set()),
        (THREE[:2], Gate(low=1, high=9), {"test09_answers"}),
        ([*THREE[:2], THREE[0]], Gate(low=1, high=9), {"test09_answers"}),
        ([*THREE[:2], answer(2, [1], counted=2)], Gate(low=1, high=9), {"test09_length"}),
    ],
)
def test_the_mean_length_of_all_answers_must_be_within_bounds(
    tmp_path: Path, answers: list[dict[str, Any]], bounds: Gate, failed: set[str]
) -> None:
    found = compliance_length.measure(read(write(tmp_path, *answers)))
    verdict = compliance_length.judge(found, bounds, 3, read_log(smallest_valid()))
    assert {check.code for check in verdict.reasons} == failed
    assert verdict.verdict == ("INVALID" if failed else "VALID")


@pytest.mark.parametrize("scenario", ["server", "offline"])
def test_a_run_of_test09_logs_every_answer(tmp_path: Path, scenario: str) -> None:
    tokens = ["compliance={output_tokens: {low: 16, high: 64}}"]
    run = submit(tmp_path, *fast(scenario), "--mode", "compliance", *set_arguments(tokens))
    assert run.returncode == 0, run.stdout + run.stderr
    (phase,) = latest(tmp_path).phases
    assert phase.test09 is not None and phase.test06 is None
    assert phase.test09.num_answers == phase.test09.num_samples == 500
    assert (
        f"TEST09    passed: {quantity(phase.test09.mean, 'tokens')} in a mean answer" in run.stdout
    )
    run_dir = RunDir(tmp_path / "runs" / "latest")
    written = (run_dir.loadgen("compliance") / "verify_output_len.txt").read_text()
    assert written.endswith("TEST PASS\n") and "Total samples: 500\n" in written
    audit = mlperf_conf.audit_config("TEST09", 500)
    assert run_dir.audit_conf("compliance").read_text() == audit
    assert "accuracy_log_sampling_target = 10000\n" in audit


OWN_DATA = "{name: synthetic, kind: synthetic, min_prompt_tokens: 8, max_prompt_tokens: 9"


@pytest.mark.parametrize("scenario", ["server", "offline"])
def test_a_run_of_test07_scores_every_sample_of_its_own_data(tmp_path: Path, scenario: str) -> None:
    test07 = f"test07: {{dataset: {OWN_DATA}, num_samples: 120}}, gates: {{exact_match: GATE}}}}"
    passed = [f"compliance={{{test07.replace('GATE', '{low: 1}')}}}"]
    run = submit(tmp_path, *fast(scenario), "--mode", "test07", *set_arguments(passed))
    assert run.returncode == 0, run.stdout + run.stderr
    assert "TEST07 passed" in run.stdout
    (phase,) = latest(tmp_path).phases
    assert (phase.name, phase.num_scored) == ("test07", 120)
    assert phase.accuracy == {"exact_match": 1.0}
    run_dir = RunDir(tmp_path / "runs" / "latest")
    assert len(read(run_dir.loadgen("test07"))) == 120
    written = (run_dir.loadgen("test07") / "verify_accuracy.txt").read_text()
    assert written.endswith(
        "Accuracy score: 1.0\nAccuracy threshold: 1.0\nAccuracy check pass: True\nTEST PASS\n"
    )
    failed = [f"compliance={{{test07.replace('GATE', '{low: 1.1}')}}}"]
    run = submit(tmp_path, *fast(scenario), "--mode", "test07", *set_arguments(failed))
    assert run.returncode == 1 and "TEST07 not passed" in run.stdout


def test_a_benchmark_has_only_the_compliance_tests_it_enables(tmp_path: Path) -> None:
    def error(mode: str, compliance: str) -> str:
        sets = set_arguments([f"compliance={compliance}"])
        run = submit(tmp_path, *fast(), "--mode", mode, *sets)
        assert run.returncode == 2, run.stdout
        return run.stderr

    assert "benchmark replay has no TEST07" in error("test07", "{eos_token_ids: [1]}")
    both = "{eos_token_ids: [1], output_tokens: {low: 1}}"
    assert "both eos_token_ids (TEST06) and output_tokens (TEST09)" in error("performance", both)
    assert "compliance enables no test" in error("performance", "{}")
    assert "benchmark replay has no compliance test" in error("compliance", "{}")
