"""A submission contains only runs that can be submitted; a preview is marked as none."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cli import environment, fast, set_arguments, submit
from submissions import GIT, OFFICIAL_DATA, as_official, site_file

from sut import package
from sut.machine.environment import Git
from sut.plan.benchmark import Accuracy, Gate
from sut.plan.plan import Mode, Plan
from sut.results import record
from sut.results.messaging import UNVERIFIED
from sut.results.record import Failure, Hashes, Record
from sut.rundir import RunDir
from sut.submission import system, texts
from sut.submission.texts import PREVIEW

pytestmark = pytest.mark.skipif(GIT is None, reason="the source of a run is a commit of a checkout")

RESULTS = "closed/Example/results/Two_nodes_1x_A30_/llama3.1-8b"
LOADGEN_FILES = {"mlperf_log_summary.txt", "mlperf_log_detail.txt", "mlperf_log_accuracy.json"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Real VALID runs of the replay benchmark with all tests."""
    folder = tmp_path_factory.mktemp("made")
    for scenario in ("offline", "server"):
        run = submit(folder, *fast(scenario), "--mode", "all")
        assert run.returncode == 0, run.stdout + run.stderr
    runs = {r.name.split("-")[-2]: r for r in (folder / "runs").iterdir() if r.name != "latest"}
    assert runs.keys() == {"offline", "server"}
    return runs


