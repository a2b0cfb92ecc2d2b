"""The console script, and what all commands share."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest
from cli import ROOT, environment

from sut.__main__ import COMMANDS, _version, main
from sut.command import Parser
from sut.plan.benchmark import ScenarioSettings

SETTINGS = ScenarioSettings.__struct_fields__


def sut(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sut", *arguments],
        env=environment(**variables),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def completions(line: str, tmp_path: Path, **variables: str) -> list[str]:
    """What a shell offers after ``line``, by argcomplete's protocol."""
    answer = tmp_path / "answer"
    answer.write_text("")  # argcomplete leaves it out where it offers nothing
    sut(
        **variables,
        _ARGCOMPLETE="1",
        _ARGCOMPLETE_STDOUT_FILENAME=str(answer),
        _ARGCOMPLETE_SUPPRESS_SPACE="1",
        COMP_LINE=line,
        COMP_POINT=str(len(line)),
    )
    return answer.read_text().split("\v")


def test_help_lists_each_command_in_one_line() -> None:
    run = sut("--help")
    assert run.returncode == 0 and run.stderr == ""
    lines = [line.split() for line in run.stdout.splitlines()]
    for name, each in COMMANDS.items():
        place = lines.index([name, *each.line.split()])
        assert lines[place + 1] == each.example.split()


