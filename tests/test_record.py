"""The record contains everything, and is read completely or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from loadgen_logs import smallest_valid, ten_queries
from records import PLAN, accuracy, bare, completed, failed, performance, rewrite
from test_offered import LOAD

from sut.cluster.allocation import Allocation
from sut.errors import InputError, RunError
from sut.machine import environment
from sut.results import attempts, mllog, record
from sut.run import recorder
from sut.rundir import RunDir

SCHEMA = Path(__file__).parent.parent / "configs" / "schema" / "record.json"

RECORDS: dict[str, Callable[[], record.Record]] = {
    "VALID": lambda: completed(performance(smallest_valid()), accuracy(31.0)),
    "INVALID": lambda: completed(performance(ten_queries())),
    "failed": lambda: failed(record.Failure(code="engine_died", message="exit 1", replica=1)),
}


@pytest.mark.parametrize("kind", RECORDS)
def test_reads_a_record_as_it_was_written(kind: str, tmp_path: Path) -> None:
    written = RECORDS[kind]()
    path = record.write(written, RunDir(tmp_path))
    assert record.read(path) == record.read(tmp_path)
    assert bare(record.read(path)) == written


@pytest.mark.parametrize("kind", RECORDS)
def test_a_record_fits_its_schema(kind: str, tmp_path: Path) -> None:
    path = record.write(RECORDS[kind](), RunDir(tmp_path))
    jsonschema.validate(json.loads(path.read_text()), json.loads(SCHEMA.read_text()))


def test_a_record_contains_loadgens_own_keys(tmp_path: Path) -> None:
    path = record.write(completed(performance(ten_queries())), RunDir(tmp_path))
    loadgen = json.loads(path.read_text())["phases"][0]["loadgen"]
    assert loadgen == mllog.read(ten_queries()).values
    assert loadgen["effective_schedule_rng_seed"] == 16159082839903944936


def test_a_full_disk_keeps_the_first_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = RunDir(tmp_path)

    def draw_and_fill_the_disk(final: record.Record, _: RunDir) -> tuple[()]:
        assert bare(record.read(tmp_path)) == final  # before the report

        def refuse(*_: object, **__: object) -> Path:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(record, "write", refuse)
        return ()

    monkeypatch.setattr(recorder, "publish", draw_and_fill_the_disk)
    ours = recorder.Recorder(PLAN, run_dir, Allocation())
    ours.begin()
    returned = ours.finish(RunError("it failed", code="x"))
    assert bare(record.read(tmp_path)) == returned and returned.failure is not None
    assert [step.name for step in returned.timings] == ["start", "shutdown"]
    assert "No space left on device" in capsys.readouterr().err


def test_a_killed_run_keeps_steps_and_load(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    interim = record.Failure(code=record.INTERIM, message="it continues")
    phase = performance(smallest_valid())
    written = msgspec.structs.replace(failed(interim, phase), load=LOAD)
    record.write(written, run_dir)
    attempt = record.Attempt(
        job_id="", restart=0, nodes=("jw2",), started_utc="2026-11-24T02:15:00Z"
    )
    error = RunError("killed", code="no_record")
    closed = attempts.close(PLAN, run_dir, attempt, error, environment.collect())
    assert closed == bare(record.read(tmp_path))
    assert closed.timings == written.timings and closed.load == LOAD
    again = attempts.close(PLAN, run_dir, attempt, error, environment.collect())
    assert again.timings == ()  # those are another attempt's


def without_plan(document: dict[str, Any]) -> None:
    del document["plan"]


def of_version_99(document: dict[str, Any]) -> None:
    document["schema_version"] = 99
    document["news"] = "from the future"


def with_unknown_key(document: dict[str, Any]) -> None:
    document["verdct"] = "VALID"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (without_plan, "not a complete record.*plan"),
        (with_unknown_key, "not a complete record.*verdct"),
        (of_version_99, "schema version 99"),
    ],
)
def test_refuses_a_foreign_record(
    damage: Callable[[dict[str, Any]], None], words: str, tmp_path: Path
) -> None:
    path = record.write(completed(performance(ten_queries())), RunDir(tmp_path))
    document = json.loads(path.read_text())
    damage(document)
    rewrite(path, document)
    with pytest.raises(InputError, match=f"{path}.*{words}"):
        record.read(path)


def test_refuses_a_truncated_or_missing_record(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        record.read(tmp_path)
    RunDir(tmp_path).plan.touch()
    with pytest.raises(InputError, match=r"(?s)no record: .*sut\.watch"):
        record.read(tmp_path)
    path = record.write(completed(performance(ten_queries())), RunDir(tmp_path))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match="not a complete record"):
        record.read(path)


def test_the_environment_names_this_machine() -> None:
    found = environment.collect()
    assert found.num_cpus and found.memory_gib and found.kernel and found.python
    assert "msgspec" in found.packages


def test_reads_both_layouts_of_lscpu() -> None:
    flat = (
        '{"lscpu": [{"field": "Model name:", "data": "EPYC"}, {"field": "CPU(s):", "data": null}]}'
    )
    nested = (
        '{"lscpu": [{"field": "V:", "data": "AMD", "children": [{"field": "M:", "data": "E"}]}]}'
    )
    assert environment.lscpu(flat) == {"Model name:": "EPYC", "CPU(s):": ""}
    assert environment.lscpu(nested) == {"V:": "AMD", "M:": "E"}
    for unreadable in ("", "[]", "{}", '{"lscpu": 7}', '{"lscpu": [7]}'):
        assert environment.lscpu(unreadable) == {}


def test_reads_an_images_source_from_its_labels() -> None:
    commit = "0123456789abcdef" * 2 + "01234567"

    def found(revision: str) -> environment.Git | None:
        labels = {"org.opencontainers.image.revision": revision, "other": "x"}
        return environment.git_of_image(json.dumps(labels))

    assert found(commit) == environment.Git(commit=commit, dirty=False)
    assert found(f"{commit}-dirty") == environment.Git(commit=commit, dirty=True)
    for unknown in (found("unknown"), *map(environment.git_of_image, ("", "{}", "[]", "{"))):
        assert unknown is None
