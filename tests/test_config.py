"""Configs: every error is reported at once, with its file, line, key and the nearest name."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import jsonschema
import msgspec
import pytest
import yaml
from cli import ROOT, submit

from sut.errors import InputError
from sut.launch import default_site
from sut.list import main as list_main
from sut.plan import config, document
from sut.plan.benchmark import Benchmark, Preset, Scenario
from sut.plan.plan import Mode
from sut.plan.resolve import resolve
from sut.plan.site import Site
from tools import schema

BENCHMARKS = sorted((ROOT / "configs" / "benchmarks").glob("*.yaml"))
SHARES = {"gen_len": (0.9, 1.1), "tokens_per_sample": (0.9, 1.1), "exact_match": (1.0, None)}
OF = {  # of one benchmark
    ("gpt-oss-120b", "exact_match"): (0.99, None),
    ("gpt-oss-120b", "tokens_per_sample"): (0.0, 1.1),
}
SHARE = {"llama2-70b-99.9": 0.999}  # of the other scores; else 0.99
SITES = sorted((ROOT / "configs" / "sites").glob("*.yaml"))


@pytest.mark.parametrize("name", schema.KINDS)
def test_stored_schemas_match_the_structs(name: str) -> None:
    assert (schema.FOLDER / f"{name}.json").read_text() == schema.text(name), (
        "python -m tools.schema"
    )


@pytest.mark.parametrize("file", BENCHMARKS + SITES, ids=lambda file: file.stem)
def test_shipped_configs_match_their_schemas(file: Path) -> None:
    kind = Benchmark if file in BENCHMARKS else Site
    document = yaml.safe_load(file.read_text())
    jsonschema.validate(document, msgspec.json.schema(kind))
    assert document["name"] == file.stem


@pytest.mark.parametrize("file", BENCHMARKS, ids=lambda file: file.stem)
@pytest.mark.parametrize("preset", list(Preset))
def test_benchmarks_resolve_in_every_scenario_and_preset(
    file: Path, preset: Preset, tmp_path: Path
) -> None:
    site = _site_with_paths(tmp_path)
    benchmark, loaded = config.load(str(file), str(site))
    apart = benchmark.accuracy_test is not None
    modes = [Mode.PERFORMANCE, Mode.ACCURACY, Mode.COMPLIANCE] if apart else [Mode.ALL]
    modes += [Mode.TEST07] if benchmark.compliance and benchmark.compliance.test07 else []
    for scenario, mode in itertools.product(benchmark.scenarios.known(), modes):
        plan = resolve(
            benchmark, loaded, scenario=scenario, mode=mode, preset=preset, usable_cpus=(0, 1)
        )
        assert plan.loadgen_name.replace("_", "").replace("-", "").isalnum()
        assert "." not in plan.loadgen_name
        for line in plan.user_conf().splitlines():
            assert " = " in line


def test_reports_every_error_at_once(tmp_path: Path) -> None:
    document = (ROOT / "configs" / "benchmarks" / "replay.yaml").read_text()
    for right, wrong in (
        ("max_num_seqs: 64", "max_num_seq: 64"),
        ("kind: replay", "kind: replai"),
        ("max_tokens: 64", "max_tokens: many"),
        ("target_qps: 200", "target_qps: 0"),
        ("loadgen_name: replay\n", "loadgen_name: re.play\n"),
    ):
        assert right in document
        document = document.replace(right, wrong, 1)
    file = tmp_path / "mine.yaml"
    file.write_text(document)
    with pytest.raises(InputError) as error:
        config.load(str(file), "local")
    lines = [line.removeprefix("error: ") for line in str(error.value).splitlines()]
    by_key = {line.split(": ")[1]: line for line in lines}
    assert "did you mean 'max_num_seqs'" in by_key["engine.max_num_seq"]
    assert "did you mean 'replay'" in by_key["engine.kind"]
    assert "missing required keys: max_num_seqs" in by_key["engine"]
    assert {"generation.max_tokens", "scenarios.offline.target_qps", "model.loadgen_name"} <= set(
        by_key
    )
    line_of_kind = 1 + document.splitlines().index("  kind: replai")
    assert by_key["engine.kind"].startswith(f"{file}:{line_of_kind}: ")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ("engine.max_num_seqz=3", "did you mean 'max_num_seqs'"),
        ("site.run_rot=/x", "did you mean 'run_root'"),
        ("scenarios.server.target_qps=0", "target_qps=0: 0 is not greater than 0"),
        ("scenarios.server.target_qps=-1", "target_qps"),
        ("scenarios.server.target_qps=.nan", "target_qps"),
        ("scenarios.server.target_qps=.inf", "target_qps"),
        ("engine.max_num_seqs=many", "'many' is not of type integer"),
        ("engine.max_num_seqs=", "an empty value is not of type integer"),
        ("engine.max_num_seqs=yes", "true is not of type integer"),
        ("engine", "expected key=value"),
        ("engine..x=1", "expected key=value"),
        ("engine.max_num_seqs=16.0", "16.0 is not of type integer"),
        ("engine.max_num_seqs=1e30", "1e+30 is not of type integer"),
        ("engine.max_num_seqs=1.25e1", "12.5 is not of type integer"),
        ("target_qps=1e400", "inf is not at most"),
        ("model.name.x=1", "name is a value"),
        ("engine.dtype={", "invalid YAML"),
        ("engine.max_model_len=100", "max_model_len 100 is less than"),
        ("generation.min_tokens=65", "min_tokens 65 exceeds"),
    ],
)
def test_refuses_an_invalid_set_option(tmp_path: Path, change: str, part: str) -> None:
    run = submit(tmp_path, "--config", "replay", "--set", change)
    assert run.returncode == 2
    assert part in run.stderr, run.stderr
    assert "Traceback" not in run.stderr and run.stderr.startswith("error: ")
    assert not (tmp_path / "runs").exists()


def test_a_power_of_ten_is_a_number() -> None:
    """Not in YAML 1.1, where it is text."""
    benchmark: document.Document = {}
    site: document.Document = {}
    for change in (
        "a=1e3",
        "b=2.5e+3",
        "site.c=1E9",
        "d='1e3'",
        "e=0e1",
        "f=1e-3",
        "g=9007199254740993e0",
        "h=1e9999",
        "i=1e3x",
    ):
        document.apply(change, benchmark, site)
    assert benchmark == {
        "a": 1000,
        "b": 2500,
        "d": "1e3",
        "e": "0e1",
        "f": 0.001,
        "g": 9007199254740993,
        "h": "1e9999",
        "i": "1e3x",
    }
    assert site == {"c": 10**9} and all(isinstance(x, int) for x in (benchmark["a"], site["c"]))


def test_a_set_options_error_names_no_file(tmp_path: Path) -> None:
    sets = ["--set", "scenarios.server.target_qsp=5", "--set", "site.run_rot=/x"]
    run = submit(tmp_path, "--config", "replay", *sets)
    assert run.returncode == 2 and ".yaml" not in run.stderr
    assert (
        "--set scenarios.server.target_qsp=5: unknown key (did you mean 'target_qps'?)"
        in run.stderr
    )
    assert "--set site.run_rot=/x: unknown key" in run.stderr
    assert run.stderr.count("hint: python -m sut.list keys") == 2


def test_reports_every_set_option_that_has_an_error(tmp_path: Path) -> None:
    sets = ["--set", "zzz=1", "--set", "engine.max_num_seqs=-1", "--set", "yyy=2"]
    run = submit(tmp_path, "--config", "replay", *sets)
    assert run.stderr == (
        "error: --set zzz=1: unknown key\n"
        "error: --set yyy=2: unknown key\n"
        "hint: list the keys: python -m sut.list keys\n"
        "error: --set engine.max_num_seqs=-1: -1 is not greater than 0\n"
        "hint: python -m sut.list keys max_num_seqs\n"
    )


def test_a_set_options_error_shows_how_to_list_its_key(tmp_path: Path) -> None:
    run = submit(tmp_path, "--config", "replay", "--set", "target_qps=abc")
    assert run.stderr.endswith("hint: python -m sut.list keys target_qps\n")
    assert list_main(["keys", "target_qps"]) == 0


@pytest.mark.parametrize(
    ("change", "listed"),
    [
        ("site.env.FOO=1", "env"),
        ("scenarios.server.target_qsp=5", "server"),
        ("engine.dtype=float8", "dtype"),
        ("site.run_rot=/x", ""),
    ],
)
def test_a_set_options_hint_lists_something(tmp_path: Path, change: str, listed: str) -> None:
    run = submit(tmp_path, "--config", "replay", "--set", change)
    assert run.stderr.endswith(f"hint: python -m sut.list keys {listed}".rstrip() + "\n"), (
        run.stderr
    )
    assert list_main(["keys", *filter(None, [listed])]) == 0


def test_a_folder_for_the_embedded_model_is_refused(tmp_path: Path) -> None:
    sets = ["--set", "model.name=mine", "--set", "site.models.mine=/nope", "--dry-run"]
    run = submit(tmp_path, *sets)
    assert run.returncode == 2 and "--set model.embedded=false" in run.stderr


@pytest.mark.parametrize("nodes", [", nodes: 1", ", nodes: all", ""])
def test_a_campaigns_nodes_may_be_a_number_or_absent(tmp_path: Path, nodes: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"name: x\nbenchmark: replay\nsite: local\nruns: [{{name: a{nodes}}}]\n")
    run = submit(tmp_path, "--config", str(file), "--dry-run")
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--config", "repley"], "did you mean 'replay'"),
        (["--config", "jw-validaton"], "did you mean 'jw-validation'"),
        (["--site", "locall"], "did you mean 'local'"),
        (["--set", "site.num_replicas=999"], "999 replicas need at least one core each"),
        (["--set", "site.cpu.cpus=[9999]"], "9999"),
        (["--config", "/dev/null"], "/dev/null: not a regular file\nhint: give a .yaml file"),
        (["--site", "/tmp"], "/tmp: not a regular file\nhint: give a .yaml file, or a name: "),
        (
            ["--config", "nowhere.yaml"],
            "nowhere.yaml: no such file\nhint: give a .yaml file",
        ),
        (["--config", "latin1.yaml"], "latin1.yaml: not a text in UTF-8\nhint: give a"),
        (["--config", "replay.yaml"], "hint: the benchmark of this name: --config replay\n"),
        (["--config", "jw-validation.yml"], "of this name: --config jw-validation\n"),
        (["--site", "x/jw.yaml"], "hint: the site of this name: --site jw\n"),
        (["--scenario", "sever"], "invalid choice: 'sever'"),
        (["--config", "llama3.1-8b"], "has no path for the model 'Llama-3.1-8B-Instruct'"),
        (["--config", "llama3.1-8b-edge", "--scenario", "server"], "no scenario server"),
        (["--config", "replay", "--set", "site.run_root=/proc/x"], "/proc/x"),
        (["--config", "replay", "--set", "site.run_root=/etc/hostname/x"], "/etc/hostname"),
        (
            ["--config", "replay", "--root", "/proc/x"],
            "No such file or directory\nhint: use a folder that you can",
        ),
        (
            ["--config", "replay", "--root", "/etc/hostname"],
            "/etc/hostname: Not a directory\nhint: use a folder that you can write to: --root",
        ),
    ],
)
def test_refuses_bad_input_before_anything_starts(
    tmp_path: Path, arguments: list[str], part: str
) -> None:
    (tmp_path / "latin1.yaml").write_bytes(
        "name: caf\N{LATIN SMALL LETTER E WITH ACUTE}".encode("latin-1")
    )
    run = submit(tmp_path, *arguments)
    assert run.returncode == 2
    assert part in run.stderr, run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("option", "file", "text"),
    [
        ("--config", "sites/jw.yaml", "is a site, not a benchmark\nhint: --site"),
        ("--site", "benchmarks/replay.yaml", "is a benchmark, not a site\nhint: --config"),
        ("--site", "campaigns/jw-validation.yaml", "is a campaign, not a site\nhint: --config"),
    ],
)
def test_a_file_of_another_kind_names_its_option(
    tmp_path: Path, option: str, file: str, text: str
) -> None:
    path = ROOT / "configs" / file
    run = submit(tmp_path, option, str(path))
    assert run.returncode == 2
    assert run.stderr == f"error: {path} {text} {path}\n"


def test_an_unknown_site_of_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUT_SITE", "locall")
    with pytest.raises(InputError, match=r"^SUT_SITE: unknown site 'locall'"):
        default_site.default()


def aliases(depth: int, width: int) -> str:
    """Lists, each of ``width`` aliases of the one before; the first is of ``a``."""
    names = ["a", *(f"a{i}" for i in range(depth))]
    return "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * width)}]\n"
        for before, name in itertools.pairwise(names)
    )


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "expected a YAML mapping"),
        ("- a\n", "expected a YAML mapping"),
        ("a: [", "invalid YAML"),
        ("name: x\nname: y\n", "duplicate key 'name'"),
        ("\udcff", "not a text in UTF-8"),
        ("name: " + "[" * 2000, "nested too deeply"),
        ("name: " + "[" * 60 + "]" * 60, "1: invalid YAML: nested too deeply"),
        ("a: &a [x]\n" + aliases(60, 1), "nested too deeply"),
        ("a: &a [x]\n" + aliases(20, 9), "more than 100,000 values"),
        ("name: &a [*a]", "nested too deeply"),
        ("name: x\nseed: " + "1" * 5000, "2: invalid YAML: not a valid int"),
        ("seed: 18446744073709551616", "1: invalid YAML: not a valid int"),
        ("name: 2026-13-01", "not supported; quote it"),
        ("name: !!bool x", "not a valid bool"),
        (r'name: "\ud800"', "not a valid str"),
        (r'name: "\UFFFFFFFF"', "invalid YAML"),
    ],
)
def test_an_invalid_config_file_is_named(tmp_path: Path, text: str, part: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=part) as error:
        config.load(str(file), "local")
    assert str(file) in str(error.value)


def test_an_empty_site_gets_a_sites_example(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.touch()
    with pytest.raises(InputError) as error:
        config.load_site(str(file))
    assert str(error.value).endswith(
        "hint: write one key a line, as in configs/sites/template.yaml"
    )


def test_a_file_of_any_length_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("# " + "x" * document.MAX_CHARS)
    with pytest.raises(InputError, match="longer than 1,048,576 characters"):
        config.load(str(file), "local")


def test_a_set_option_overrides_the_preset() -> None:
    sets = ["scenarios.server.min_query_count=500"]
    benchmark, site = config.load("replay", "local", sets)
    plan = resolve(
        benchmark,
        site,
        scenario=Scenario.SERVER,
        mode=Mode.PERFORMANCE,
        preset=Preset.SMOKE,
        usable_cpus=(0,),
        sets=sets,
    )
    assert plan.loadgen_settings.min_query_count == 500


def test_prefers_configs_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "configs" / "sites" / "local.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("name: mine\n")
    monkeypatch.chdir(tmp_path)
    assert config.load("replay", "local")[1].name == "mine"


def _site_with_paths(folder: Path) -> Path:
    file = folder / "site.yaml"
    file.write_text(
        "name: here\n"
        "device: cuda\n"
        "models:\n"
        "  Llama-3.1-8B-Instruct: /models/llama\n"
        "  Llama-2-70b-chat-hf: /models/llama2\n"
        "  gpt-oss-120b: /models/gpt-oss\n"
        "datasets:\n"
        "  cnn_eval.json: /data/a.json\n"
        "  sample_cnn_eval_5000.json: /data/b.json\n"
        "  open_orca_gpt4_tokenized_llama.sampled_24576: /data/c.jsonl\n"
        "  gpt-oss-120b-performance: /data/d.jsonl\n"
        "  gpt-oss-120b-accuracy: /data/e.jsonl\n"
        "  gpt-oss-120b-compliance: /data/f.jsonl\n"
    )
    return file


@pytest.mark.parametrize("file", BENCHMARKS, ids=lambda file: file.stem)
def test_gates_are_mlperfs_share_of_the_reference(file: Path) -> None:
    accuracy = config.load(str(file), "local")[0].accuracy
    assert accuracy is not None
    for metric, gate in accuracy.gates.items():
        shares = SHARES.get(metric, (SHARE.get(file.stem, 0.99), None))
        low, high = OF.get((file.stem, metric), shares)
        assert gate.low == pytest.approx(low * accuracy.reference[metric], abs=1e-9)
        assert (gate.high is None) == (high is None)
        if gate.high is not None and high is not None:
            assert gate.high == pytest.approx(high * accuracy.reference[metric], abs=1e-9)


def test_embedded_benchmarks_reference_is_the_measured_one() -> None:
    measured = json.loads((ROOT / "configs/reference/smollm2-135m-news.json").read_text())
    accuracy = config.load("smollm2-135m-news", "local")[0].accuracy
    assert accuracy is not None and accuracy.reference == measured["scores"]


@pytest.mark.parametrize("text", ["1: x", "on: x", "? [a]\n: x"])
def test_refuses_a_key_that_is_no_string(tmp_path: Path, text: str) -> None:
    file = tmp_path / "odd.yaml"
    file.write_text(f"name: odd\n{text}\n")
    with pytest.raises(
        InputError, match=r"odd.yaml:[23]: invalid YAML: key .* is not a string; quote it"
    ):
        config.load("replay", str(file))


def test_refuses_such_a_key_in_a_set_option() -> None:
    with pytest.raises(InputError, match=r"--set site\.env"):
        config.load("replay", "local", ["site.env={1: x}"])


def test_reports_an_error_in_a_lengthened_list() -> None:
    longer = "site.nodes=[{name: a}, {name: b}, {name: c}, {nam: d}]"
    with pytest.raises(InputError, match="did you mean 'name'"):
        config.load("replay", "devcluster", [longer])
