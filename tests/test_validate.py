"""sut.validate: what a file is, or every error in it with its line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cli import ROOT

from sut import validate

SHIPPED = sorted((ROOT / "configs").glob("[!rs]*/*.yaml")) + sorted(ROOT.glob("configs/sites/*"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_shipped_files_are_valid(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert validate.main([str(path)]) == 0
    kind = path.parent.name.removesuffix("s")
    assert capsys.readouterr().out.startswith(f"{path}: a valid {kind}, {path.stem}: ")


def errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, name: str = "mine.yaml"
) -> str:
    path = tmp_path / name
    path.write_text(text)
    assert validate.main([str(path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err.replace(f"{tmp_path}/", "")


def test_reports_every_error_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "name: x\ndevice: gpu\nslurm:\n  partitoin: gpu\n  load_min: 0\n"
    assert errors(tmp_path, capsys, text) == (
        "error: mine.yaml:2: device: 'gpu' is not one of cpu, cuda (did you mean 'cuda'?)\n"
        "error: mine.yaml:4: slurm.partitoin: unknown key (did you mean 'partition'?)\n"
        "error: mine.yaml:5: slurm.load_min: 0 is not greater than 0\n"
        "hint: its keys: python -m sut.list keys site\n"
    )


def test_reports_errors_between_the_keys_of_a_benchmark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "configs/benchmarks/replay.yaml").read_text()
    text = text.replace("max_model_len: 1024", "max_model_len: 100")
    text = text.replace("min_tokens: 16", "min_tokens: 99")
    assert errors(tmp_path, capsys, text) == (
        "error: mine.yaml: generation.min_tokens 99 exceeds generation.max_tokens 64\n"
        "error: mine.yaml: engine.max_model_len 100 is less than 576: prompts of up to 512 tokens "
        "plus answers of up to 64\nhint: --set engine.max_model_len=576\n"
    )


def test_reports_a_site_that_no_run_can_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert errors(tmp_path, capsys, "name: x\nslurm: {}\n").startswith(
        "error: mine.yaml: site x has slurm: but no nodes:\nhint: "
    )


def test_plans_every_run_of_a_campaign(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "name: x\nbenchmark: replay\nsite: devcluster\nruns:\n"
    text += "  - {name: one, nodes: jw2}\n  - {name: two, nodes: jw9}\n"
    text += "  - {name: three, nodes: jw8}\n"
    shown = errors(tmp_path, capsys, text)
    assert "error: mine.yaml: two, server: --nodes jw9: site devcluster has no node 'jw9'" in shown
    assert "error: mine.yaml: three, server: --nodes jw8" in shown


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "expected a YAML mapping\nhint: write one key a line, as in configs/benchmarks/"),
        ("- x\n", "expected a YAML mapping"),
        (
            "name: [\n",
            "correct line 2 or the one before it, then: python -m sut.validate",
        ),
        ("a:\n\tb: 1\n", "hint: indent with spaces, not tabs; then: python -m sut.validate mine"),
        ("\0", "hint: python -m sut.validate mine.yaml"),
        ("a: 1\n", "neither a benchmark, a site nor a campaign: its keys are a\nhint: "),
        ("name: x\n", "neither a benchmark, a site nor a campaign: its keys are name\nhint: "),
    ],
)
def test_refuses_other_files(
    text: str, error: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = errors(tmp_path, capsys, text)
    assert shown.startswith("error: mine.yaml:") and error in shown


def test_checks_every_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(ROOT / "configs/sites/local.yaml", tmp_path)
    assert validate.main([f"{tmp_path}/none.yaml", f"{tmp_path}/local.yaml"]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"error: {tmp_path}/none.yaml: no such file\nhint: ")
    assert printed.out.startswith(f"{tmp_path}/local.yaml: a valid site")


@pytest.mark.parametrize("name", ["replay", "replay.yaml", "missing/replay.yaml"])
def test_a_missing_file_names_the_one_of_this_name(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert validate.main([name]) == 2
    error = capsys.readouterr().err
    assert error == (
        f"error: {name}: no such file\n"
        f"hint: python -m sut.validate {ROOT / 'configs/benchmarks/replay.yaml'}\n"
    )


def test_a_missing_file_of_an_unknown_name_says_what_there_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert validate.main(["no-such-name.yaml"]) == 2
    assert "python -m sut.list benchmarks" in capsys.readouterr().err


def test_missing_keys_name_an_example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("name: c\nruns: [{name: a, benchmark: replay}]\n")
    assert validate.main([str(file)]) == 2
    assert "configs/campaigns/jw-validation.yaml" in capsys.readouterr().err
