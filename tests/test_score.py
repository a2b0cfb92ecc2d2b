"""gpt-oss-120b: its accuracy test is a run of its own, scored by MLCommons' program."""

from __future__ import annotations

import json
import re
import shutil
import textwrap
from pathlib import Path

import msgspec
import pytest
from cli import ROOT, set_arguments, submit
from plans import plan_of
from test_convert import ORCA

from sut import convert, package, score
from sut.errors import InputError
from sut.plan.benchmark import Scenario
from sut.plan.plan import Mode
from sut.results import accuracy, record, verification
from sut.rundir import RunDir
from sut.submission import reasons
from sut.submission.runs import Run

PROGRAM = "language/gpt-oss-120b/eval_mlperf_accuracy.py"
PATHS = ["site.device=cuda", "site.models={gpt-oss-120b: /m}"]
PATHS += ["site.datasets={gpt-oss-120b-performance: /p, gpt-oss-120b-accuracy: /a}"]
# In place of MLCommons' program, whose requirements are not installed: the same options and output.
STAND_IN = """
import argparse, json, pathlib
parser = argparse.ArgumentParser()
for name in ("--mlperf-log", "--reference-data", "--tokenizer"):
    parser.add_argument(name, required=True)
options = parser.parse_args()
assert pathlib.Path(options.tokenizer, "tokenizer.json").is_file()
answered = {entry["qsl_idx"] for entry in json.load(open(options.mlperf_log))}
share = float(pathlib.Path(options.reference_data).read_text())
print("FINAL SCORE: of", len(answered), "samples")
print(f"\\n'exact_match': {100 * share * len(answered) / 24:.3f}")
"""


