"""A run is as its record says, or every change is found."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cli import ROOT, environment, fast, set_arguments, submit
from records import rewrite
from submissions import site_file

from sut import package, verify
from sut.errors import InputError
from sut.history import __main__ as history
from sut.inputs import hashes
from sut.results import record, verification
from sut.rundir import RunDir

NUM_CHANGES = 1000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real VALID run of the replay benchmark with all tests."""
    folder = tmp_path_factory.mktemp("made")
    done = submit(folder, *fast(), "--mode", "all")
    assert done.returncode == 0, done.stdout + done.stderr
    return (folder / "runs" / "latest").resolve()


@pytest.fixture
def run(made: Path, tmp_path: Path) -> RunDir:
    shutil.copytree(made, tmp_path / "runs" / made.name)
    return RunDir(tmp_path / "runs" / made.name)


Printed = pytest.CaptureFixture[str]


def differences(run: RunDir, capsys: Printed, *options: str) -> list[str]:
    """What ``sut.verify`` finds."""
    code = verify.main([str(run), "--json", *options])
    (result,) = json.loads(capsys.readouterr().out)
    assert code == (1 if result["differences"] else 0)
    assert result["verified"] is not bool(result["differences"])
    found: list[str] = result["differences"]
    return found


def resealed(run: RunDir, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the record, and its digest too."""
    document = json.loads(run.record.read_bytes())
    change(document)
    rewrite(run.record, document)


def test_a_run_is_as_recorded(run: RunDir, capsys: Printed) -> None:
    assert differences(run, capsys) == []
    assert verify.main([str(run)]) == 0
    printed = capsys.readouterr().out
    assert f"{run}: as recorded: VALID" in printed
    assert re.search(r"not covered by the record: claims/ \(\d+ files\), job/", printed)
    assert "not checked" not in printed


def test_a_failed_run_is_as_recorded(tmp_path: Path, capsys: Printed) -> None:
    faults = set_arguments(["engine.replay.faults=['die@100']"])
    assert submit(tmp_path, *fast(), "--mode", "all", *faults).returncode == 3
    run = RunDir(tmp_path / "runs" / "latest")
    assert record.read(run.root).status == "failed"
    assert differences(run, capsys) == []


def test_finds_a_thousand_changed_bytes(run: RunDir) -> None:
    """In any file that the record covers, and in the record. submitit's files, which
    are written after it, are named as not covered."""
    found = record.read(run.root)
    covered = {run.root / name for name in found.files} | {run.record}
    for phase in found.phases:
        assert covered.isdisjoint(phase.files(run)), "hashed once"
        covered |= phase.files(run).keys()
    files = sorted(file for file in covered if file.stat().st_size)
    names = {file.relative_to(run.root).parts[0] for file in files}
    assert names >= {"loadgen", "logs", "plan.json", "user.conf", "attempts.json"}
    assert names >= {"report.md", "report.html", "progress.jsonl", "command.json", "record.json"}
    source = random.Random(6)
    for _ in range(NUM_CHANGES):
        file = source.choice(files)
        with file.open("r+b") as content:
            place = source.randrange(file.stat().st_size)
            content.seek(place)
            before = content.read(1)
            content.seek(place)
            content.write(bytes([before[0] ^ source.randrange(1, 256)]))
            content.flush()
            assert changed(run, file), (file, place)
            content.seek(place)
            content.write(before)
    assert not changed(run, run.record) and verification.of_files(record.read(run.root), run) == []


def changed(run: RunDir, file: Path) -> bool:
    """Whether the part of the check that needs no judging finds that ``file`` changed."""
    try:
        lines = verification.of_files(record.read(run.root), run)
    except InputError:  # an altered record, or none at all
        return file == run.record
    return any(str(file) in line for line in lines)


def test_finds_a_changed_verdict(run: RunDir, capsys: Printed) -> None:
    text = run.record.read_text()
    run.record.write_text(text.replace('"verdict": "VALID"', '"verdict": "INVALID"'))
    (line,) = differences(run, capsys)
    assert f"{run.record}: changed since it was written" in line


def invalid(document: dict[str, Any]) -> None:
    document["phases"][0]["verdict"]["verdict"] = document["verdict"] = "INVALID"
    document["exit_code"] = 1


def without_a_check(document: dict[str, Any]) -> None:
    document["phases"][0]["verdict"]["checks"].pop()


def faster(document: dict[str, Any]) -> None:
    document["phases"][0]["loadgen"]["result_completed_tokens_per_second"] *= 2


def better(document: dict[str, Any]) -> None:
    document["phases"][1]["accuracy"]["exact_match"] = 1.5


def busier(document: dict[str, Any]) -> None:
    document["phases"][0]["replicas"][0]["samples"] += 1


def shorter(document: dict[str, Any]) -> None:
    document["phases"].pop()


def other_settings(document: dict[str, Any]) -> None:
    document["plan"]["loadgen_settings"]["min_query_count"] = 1


def other_data(document: dict[str, Any]) -> None:
    document["hashes"]["data"] = "0" * 64


def other_tokens(document: dict[str, Any]) -> None:
    document["hashes"]["tokens"] = "0" * 64


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (invalid, 'verdict.verdict: "VALID" by its files, not "INVALID"'),
        (without_a_check, "verdict.checks: "),
        (faster, "loadgen.result_completed_tokens_per_second: "),
        (better, "accuracy.exact_match: 1.0 by its files, not 1.5"),
        (busier, "replicas[0].samples: "),
        (shorter, "tests performance, accuracy, but performance, accuracy, compliance planned"),
        (other_settings, "plan.json: changed since the run"),
        (other_data, "but 0000"),
        (other_tokens, "its token ids: sha256"),
    ],
)
def test_finds_a_change_behind_a_new_digest(
    change: Callable[[dict[str, Any]], None], words: str, run: RunDir, capsys: Printed
) -> None:
    resealed(run, change)
    found = differences(run, capsys)
    assert any(words in line for line in found), found


def other_answer(text: str) -> str:
    first = text.index('"data"') + len('"data" : "')
    return text[: first + 8] + "FFFFFF0F" + text[first + 16 :]


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("mlperf_log_detail.txt", lambda text: text.replace('"value": 480', '"value": 481'), ""),
        ("samples.csv", lambda text: text[: text.rindex("\n", 0, -1) + 1], "samples: "),
        ("samples.csv", lambda text: re.sub(r"\n(\d+),0,", r"\n\1,7,", text, count=1), "replica 7"),
        ("mlperf_log_accuracy.json", other_answer, ""),
    ],
)
def test_judges_again_from_files_behind_new_hashes(
    name: str, change: Callable[[str], str], expected: str, run: RunDir, capsys: Printed
) -> None:
    """A changed file whose hashes in the record were changed as well."""
    phase = "accuracy" if name.endswith(".json") else "performance"
    file = run.loadgen(phase) / name
    content = file.read_text()
    file.write_text(change(content))
    assert file.read_text() != content
    before = record.read(run.root)
    phases = [
        msgspec.structs.replace(each, file_sha256=hashes.of_folder(run.loadgen(each.name)))
        for each in before.phases
    ]
    record.write(msgspec.structs.replace(before, phases=tuple(phases)), run, with_reports=True)
    found = differences(run, capsys)
    assert found and all("changed since" not in line for line in found)
    assert any(phase in line and expected in line for line in found)


def test_finds_a_removed_and_a_longer_file(run: RunDir, capsys: Printed) -> None:
    log = run.loadgen("accuracy") / "mlperf_log_summary.txt"
    with log.open("ab") as file:
        file.write(b"\n")
    run.progress.unlink()
    found = differences(run, capsys)
    assert f"{log}: changed since the run" in found
    assert any(f"{run.progress}: cannot read it" in line for line in found)


def test_an_engines_log_may_grow(run: RunDir, capsys: Printed) -> None:
    """Engines that stay for the next run write on."""
    (log,) = run.replica_logs()
    with log.open("ab") as file:
        file.write(b"more\n")
    assert differences(run, capsys) == []
    verify.main([str(run)])
    assert f"logs/{log.name} (the last 5 bytes)" in capsys.readouterr().out


def test_finds_a_swapped_data_set(tmp_path: Path, capsys: Printed) -> None:
    from tools import rehearsal

    rehearsal.make(tmp_path, num=40)
    sets = ["dataset.num_samples=40", "scenarios.offline.min_duration_ms=100"]
    sets += ["scenarios.offline.min_query_count=40", "accuracy.gates.gen_len={low: 0}"]
    sets += ["scenarios.offline.performance_sample_count=40"]
    sets += ["scenarios.offline.accuracy_sample_count=40"]
    done = submit(
        *(tmp_path, "--config", str(tmp_path / "rehearsal.yaml")),
        *("--site", str(tmp_path / "site.yaml"), "--scenario", "offline", "--preset", "official"),
        *("--mode", "all", *set_arguments(sets)),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    run = RunDir(tmp_path / "runs" / "latest")
    assert differences(run, capsys) == []  # scored again
    data = Path(record.read(run.root).plan.dataset.path)
    articles = data.read_text()
    data.write_text(articles.replace("a", "b", 1))
    found = differences(run, capsys)
    assert len(found) == 1 and str(data) in found[0] and "in the record" in found[0]
    data.rename(data.with_name("elsewhere"))
    assert differences(run, capsys) == []
    verify.main([str(run)])
    printed = capsys.readouterr().out
    assert "not checked: the data set" in printed
    assert "not checked: the scores of the accuracy test" in printed


def test_a_record_of_the_version_before_has_no_hashes(run: RunDir, capsys: Printed) -> None:
    document = json.loads(run.record.read_bytes())
    document["schema_version"] = record.WITHOUT_HASHES
    del document["files"], document["digest"]
    run.record.write_text(json.dumps(document))
    assert record.read(run.root).verdict == "VALID"
    (line,) = differences(run, capsys)
    assert "version (1) has no hashes of files" in line


def test_package_refuses_a_run_that_does_not_verify(run: RunDir, capsys: Printed) -> None:
    site = str(site_file(run.root.parent.parent))
    words = ["--submitter", "X", "--division", "open", "--site", site, "--preview", str(run)]
    output = ["--output", str(run.root.parent.parent / "tree")]
    resealed(run, lambda document: document.update(phases=document["phases"][:1]))
    assert package.main([*words[:-2], *output, str(run)]) == 2
    assert "tests performance, but" in capsys.readouterr().err
    run.record.write_text(run.record.read_text().replace('"VALID"', '"INVALID"', 1))
    assert package.main([*words, *output]) == 2
    assert "changed since it was written" in capsys.readouterr().err


def test_history_marks_an_altered_record(run: RunDir, capsys: Printed) -> None:
    root = str(run.root.parent)
    assert history.main(["--root", root, "--verdict", "VALID"]) == 0
    assert run.root.name in capsys.readouterr().out
    text = run.record.read_text()
    run.record.write_text(text.replace('"verdict": "VALID"', '"verdict": "INVALID"'))
    assert history.main(["--root", root, "--verdict", "ALTERED"]) == 0
    assert run.root.name in capsys.readouterr().out


# Signatures.


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return make_key(tmp_path / "key")


def make_key(path: Path) -> Path:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)]
    subprocess.run(command, check=True)
    return path


def allow(key: Path, name: str) -> str:
    """A file of allowed signers."""
    file = key.with_name("allowed_signers")
    file.write_text(f"{name} {key.with_suffix('.pub').read_text()}")
    return str(file)


def test_a_signed_run_names_its_signer(run: RunDir, key: Path, capsys: Printed) -> None:
    assert differences(run, capsys, "--sign", str(key)) == []
    signers = allow(key, "alice@example.org")
    assert verify.main([str(run), "--signers", signers]) == 0
    assert "as recorded: VALID, signed by alice@example.org" in capsys.readouterr().out
    assert verify.main([str(run)]) == 0
    assert "not checked: who signed the record: add --signers FILE" in capsys.readouterr().out
    assert verify.main([str(run), "--signers", f"{key}.pub"]) == 2
    assert f"error: {key}.pub is a public key, not a list of signers" in capsys.readouterr().err


def test_signing_names_the_signature_it_wrote(run: RunDir, key: Path, capsys: Printed) -> None:
    assert verify.main([str(run), "--sign", str(key)]) == 0
    printed = capsys.readouterr().out
    assert f"  signed: {run.signature}\n" in printed and "who signed" not in printed
    run.user_conf.write_text("*.Server.target_qps = 1\n")
    assert verify.main([str(run), "--sign", str(key)]) == 1
    assert "signed:" not in capsys.readouterr().out


def test_a_change_behind_a_new_digest_breaks_the_signature(
    run: RunDir, key: Path, capsys: Printed
) -> None:
    assert differences(run, capsys, "--sign", str(key)) == []
    resealed(run, lambda document: document.update(created_utc="2026-11-24T02:15:00Z"))
    assert differences(run, capsys) == [f"{run.signature}: not a signature of this record"]
    (line,) = differences(run, capsys, "--signers", allow(key, "alice@example.org"))
    assert "not a signature of this record by a key in" in line


def test_another_key_is_not_a_signer(
    run: RunDir, key: Path, tmp_path: Path, capsys: Printed
) -> None:
    assert differences(run, capsys, "--sign", str(make_key(tmp_path / "other"))) == []
    signers = allow(key, "alice@example.org")
    (line,) = differences(run, capsys, "--signers", signers)
    assert f"not a signature of this record by a key in {signers}" in line


def test_an_unsigned_run_has_no_signer(run: RunDir, key: Path, capsys: Printed) -> None:
    (line,) = differences(run, capsys, "--signers", allow(key, "alice@example.org"))
    assert "the record is not signed" in line


def test_signs_nothing_that_is_not_as_recorded(run: RunDir, key: Path, capsys: Printed) -> None:
    run.user_conf.write_text("")
    assert differences(run, capsys, "--sign", str(key)) != []
    assert not run.signature.exists()


def test_refuses_what_is_no_key_or_no_run(run: RunDir, tmp_path: Path, capsys: Printed) -> None:
    assert verify.main([str(run), "--sign", str(tmp_path / "none")]) == 2
    assert "cannot sign with" in capsys.readouterr().err
    assert verify.main([str(run), "--signers", str(tmp_path / "none")]) == 2
    assert verify.main([str(tmp_path)]) == 2
    env = environment(PATH=str(tmp_path), PYTHONPATH=str(ROOT))
    words = [sys.executable, "-m", "sut.verify", str(run), "--sign", "key"]
    done = subprocess.run(words, env=env, capture_output=True, text=True)
    assert done.returncode == 2 and "ssh-keygen not found" in done.stderr