@pytest.fixture
def official(made: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """The same runs as if they were official."""
    return {name: as_official(run, tmp_path / "runs") for name, run in made.items()}


def build(tmp_path: Path, *runs: Path, division: str = "closed", options: Any = ()) -> int:
    site = ["--site", str(site_file(tmp_path))] if "--site" not in options else []
    arguments = ["--submitter", "Example", "--division", division, *site, *options]
    arguments += ["--output", str(tmp_path / "tree"), *map(str, runs)]
    return package.main(arguments)


def files_of(tree: Path) -> dict[str, bytes]:
    return {str(p.relative_to(tree)): p.read_bytes() for p in tree.rglob("*") if p.is_file()}


def change_record(run: Path, **changes: Any) -> None:
    record.write(msgspec.structs.replace(record.read(run), **changes), RunDir(run))


def change_plan(run: Path, **changes: Any) -> None:
    before = record.read(run)
    plan = msgspec.structs.replace(before.plan, **changes)
    RunDir(run).plan.write_bytes(msgspec.json.encode(plan))
    RunDir(run).user_conf.write_text(plan.user_conf())
    change_record(run, plan=plan, plan_digest=plan.digest())


def test_builds_the_files_that_the_checker_expects(
    official: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(tmp_path, *official.values()) == 0, capsys.readouterr().err
    files = files_of(tmp_path / "tree")
    for scenario in ("Offline", "Server"):
        folder = f"{RESULTS}/{scenario}"
        assert {name for name in files if name.startswith(folder)} == {
            f"{folder}/{name}"
            for name in (
                *("README.md", "measurements.json", "plan.json", "user.conf"),
                *("performance/run_1/mlperf_log_summary.txt",),
                *("performance/run_1/mlperf_log_detail.txt",),
                *("accuracy/mlperf_log_summary.txt", "accuracy/mlperf_log_detail.txt"),
                *("accuracy/mlperf_log_accuracy.json", "accuracy/accuracy.txt"),
                *("TEST06/verify_accuracy.txt", "TEST06/accuracy/mlperf_log_accuracy.json"),
                *("TEST06/performance/run_1/mlperf_log_summary.txt",),
                *("TEST06/performance/run_1/mlperf_log_detail.txt",),
            )
        }
        log = (
            official[scenario.lower()] / "loadgen/accuracy/mlperf_log_accuracy.json"
        ).read_bytes()
        cut = files[f"{folder}/accuracy/mlperf_log_accuracy.json"]
        assert len(log) > 10 * 1024 > len(cut)
        assert cut == log[:4096] + b"\n\n...\n\n" + log[-4096:]
        text = files[f"{folder}/accuracy/accuracy.txt"].decode()
        assert text.endswith(f"\nhash={hashlib.sha256(log).hexdigest()}\n")
        assert "{'exact_match': 1, 'gen_num': 500}" in text
    assert "closed/Example/src/llama3.1-8b/mlperf-sut/sut/package.py" in files
    assert not any(PREVIEW.encode() in content for content in ours(files).values())
    label = f"MLPerf Inference v6.1 Closed, llama3.1-8b, Server: unverified. {UNVERIFIED}"
    assert label in files[f"{RESULTS}/Server/README.md"].decode()


def ours(files: dict[str, bytes]) -> dict[str, bytes]:
    """All files but the project's own source, which contains the mark."""
    return {name: content for name, content in files.items() if "/mlperf-sut/" not in name}


def test_describes_the_system_from_record_and_site(
    official: dict[str, Path], tmp_path: Path
) -> None:
    assert build(tmp_path, *official.values()) == 0
    path = tmp_path / "tree" / "closed/Example/systems/Two_nodes_1x_A30_.json"
    system_json = json.loads(path.read_bytes())
    assert list(system_json) == list(system.FIELDS)
    assert (
        system_json
        | {
            "division": "closed",
            "submitter": "Example",
            "number_of_nodes": 1,
            "host_processor_model_name": "AMD EPYC 7313",
            "host_processors_per_node": 2,
            "host_processor_core_count": 16,
            "host_memory_capacity": "251 GiB",
            "accelerators_per_node": "1",
            "accelerator_model_name": "NVIDIA A30",
            "accelerator_memory_capacity": "24 GiB",
            "framework": "vLLM 0.32.0",
            "system_type": "datacenter",
            "cooling": "air",
            "hw_notes": "",
        }
        == system_json
    )


def fail(run: Path) -> None:
    failure = Failure(code="engine_died", message="the engine died")
    change_record(run, status="failed", verdict=None, exit_code=3, failure=failure)


def truncate(run: Path) -> None:
    change_record(run, status="truncated", verdict=None, exit_code=3)


def break_a_rule(run: Path) -> None:
    def unmet(phase: Any) -> Any:
        check = msgspec.structs.replace(phase.verdict.checks[0], met=False, text="Too short.")
        verdict = msgspec.structs.replace(phase.verdict, verdict="INVALID", reasons=(check,))
        return msgspec.structs.replace(phase, verdict=verdict)

    first, *others = record.read(run).phases
    change_record(run, phases=(unmet(first), *others))


def leave_out(mode: Mode) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        phases = record.read(run).phases
        change_record(run, phases=tuple(phase for phase in phases if phase.name != mode))

    return change


def on_other_machines(run: Path) -> None:
    before = record.read(run).environment
    change_record(run, environment=msgspec.structs.replace(before, cpu_model="another"))


def with_an_unlike_node(run: Path) -> None:
    before = record.read(run).environment
    other = msgspec.structs.replace(before, hostname="jw3", gpus=())
    change_record(run, nodes=(other,))


def from_source(git: Git | None) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        before = record.read(run).environment
        change_record(run, environment=msgspec.structs.replace(before, git=git))

    return change


COMMIT = GIT.commit if GIT else ""
AGAINST: dict[str, tuple[Callable[[Path], None], str]] = {
    "failed": (fail, "the run is failed: engine_died"),
    "truncated": (truncate, "the run is truncated"),
    "INVALID": (break_a_rule, "INVALID: performance, min_duration: Too short."),
    "not official": (
        lambda run: change_plan(run, official=False, not_official_because=("preset smoke",)),
        "not official: preset smoke",
    ),
    "other data": (
        lambda run: change_record(run, hashes=Hashes(model="a" * 64, data="b" * 64)),
        f"the data's sha256 is {'b' * 64}, but that of MLCommons' cnn_eval.json is {OFFICIAL_DATA}",
    ),
    "another model": (
        lambda run: change_record(run, hashes=Hashes(model="c" * 64, data=OFFICIAL_DATA)),
        "model_sha256",
    ),
    "another machine": (on_other_machines, "cpu_model"),
    "unlike nodes": (with_an_unlike_node, "jw3 differs from"),
    "changed source": (
        from_source(Git(commit=COMMIT, dirty=True)),
        "the source had uncommitted changes",
    ),
    "unknown source": (from_source(None), "the commit of the source is unknown"),
    "foreign source": (from_source(Git(commit="1" * 40, dirty=False)), "git fetch"),
    "no accuracy": (leave_out(Mode.ACCURACY), "Server: no run has the accuracy test"),
    "no compliance": (leave_out(Mode.COMPLIANCE), "Server: no run has the compliance test"),
}


@pytest.mark.parametrize("case", AGAINST)
def test_refuses_a_run_with_its_reason(
    official: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    change, reason = AGAINST[case]
    change(official["server"])
    assert build(tmp_path, *official.values()) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "tree").exists()
    assert build(tmp_path, *official.values(), options=["--preview"]) == 0
    assert reason in (tmp_path / "tree/closed/Example/README.md").read_text()


def test_prints_all_reasons_together(
    official: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run,) = (official["server"],)
    for case in ("INVALID", "not official", "other data", "changed source", "no compliance"):
        AGAINST[case][0](run)
    site = site_file(tmp_path, cooling=None, host_storage_type=None, host_memory_capacity="1 GB")
    assert build(tmp_path, run, options=["--site", str(site)]) == 2
    printed = capsys.readouterr().err
    for case in ("INVALID", "not official", "other data", "changed source", "no compliance"):
        assert AGAINST[case][1] in printed
    assert "closed llama3.1-8b needs Offline" in printed
    assert f"the file of site {site} lacks under system: host_storage_type, cooling" in printed
    assert "system.host_memory_capacity is '1 GB', but '251 GiB' was measured" in printed


def test_tests_of_a_scenario_share_one_plan(
    made: dict[str, Path], official: dict[str, Path], tmp_path: Path, capsys: Any
) -> None:
    def part(mode: Mode) -> Path:
        run = as_official(made["server"], tmp_path / mode, plan={"mode": mode})
        return run.rename(tmp_path / mode / f"{mode}-run")

    performance, *rest = map(part, (Mode.PERFORMANCE, Mode.ACCURACY, Mode.COMPLIANCE))
    assert build(tmp_path, official["offline"], performance, *rest) == 0, capsys.readouterr().err
    shutil.rmtree(tmp_path / "tree")
    settings = msgspec.structs.replace(record.read(rest[0]).plan.loadgen_settings, target_qps=7)
    change_plan(rest[0], loadgen_settings=settings)
    assert build(tmp_path, official["offline"], performance, *rest) == 2
    assert (
        "differs from performance-run: plan.loadgen_settings.target_qps" in capsys.readouterr().err
    )
    assert build(tmp_path, official["offline"], performance, official["server"]) == 2
    printed = capsys.readouterr().err
    assert "Server, performance: " in printed and "; give one of them" in printed


def test_open_results_need_only_one_scenario(
    made: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missed = Accuracy(reference={"exact_match": 2.0}, gates={"exact_match": Gate(low=2.0)})
    plan = {"compliance": None, "accuracy": missed}
    run = as_official(made["server"], tmp_path / "runs", plan=plan)
    assert record.read(run).verdict == "INVALID"
    assert build(tmp_path, run, division="open") == 0, capsys.readouterr().err
    assert (tmp_path / "tree/open/Example/systems").is_dir()
    shutil.rmtree(tmp_path / "tree")
    break_a_rule(run)
    assert build(tmp_path, run, division="open") == 2


@pytest.mark.parametrize("phase", ["performance", "accuracy", "compliance"])
def test_refuses_a_changed_log_even_in_a_preview(
    official: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], phase: str
) -> None:
    folder = official["server"] / "loadgen" / phase
    files = [file for file in folder.iterdir() if file.stat().st_size > 0]
    assert {file.name for file in files} >= LOADGEN_FILES - {"mlperf_log_accuracy.json"}
    for file in files:
        whole = file.read_bytes()
        place = len(whole) // 2
        changed = bytes([whole[place] ^ 1])
        file.write_bytes(whole[:place] + changed + whole[place + 1 :])
        assert build(tmp_path, *official.values(), options=["--preview"]) == 2
        error = capsys.readouterr().err
        assert f"{file}: changed since the run" in error
        assert "judging" not in error  # which takes minutes and changes nothing
        file.unlink()
        assert build(tmp_path, *official.values(), options=["--preview"]) == 2
        assert f"{file}: cannot read it: No such file" in capsys.readouterr().err
        file.write_bytes(whole)
    assert build(tmp_path, *official.values()) == 0


def test_check_finds_changed_files(
    official: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(tmp_path, *official.values()) == 0
    check = ["--check", str(tmp_path / "tree")]
    assert package.main(check) == 0
    log = tmp_path / "tree" / RESULTS / "Server/performance/run_1/mlperf_log_detail.txt"
    whole = log.read_bytes()
    log.write_bytes(whole.replace(b"VALID", b"VALIE", 1))
    assert package.main(check) == 2
    assert f"{log}: changed since it was built" in capsys.readouterr().err
    log.rename(log.with_name("other.txt"))
    assert package.main(check) == 2
    printed = capsys.readouterr().err
    assert f"{log}: missing" in printed and f"{log.with_name('other.txt')}: added since" in printed
    root = tmp_path / "tree" / "closed/Example"
    log.with_name("other.txt").unlink()
    log.write_bytes(whole)
    assert package.main(check) == 0
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=root, check=True)
    assert package.main(["--check", str(tmp_path / "runs")]) == 2
    assert "not a submission built by sut.package" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["plan.json", "user.conf"])
def test_refuses_a_changed_plan_even_in_a_preview(
    official: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    file = official["server"] / name
    file.write_text(file.read_text() + "\n")
    assert build(tmp_path, *official.values(), options=["--preview"]) == 2
    assert f"{file}: changed since the run" in capsys.readouterr().err


def test_refuses_a_record_without_hashes(
    official: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = official["server"]
    phases = [msgspec.structs.replace(phase, file_sha256={}) for phase in record.read(run).phases]
    change_record(run, phases=tuple(phases))
    assert build(tmp_path, *official.values(), options=["--preview"]) == 2
    assert "no hashes of its files" in capsys.readouterr().err


def test_marks_every_file_of_a_preview(
    made: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(tmp_path, *made.values()) == 2
    assert "the replay engine answers, not a model" in capsys.readouterr().err
    assert build(tmp_path, *made.values(), options=["--preview"]) == 0
    assert PREVIEW in capsys.readouterr().out
    files = ours(files_of(tmp_path / "tree"))
    unmarked = {*LOADGEN_FILES, "plan.json", "SHA256SUMS"}
    evidence = {name for name in files if Path(name).name in unmarked}
    for name in files.keys() - evidence:
        assert PREVIEW in files[name].decode(), name
    assert len(evidence) == 2 * 9 + 1
    for name in evidence:
        assert PREVIEW.encode() not in files[name]
    detail = "closed/Example/results/Two_nodes_1x_A30_/replay/Server/performance/run_1/"
    log = (made["server"] / "loadgen/performance/mlperf_log_detail.txt").read_bytes()
    assert files[f"{detail}mlperf_log_detail.txt"] == log
    assert json.loads(files["closed/Example/systems/Two_nodes_1x_A30_.json"])["framework"] == (
        "replay engine: no model"
    )


def test_a_preview_names_unknown_system_fields(made: dict[str, Path], tmp_path: Path) -> None:
    options = ["--preview", "--site", "local"]
    assert build(tmp_path, *made.values(), options=options) == 0
    (path,) = (tmp_path / "tree/closed/Example/systems").iterdir()
    system_json = json.loads(path.read_bytes())
    assert (
        system_json["cooling"] == system_json["system_name"] == "not given"
        and path.stem == "not_given"
    )


def test_refuses_a_preview_without_a_finished_test(
    official: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fail(official["server"])
    change_record(official["server"], phases=())
    assert build(tmp_path, official["server"], options=["--preview"]) == 2
    printed = capsys.readouterr().err
    assert "the run has no finished test" in printed
    assert "--preview cannot be built from these runs either" in printed


def test_refuses_an_existing_output_folder(official: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "mine").write_text("mine")
    assert build(tmp_path, *official.values()) == 2
    assert files_of(tmp_path / "tree") == {"mine": b"mine"}
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "site.yaml", "tree"}


def test_refuses_bad_runs_and_submitters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(tmp_path, tmp_path / "a", tmp_path / "b") == 2
    printed = capsys.readouterr().err
    assert f"{tmp_path / 'a'}" in printed and f"{tmp_path / 'b'}" in printed
    assert package.main(["--submitter", "../x", "--division", "open", "a"]) == 2
    assert "--submitter '../x' is not a folder name" in capsys.readouterr().err


def test_keeps_short_accuracy_logs_whole() -> None:
    assert texts.truncated(b"x" * 4095) == b"x" * 4095
    assert texts.truncated(b"x" * 4096) == b"x" * 4096 + b"\n\n...\n\n" + b"x" * 4096


def test_measurements_describe_the_weights(made: dict[str, Path]) -> None:
    plan = record.read(made["server"]).plan

    def weights(*arguments: str) -> tuple[str, str]:
        engine = msgspec.structs.replace(plan.engine, extra_args=arguments)
        content = texts.measurements(msgspec.structs.replace(plan, engine=engine), preview=False)
        return content["weight_data_types"], content["weight_transformations"]

    assert weights() == ("bf16", "no")
    assert weights("--quantization=fp8") == ("fp8", "quantization to fp8")
    assert weights("--seed", "1", "-q", "awq") == ("awq", "quantization to awq")


@pytest.mark.parametrize("benchmark", ["llama3.1-8b", "llama2-70b-99.9"])
def test_the_commands_of_a_rehearsal_run(tmp_path: Path, benchmark: str) -> None:
    from tools import rehearsal

    folder = tmp_path / "a rehearsal"
    rehearsal.make(folder, benchmark, num=40)
    offline, server, packaged = rehearsal.next_commands(folder)
    for command in (f"{offline} --dry-run", f"{server} --dry-run"):
        done = subprocess.run(
            command.replace("python", sys.executable, 1),
            shell=True,
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    words = shlex.split(packaged)
    assert words[:3] == ["python", "-m", "sut.package"]
    assert words[-3:] == ["--site", f"{folder}/site.yaml", f"{folder}/runs/*official"]


def test_a_rehearsal_is_no_submission(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tools import rehearsal

    rehearsal.make(tmp_path, num=40)
    few = ["dataset.num_samples=40", "scenarios.offline.min_duration_ms=100"]
    few += ["scenarios.offline.min_query_count=40", "scenarios.offline.performance_sample_count=40"]
    few += ["scenarios.offline.accuracy_sample_count=40", "accuracy.gates.gen_len={low: 0}"]
    site = ["--site", str(tmp_path / "site.yaml")]
    run = submit(
        *(tmp_path, "--config", str(tmp_path / "rehearsal.yaml"), *site),
        *("--scenario", "offline", "--preset", "official", "--mode", "all", *set_arguments(few)),
    )
    assert run.returncode == 0, run.stdout + run.stderr
    found: Record = record.read(tmp_path / "runs" / "latest")
    scores = found.phases[1].accuracy
    assert scores is not None and scores["rouge1"] == scores["rougeLsum"] == 100
    assert 0.9 < scores["gen_len"] / 40 / (8_167_644 / 13_368) < 1.1
    plan: Plan = found.plan
    assert plan.model.loadgen_name == "llama3_1-8b" and not plan.official
    arguments = ["--submitter", "X", "--division", "closed", *site, str(tmp_path / "runs/latest")]
    assert package.main([*arguments, "--output", str(tmp_path / "tree")]) == 2
    printed = capsys.readouterr().err
    assert f"but that of MLCommons' cnn_eval.json is {OFFICIAL_DATA}" in printed
    assert "the replay engine answers, not a model" in printed