def test_the_accuracy_test_has_its_own_data_and_settings() -> None:
    performance, of_accuracy = (
        plan_of("gpt-oss-120b", Scenario.OFFLINE, sets=PATHS, mode=mode)
        for mode in (Mode.PERFORMANCE, Mode.ACCURACY)
    )
    assert (performance.dataset.path, performance.dataset.num_samples) == ("/p", 6396)
    assert (of_accuracy.dataset.path, of_accuracy.dataset.num_samples) == ("/a", 4395)
    assert performance.generation.max_tokens == 10_240
    assert of_accuracy.generation.max_tokens == 32_768
    assert performance.generation.seed is None and performance.generation.temperature == 1
    with pytest.raises(InputError, match="run --mode performance, and then --mode accuracy"):
        plan_of("gpt-oss-120b", sets=PATHS, mode=Mode.ALL)


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An accuracy run of 24 samples with the replay engine."""
    return rehearse(tmp_path_factory.mktemp("gpt-oss"), "accuracy")


def rehearse(folder: Path, mode: str) -> Path:
    assert convert.main([str(ORCA), str(folder / "data.jsonl")]) == 0
    (folder / "site.yaml").write_text(
        f"name: here\nrun_root: {folder}/runs\n"
        f"datasets: {{gpt-oss-120b-accuracy: {folder}/data.jsonl, "
        f"gpt-oss-120b-compliance: {folder}/data.jsonl}}\n"
    )
    sets = ["model={name: SmolLM2-135M-Instruct, embedded: true, loadgen_name: gpt-oss-120b}"]
    sets += ["accuracy_test.dataset.num_samples=24", "engine.kind=replay"]
    sets += ["compliance.test07.dataset.num_samples=24", "generation.max_tokens=1024"]
    sets += ["accuracy_test.generation.max_tokens=1024", "engine.replay.step_base_us=200"]
    sets += ["scenarios.offline.accuracy_sample_count=24"]
    sets += ["scenarios.offline.performance_sample_count=24", "scenarios.offline.target_qps=100"]
    run = submit(
        *(folder, "--config", "gpt-oss-120b", "--site", str(folder / "site.yaml")),
        *("--scenario", "offline", "--preset", "official", "--mode", mode),
        *set_arguments(sets),
    )
    assert run.returncode == 1, run.stdout + run.stderr
    made = (folder / "runs" / "latest").resolve()
    report = (made / "report.md").read_text()
    assert "exact_match is not scored" in report and "python -m sut.score" in report
    return made


@pytest.fixture
def run(rehearsed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(rehearsed, tmp_path / rehearsed.name))


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    program = tmp_path / "inference" / PROGRAM
    program.parent.mkdir(parents=True)
    program.write_text(STAND_IN)
    (tmp_path / "references").write_text("0.83")
    inference = ["--inference", str(tmp_path / "inference")]
    return [*inference, "--references", str(tmp_path / "references")]


def test_the_program_decides_whether_the_accuracy_is_met(
    run: Path, options: list[str], tmp_path: Path
) -> None:
    assert score.main([str(run), *options]) == 0
    found = record.read(run)
    scores = found.phases[0].accuracy
    assert scores is not None and scores["exact_match"] == 83.0
    assert scores["tokens_per_sample"] > 1
    assert (found.verdict, found.exit_code) == ("VALID", 0)
    assert accuracy.PROGRAM_OUTPUT in found.phases[0].file_sha256
    assert verification.of_files(found, RunDir(run)) == []
    judged = verification.of_verdicts(found, RunDir(run), None, None)
    assert not judged.differences
    (tmp_path / "references").write_text("0.82")
    assert score.main([str(run), *options]) == 1
    assert record.read(run).verdict == "INVALID"


def test_a_closed_submission_needs_every_compliance_test(
    run: Path, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score.main([str(run), *options]) == 0
    arguments = ["--submitter", "X", "--division", "closed", "--output", str(tmp_path / "tree")]
    assert package.main([*arguments, str(run)]) == 2
    printed = capsys.readouterr().err
    for mode in ("performance", "compliance", "test07"):
        assert f"Offline: no run has the {mode} test; run it with --mode {mode}" in printed
    assert package.main([*arguments, "--preview", str(run)]) == 0
    (text,) = (tmp_path / "tree").glob("closed/X/results/*/*/Offline/accuracy/accuracy.txt")
    assert "'exact_match': 83" in text.read_text()


def test_the_program_decides_whether_test07_passes(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = rehearse(tmp_path / "test07", "test07")
    (tmp_path / "references").write_text("0.607")
    assert score.main([str(run), *options]) == 0
    assert "TEST07 passed" in capsys.readouterr().out
    found = record.read(run)
    assert found.phases[0].accuracy == {"exact_match": 60.7}
    assert not verification.of_verdicts(found, RunDir(run), None, None).differences
    arguments = ["--submitter", "X", "--division", "closed", "--preview", str(run)]
    assert package.main([*arguments, "--output", str(tmp_path / "tree")]) == 0
    (made,) = (tmp_path / "tree").glob("closed/X/results/*/gpt-oss-120b/Offline/TEST07")
    text = (made / "verify_accuracy.txt").read_text()
    assert "FINAL SCORE: of 24 samples" in text and "\nTEST PASS\n" in text
    sha256 = found.phases[0].file_sha256["mlperf_log_accuracy.json"]
    assert (made / "accuracy" / "accuracy.txt").read_text() == f"hash={sha256}\n"
    assert (made / "performance" / "run_1" / "mlperf_log_detail.txt").is_file()
    (tmp_path / "references").write_text("0.606")
    assert score.main([str(run), *options]) == 1
    assert "TEST FAIL" in (run / "loadgen" / "test07" / "verify_accuracy.txt").read_text()


def test_only_a_test_with_own_data_may_have_other_data(rehearsed: Path) -> None:
    found = record.read(rehearsed)

    def run_of(mode: Mode, name: str, max_tokens: int) -> Run:
        data = msgspec.structs.replace(found.plan.dataset, name=name)
        generation = msgspec.structs.replace(found.plan.generation, max_tokens=max_tokens)
        plan = msgspec.structs.replace(found.plan, mode=mode, dataset=data, generation=generation)
        hashes = msgspec.structs.replace(found.hashes, data=name, tokens=name)
        changed = msgspec.structs.replace(found, plan=plan, hashes=hashes)
        return Run(RunDir(rehearsed), changed)

    performance = run_of(Mode.PERFORMANCE, "p", 10)
    of_accuracy = run_of(Mode.ACCURACY, "a", 20)
    assert list(reasons._of_inputs([performance, of_accuracy])) == []
    test07 = run_of(Mode.TEST07, "t", 10)
    assert list(reasons._of_inputs([performance, of_accuracy, test07])) == []
    other_data = run_of(Mode.COMPLIANCE, "c", 10)
    assert "plan.dataset" in "".join(reasons._of_inputs([performance, other_data]))
    for other in (run_of(Mode.PERFORMANCE, "q", 10), run_of(Mode.ACCURACY, "b", 20)):
        lines = list(reasons._of_inputs([performance, of_accuracy, other]))
        assert lines and all("plan.dataset" in line or "data_sha256" in line for line in lines)
    shorter = run_of(Mode.PERFORMANCE, "p", 9)
    assert "plan.generation" in "".join(reasons._of_inputs([performance, shorter]))


def test_an_edited_score_is_found(run: Path, options: list[str]) -> None:
    assert score.main([str(run), *options]) == 0
    output = run / "loadgen" / "accuracy" / accuracy.PROGRAM_OUTPUT
    output.write_text(output.read_text().replace("83.000", "99.000"))
    changes = verification.of_files(record.read(run), RunDir(run))
    assert len(changes) == 1 and accuracy.PROGRAM_OUTPUT in changes[0]
    assert score.main([str(run), *options]) == 2


def test_names_what_to_fetch(
    run: Path, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score.main([str(run)]) == 2
    printed = capsys.readouterr().err
    assert f"is scored by a program, {PROGRAM}" in printed
    assert "git clone https://github.com/mlcommons/inference" in printed
    assert score.main([str(run), *options, "--inference", str(tmp_path)]) == 2
    assert f"--inference: no file {tmp_path / PROGRAM}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("program", "code", "problem"),
    [
        ("raise SystemExit(4)", 3, "exited with code 4"),
        ("print('no score')", 2, "printed no 'exact_match'"),
        ("print('exact_match: 83')", 2, "printed no 'exact_match'"),
        ("print({'exact_match': 83, 'of': 24})", 2, "printed no 'exact_match'"),
    ],
)
def test_a_program_that_fails_scores_nothing(
    run: Path,
    options: list[str],
    capsys: pytest.CaptureFixture[str],
    program: str,
    code: int,
    problem: str,
) -> None:
    before = (run / "record.json").read_bytes()
    (Path(options[1]) / PROGRAM).write_text(program)
    assert score.main([str(run), *options]) == code
    assert problem in capsys.readouterr().err
    assert (run / "record.json").read_bytes() == before


@pytest.mark.parametrize("line", ["{'exact_match': 83.5}", '{"scores": {"exact_match": 83.5}}  '])
def test_reads_a_score_that_is_printed_in_a_dict(tmp_path: Path, line: str) -> None:
    (tmp_path / accuracy.PROGRAM_OUTPUT).write_text(f"'exact_match': 1\n{line}\n")
    assert accuracy.of_program(tmp_path) == {"exact_match": 83.5}


def test_the_docs_own_benchmark_and_scorer_work(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    for name, language in (("quiz.yaml", "yaml"), ("score.py", "python")):
        block = re.search(rf"\d\. `{name}`.*?   ```{language}\n(.*?)   ```", page, re.DOTALL)
        assert block
        (tmp_path / name).write_text(textwrap.dedent(block[1]))
    right, wrong = ("ABCD"[i % 4] for i in range(50)), "E"
    questions = [{"input": "6 times 7?", "output": f"Answer: {letter}"} for letter in right]
    (tmp_path / "quiz.json").write_text(json.dumps(questions))
    (site,) = re.findall(r"`mine\.yaml`, the site: `(.+)`", page)
    (tmp_path / "mine.yaml").write_text(site)
    checked = submit(tmp_path, "quiz.yaml", command="validate")
    assert checked.returncode == 0, checked.stderr
    sets = ["engine.kind=replay", "engine.replay.answers=references"]
    words = ("--config", "quiz.yaml", "--site", "mine.yaml", "--scenario", "server")
    run = submit(tmp_path, *words, "--mode", "accuracy", *set_arguments(sets))
    assert run.returncode == 1, run.stdout + run.stderr
    command = re.search(
        r"accuracy  not scored yet: python -m sut\.score (\S+) --inference", run.stdout
    )
    assert command and Path(command[1]).samefile(tmp_path / "runs" / "latest"), run.stdout
    for changed, expected in ((0, "100"), (5, "90"), (6, "88")):
        for question in questions[:changed]:
            question["output"] = wrong
        (tmp_path / "quiz.json").write_text(json.dumps(questions))
        done = submit(
            *(tmp_path, "latest", "--site", "mine.yaml", "--inference", "."),
            *("--references", "quiz.json"),
            command="score",
        )
        assert f"exact_match {expected}\n" in done.stdout, done.stdout + done.stderr
        assert done.returncode == (1 if expected == "88" else 0)
