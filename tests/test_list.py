"""sut.list, and the keys of --set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from sut import layout
from sut import list as list_command
from sut.errors import InputError
from sut.launch.request import RunRequest, make_plan
from sut.plan import comments, keys
from sut.plan.benchmark import Benchmark, Scenario, ScenarioSettings
from sut.plan.site import Site
from sut.values import Struct


def listed(capsys: pytest.CaptureFixture[str], *argv: str) -> list[dict[str, str]]:
    assert list_command.main([*argv, "--json"]) == 0
    found: list[dict[str, str]] = json.loads(capsys.readouterr().out)
    return found


def test_lists_what_there_is_to_choose_from(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row["name"]: row for row in listed(capsys, "benchmarks")}
    assert rows["replay"]["scenarios"] == ["server", "offline", "singlestream", "interactive"]
    assert rows["llama3.1-8b"]["official"] == "MLPerf" and rows["replay"]["official"] == ""
    rows = {row["name"]: row for row in listed(capsys, "sites")}
    assert rows["jw"]["nodes"] == "2 nodes, 2 GPUs" and rows["local"]["nodes"] == "this machine"
    rows = {row["name"]: row for row in listed(capsys, "campaigns")}
    assert rows["jw-validation"]["runs"] == 6
    server, *_ = listed(capsys, "scenarios", "--config", "replay")
    assert server["target_qps"] == "60" and server["ttft"] == "500 ms"
    assert server["presets"] == ["quick", "smoke", "official"]


def test_names_an_invalid_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "configs/sites/broken.yaml"
    broken.parent.mkdir(parents=True)
    broken.write_text("name: [\n")
    monkeypatch.chdir(tmp_path)
    (row,) = listed(capsys, "sites", "broken")
    assert row["description"] == f"invalid: python -m sut.validate {broken}"


def test_a_key_has_type_default_value_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = listed(capsys, "keys", "max_num_seqs", "--config", "replay")
    assert row == {
        "key": "engine.max_num_seqs",
        "type": "integer > 0",
        "default": "required",
        "value": "64",
        "meaning": "sequences in a batch",
    }
    (row,) = listed(capsys, "keys", "device", "which engines", "--site", "jw")
    assert (row["type"], row["default"], row["value"]) == ("cpu | cuda", '"cpu"', '"cuda"')


def test_searches_names_and_meanings(capsys: pytest.CaptureFixture[str]) -> None:
    names = [row["key"] for row in listed(capsys, "keys", "QPS")]
    assert names == ["scenarios.SCENARIO.target_qps", "site.target_qps.BENCHMARK.SCENARIO"]
    assert "site.slurm.time_min" in [row["key"] for row in listed(capsys, "keys", "wall", "limit")]
    first, *_, last = (row["key"] for row in listed(capsys, "keys", "site"))
    assert first.startswith("site.") and not last.startswith("site.")
    assert list_command.main(["keys", "nothing-like-it"]) == 2
    assert "error: no keys with nothing-like-it\nhint:" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        list_command.main(["key"])
    assert "did you mean keys?" in capsys.readouterr().err
    assert list_command.main([]) == 2
    assert "give one of benchmarks, campaigns, sites" in capsys.readouterr().err


def test_a_narrow_list_keeps_names_whole() -> None:
    head = ("key", "type", "default", "meaning")
    rows = [("model.loadgen_name", "string", "required", "LoadGen's key"), ("a.b", "", "", "")]
    assert len(layout.columns(head, rows, (), None)) == 3
    assert layout.columns(head, rows, (), 32) == [
        "model.loadgen_name",
        "    type string,",
        "    default required",
        "    meaning: LoadGen's key",
        "a.b",
    ]


def test_every_column_has_a_name_and_no_description_is_cut(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert all(all(names) for names in list_command.HEADS.values())
    for what in ("benchmarks", "campaigns", "sites"):
        rows = listed(capsys, what)
        assert list_command.main([what]) == 0
        shown = capsys.readouterr().out
        assert all(row["description"] in shown for row in rows)


def test_every_field_is_a_key() -> None:
    """Against the JSON Schema, which msgspec makes by its own way through the structs."""
    names = {key.name for key in keys.all_keys()}
    assert names >= {*leaves(Benchmark, ""), *leaves(Site, "site.")} - set(keys.FROM_SITE)


def leaves(struct: type[Struct], prefix: str) -> set[str]:
    schema = msgspec.json.schema(struct)

    def walk(part: dict[str, object], name: str) -> set[str]:
        options = [part, *(o for o in part.get("anyOf", ()) if isinstance(o, dict))]  # type: ignore[attr-defined]
        references = [str(o["$ref"]).rpartition("/")[2] for o in options if "$ref" in o]
        for reference in references:
            inner = schema["$defs"][reference]
            if "properties" in inner and reference not in ("PerScenario", "Presets"):
                return {
                    leaf
                    for key, each in inner["properties"].items()
                    for leaf in walk(each, f"{name}.{key}")
                }
        mapping = any("additionalProperties" in o for o in options)
        return set() if mapping or set(references) & {"PerScenario", "Presets"} else {name}

    root = schema["$defs"][struct.__name__]
    return {leaf for k, v in root["properties"].items() for leaf in walk(v, f"{prefix}{k}")}


def test_every_setting_of_a_scenario_has_a_meaning() -> None:
    meanings = {key.name: key.meaning for key in keys.all_keys()}
    for name in ScenarioSettings.__struct_fields__:
        if name != "target_qps":
            assert meanings[f"scenarios.SCENARIO.{name}"]


def test_reads_comments_of_all_forms() -> None:
    class Example(Struct, frozen=True):
        plain: int
        after: int = 1  # behind it
        # before it
        # in two lines
        before: int = 2
        long: tuple[int, ...] = (
            1,
            2,
        )  # behind the end,
        # continued
        last: int = 3

    assert comments.of_fields(Example) == {
        "after": "behind it before it in two lines",
        "long": "behind the end, continued",
    }


@pytest.mark.parametrize(
    ("typed", "whole"),
    [
        ("target_qps=5", "scenarios.offline.target_qps=5"),
        ("min_duration_ms=7", "scenarios.offline.min_duration_ms=7"),
        ("max_num_seqs=16", "engine.max_num_seqs=16"),
        ("replay.step_base_us=1", "engine.replay.step_base_us=1"),
        ("kv_cache_gib=4", "site.cpu.kv_cache_gib=4"),
        ('models."a.b"=/m', 'site.models."a.b"=/m'),
        ("slurm.sbatch.reservation=x", "site.slurm.sbatch.reservation=x"),
        ("scenarios.server.target_qps=5", "scenarios.server.target_qps=5"),
        ("site.anything=1", "site.anything=1"),
        ("name=x", "name=x"),
        ("no value", "no value"),
    ],
)
def test_a_short_key_is_completed(typed: str, whole: str) -> None:
    assert keys.full(typed, Scenario.OFFLINE) == whole


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (
            "seed=1",
            "ambiguous key\nhint: choose one: --set generation.seed=1, --set engine.replay.seed=1",
        ),
        ("target_qsp=5", r"unknown key \(did you mean 'scenarios\.server\.target_qps'\?\)"),
        ("num_replica=2", r"unknown key \(did you mean 'site\.num_replicas'\?\)"),
        ("zzz.yyy=1", "unknown key\nhint: list the keys: python -m sut.list keys"),
        ("BENCHMARK=1", "unknown key"),
        ("path=/x", "unknown key\nhint"),
    ],
)
def test_refuses_a_short_key_that_is_not_one(typed: str, message: str) -> None:
    with pytest.raises(InputError, match=f"--set {typed}: {message}"):
        keys.full(typed, Scenario.SERVER)


def planned(*sets: str, scenario: Scenario = Scenario.SERVER) -> Sequence[object]:
    request = RunRequest(benchmark="replay", site="local", scenario=scenario, sets=sets)
    plan, *_ = make_plan(request)
    return plan.digest(), plan.loadgen_settings.target_qps, plan.not_official_because


def test_a_short_key_makes_the_same_plan() -> None:
    short, whole = planned("target_qps=5"), planned("scenarios.server.target_qps=5")
    assert short == whole and short[1] == 5
    assert planned("target_qps=5", scenario=Scenario.OFFLINE)[1] == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("engine.max_seqs=1", r"--set engine\.max_seqs=1: unknown key \(did you mean"),
        ("engine.replai.x=1", r"--set engine\.replai\.x=1: engine\.replai: unknown key"),
        ("site.slrm.x=1", r"--set site\.slrm\.x=1: site\.slrm: unknown key \(did you mean 'slurm'"),
        ("site.device=gpu", r"'gpu' is not one of cpu, cuda \(did you mean 'cuda'\?\)"),
        ("dataset.path=/x", r"dataset\.path is not used: .*\nhint: --set 'site\.datasets\."),
        ("model.path=/x", r"model\.path is not used"),
    ],
)
def test_an_error_of_a_change_names_the_change(change: str, message: str) -> None:
    request = RunRequest(benchmark="replay", site="local", sets=(change,))
    with pytest.raises(InputError, match=message) as raised:
        make_plan(request)
    assert ".yaml:" not in str(raised.value)


def test_every_key_of_slurm_has_a_meaning_in_the_words_of_yaml() -> None:
    known = [key for key in keys.all_keys() if not key.group]
    assert not [key.name for key in known if ".slurm." in key.name and not key.meaning]
    assert not [key.name for key in known if "None" in key.meaning]