class Parsed(BaseException):
    pass


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_of_each_command_are_valid(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = [shlex.split(COMMANDS[name].example)]
    monkeypatch.setattr(sys, "argv", ["sut", name, "--help"])
    with pytest.raises(SystemExit):
        main()
    shown = capsys.readouterr().out.partition("\nexamples:\n")[2].splitlines()
    assert shown
    for line in shown:
        assert line.startswith(f"  python -m sut.{name}")
        examples.append(["sut", name, *shlex.split(line)[3:]])

    def parse(parser: Parser, argv: list[str] | None) -> None:
        parser.parse_args(argv)  # exits on an error
        raise Parsed

    monkeypatch.setattr(Parser, "parse", parse)
    for words in examples:
        if words[0] == "sbatch":
            assert (ROOT / words[1]).is_file()
            words = ["sut", name, *words[2:]]
        assert words[:2] == ["sut", name]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(Parsed):
            main()


def test_prints_its_version() -> None:
    assert sut("--version").stdout == f"sut {metadata.version('mlperf-sut')}\n"


def test_a_checkout_that_is_not_installed_has_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_found(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    installed = metadata.version("mlperf-sut")
    monkeypatch.setattr(metadata, "version", not_found)
    assert _version() == installed


def test_bash_completes_with_the_printed_code(tmp_path: Path) -> None:
    script = tmp_path / "complete.sh"
    script.write_text(
        f'sut() {{ "{sys.executable}" -m sut "$@"; }}\n'
        'eval "$(sut --completion bash)"\n'
        "COMP_WORDS=(sut pac) COMP_CWORD=1 COMP_LINE='sut pac' COMP_POINT=7 COMP_TYPE=9\n"
        "_python_argcomplete sut\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    run = subprocess.run(["bash", script], env=environment(), capture_output=True, text=True)
    assert run.stdout.split() == ["package"], run.stderr


def in_another_python(root: Path, *, files: tuple[str, ...]) -> str:
    """What a command in ``root`` prints in a Python without packages."""
    (root / "sut").mkdir()
    (root / "sut" / "__init__.py").write_bytes((ROOT / "sut" / "__init__.py").read_bytes())
    (root / "sut" / "submit.py").write_text("import msgspec\n")
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    python = Path(sys.base_prefix) / "bin" / "python3"
    command = [str(python), "-S", "-m", "sut.submit"]  # -S: without packages
    run = subprocess.run(command, cwd=root, env={}, capture_output=True, text=True)
    assert run.returncode == 2 and run.stdout == ""
    first, _, hint = run.stderr.partition("\n")
    assert first == f"error: this Python cannot run sut ({python}): its packages are not installed"
    return hint.strip()


@pytest.mark.parametrize("venv", [".venv", ".venv-login"])
def test_another_python_names_the_environment(venv: str, tmp_path: Path) -> None:
    activate = f"{venv}/bin/activate"
    hint = in_another_python(tmp_path, files=("Makefile", activate))
    assert hint == f"hint: source {tmp_path / activate}"


def test_another_python_explains_how_to_make_the_environment(tmp_path: Path) -> None:
    hint = in_another_python(tmp_path, files=("Makefile",))
    build, _, login = hint.partition("; on a login node: ")
    assert build == f"hint: cd {tmp_path} && make build && source .venv/bin/activate"
    assert login == "make login && source .venv-login/bin/activate"


def test_prints_the_help_without_a_command() -> None:
    run = sut()
    assert run.returncode == 2 and run.stdout == ""
    assert run.stderr == sut("--help").stdout


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("sumbit", "did you mean: sut submit"),
        ("xyz", "for all commands: sut --help"),
        ("run", "did you mean: sut submit"),
        ("job", "did you mean: python -m sut.job"),
        ("ls --root '/a b'", "did you mean: sut history --root '/a b'"),
        ("help submit", "did you mean: sut submit --help"),
        ("help nothing", "did you mean: sut --help"),
    ],
)
def test_refuses_an_unknown_command(word: str, hint: str) -> None:
    run = sut(*shlex.split(word))
    assert run.returncode == 2
    assert run.stderr == f"error: unknown command: {word.split()[0]}\nhint: {hint}\n"


def test_refuses_an_option_before_the_command() -> None:
    run = sut("--site", "mine", "submit", "--mode", "all")
    assert run.returncode == 2
    assert run.stderr == (
        "error: options come after the command: --site\nhint: sut submit --site mine --mode all\n"
    )


def test_refuses_an_unknown_option_with_a_hint() -> None:
    run = sut("submit", "--bogus")
    assert run.returncode == 2
    assert run.stderr == (
        "error: unrecognized arguments: --bogus\n"
        "hint: leave out what is unknown: python -m sut.submit; all options: "
        "python -m sut.submit --help\n"
    )


@pytest.mark.parametrize(
    ("typed", "corrected"),
    [
        ("submit --scenario sever --nodes 2", "submit --scenario server --nodes 2"),
        ("submit --scenario=sever --nodes 2", "submit --scenario=server --nodes 2"),
        ("submit --mode Acuracy", "submit --mode accuracy"),
        ("submit --senario offline --mode all", "submit --scenario offline --mode all"),
        ("submit --senario=offline", "submit --scenario=offline"),
        ("submit --scenari offline --mode all", "submit --scenario offline --mode all"),
        ("package RUN --submit a --division=open", "package RUN --submitter a --division=open"),
        ("simulate --gp a30 --replicas 1", "simulate --gpu a30 --replicas 1"),
        ("submit offline --preset quick", "submit --scenario offline --preset quick"),
        ("submit qps=4 --set 'x=[1, 2]'", "submit --set qps=4 --set 'x=[1, 2]'"),
        ("submit --preset", "submit --preset quick"),
        ("watch latest --root ''", "watch latest --root DIR"),
        ("export latest --output=", "export latest --output=DIR"),
        ("submit --site --mode all", "submit --site NAME --mode all"),
        ("submit --repeat two --mode all", "submit --repeat N --mode all"),
        ("submit --sweep target_qps=5", "submit --sweep target_qps=A,B,..."),
        ("submit --json=yes --mode all", "submit --json --mode all"),
        ("submit --full --site 'a b'", "submit --full --site 'a b' --dry-run"),
        ("cancel --root /x", "cancel --root /x latest"),
        ("compare --json", "compare --json latest"),
        ("validate", "validate FILE"),
        ("package --division closed", "package --division closed --submitter NAME RUN"),
        ("engines stopp 3fa2", "engines stop 3fa2"),
        ("simulate --from latest --set a=1 --json", "simulate --from latest --json"),
    ],
)
def test_an_error_shows_the_corrected_command(typed: str, corrected: str) -> None:
    run = sut(*shlex.split(typed))
    assert run.returncode == 2
    assert run.stderr.splitlines()[1:] == [f"hint: python -m sut.{corrected}"], run.stderr


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        (
            "watch --site local --root /x latest",
            "leave out one of the two: python -m sut.watch --site local latest, or: "
            "python -m sut.watch --root /x latest",
        ),
        (
            "submit --wait --mode all --no-wait",
            "leave out one of the two: python -m sut.submit --wait --mode all, or: "
            "python -m sut.submit --mode all --no-wait",
        ),
        (
            "verdict latest --duration 60",
            "leave out what is unknown: python -m sut.verdict latest; all options: "
            "python -m sut.verdict --help",
        ),
        (
            "history --filter x",
            "leave out what is unknown: python -m sut.history; all options: "
            "python -m sut.history --help",
        ),
        ("tune --again 'a b'", "python -m sut.submit --again 'a b'"),
        ("list runs", "sut history"),
    ],
)
def test_an_error_without_one_correction_shows_what_is_possible(typed: str, hint: str) -> None:
    run = sut(*shlex.split(typed))
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1] == f"hint: {hint}", run.stderr


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (["submit", "--senario", "server"], "--senario server (did you mean --scenario?)"),
        (["submit", "--sets=a=1"], "--sets=a=1 (did you mean --set?)"),
        (["submit", "--mode", "perf"], "(did you mean performance?)"),
        (["init", "--device", "gpu"], "(did you mean cuda?)"),
        (["list", "runs"], "(did you mean sut history?)"),
        (["submit", "--mode", "acuracy"], "(did you mean accuracy?)"),
        (["history", "--verdict", "invald"], "(did you mean INVALID?)"),
        (["submit", "offline"], "arguments: offline (did you mean --scenario offline?)"),
        (["submit", "target_qps=4"], "arguments: target_qps=4 (did you mean --set target_qps=4?)"),
        (["package", "RUN"], "missing --submitter, --division"),
    ],
)
def test_suggests_the_nearest_option_or_choice(arguments: list[str], near: str) -> None:
    run = sut(*arguments)
    assert run.returncode == 2 and near in run.stderr.splitlines()[0]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["history", "--limit", "-1"], "--limit: -1 is not a whole number of 0 or more"),
        (["history", "--limit", "1.5"], "--limit: 1.5 is not a whole number of 0 or more"),
        (["compare", "A", "--tolerance", "-3"], "--tolerance: -3 is not a number of 0 or more"),
        (["compare", "A", "--tolerance", "nan"], "--tolerance: nan is not a number of 0 or more"),
        (["verdict", "A", "--max-tokens", "0"], "--max-tokens: 0 is not a whole number of 1"),
    ],
)
def test_refuses_a_number_out_of_range(arguments: list[str], error: str) -> None:
    run = sut(*arguments)
    assert run.returncode == 2 and error in run.stderr.splitlines()[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_refuses_an_abbreviated_option(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sut", name, "--hel"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert "unrecognized arguments: --hel (did you mean --help?)" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_finds_each_command(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sut", name, "--help"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m sut.{name} ")


def test_runs_the_command_with_its_arguments() -> None:
    run = sut("submit", "--config", "replay", "--dry-run")
    assert run.returncode == 0 and "replay, scenario server" in run.stdout


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("sut sub", ["submit"]),
        ("sut --ver", ["--version"]),
        ("sut submit --mode a", ["accuracy", "all"]),
        ("sut submit --scenario server --pres", ["--preset"]),
        ("sut submit --config repl", ["replay"]),
        ("sut doctor --site devcl", ["devcluster"]),
        ("sut history --ben", ["--benchmark"]),
        ("sut verdict --round v6.1 --js", ["--json"]),
        ("sut list sc", ["scenarios"]),
        ("sut history --verdict F", ["FAILED"]),
        ("sut nightly --pres", ["--preset"]),
        ("sut submit --set engine.max_num_s", ["engine.max_num_seqs="]),
        ("sut submit --scenario offline --set scen", [f"scenarios.offline.{x}=" for x in SETTINGS]),
        ("sut doctor --set site.mod", ["site.models."]),
    ],
)
def test_completes_commands_options_and_values(
    line: str, offered: list[str], tmp_path: Path
) -> None:
    assert completions(line, tmp_path) == offered


@pytest.mark.parametrize("command", ["watch", "cancel", "compare A", "batch", "submit --again"])
def test_completes_the_names_of_runs(command: str, tmp_path: Path) -> None:
    for name in ("20260101T000000Z-replay", "20260102T000000Z-replay"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "plan.json").touch()
    (tmp_path / "latest").symlink_to("20260102T000000Z-replay")
    names = ["latest", "20260102T000000Z-replay", "20260101T000000Z-replay"]
    name, *rest = command.split()
    root = " ".join(["sut", name, "--root", str(tmp_path), *rest])
    assert completions(f"sut {command} 20260101", tmp_path, SUT_RUN_ROOT=str(tmp_path)) == names[2:]
    assert completions(f"{root} l", tmp_path) == names[:1]
    assert completions(f"{root} 2", tmp_path) == names[1:]


def test_completes_paths_where_no_run_has_the_prefix(tmp_path: Path) -> None:
    assert completions("sut watch slu", tmp_path, SUT_RUN_ROOT=str(tmp_path)) == ["slurm/"]


def test_completes_every_command(tmp_path: Path) -> None:
    assert completions("sut ", tmp_path)[-len(COMMANDS) :] == list(COMMANDS)


@pytest.mark.parametrize("command", ["submit --config replay --dry-run", "watch", "history"])
def test_a_folder_that_was_removed_is_named(command: str, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    typed = f"rmdir {gone}; exec {sys.executable} -m sut {command}"
    run = subprocess.run(
        ["sh", "-c", typed], cwd=gone, env=environment(), capture_output=True, text=True
    )
    assert (run.returncode, run.stderr) == (
        2,
        "error: the current folder no longer exists\nhint: change to another one: cd\n",
    )


@pytest.mark.parametrize("delay_s", [0.03, 0.06, 0.1, 0.15, 0.2, 0.3])
def test_ctrl_c_while_a_command_is_imported_is_silent(delay_s: float, tmp_path: Path) -> None:
    script = Path(sys.executable).parent / "sut"
    run = subprocess.Popen(
        [script, "submit", "--dry-run", "--config", "replay"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(delay_s)
    run.send_signal(signal.SIGINT)
    _, error = run.communicate(timeout=30)
    # Until the package's first lines have run, Python's own handler prints what it imported.
    files = set(re.findall(rf'"{ROOT}/sut/(.*)"', error))
    assert files <= {"__init__.py"} and "internal error" not in error, error
    assert run.returncode in (0, -signal.SIGINT, 1, 130)


@pytest.mark.parametrize(
    ("word", "option"), [("replay", "--config"), ("local", "--site"), ("offline", "--scenario")]
)
def test_a_word_that_an_option_takes_is_named_with_it(word: str, option: str) -> None:
    run = sut("submit", word)
    assert run.returncode == 2 and f"(did you mean {option} {word}?)" in run.stderr
