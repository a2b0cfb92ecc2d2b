"""sut.export and sut.watch --prometheus: runs for other tools."""

from __future__ import annotations

import csv
import io
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any, get_args

import pytest
from cli import ROOT, environment, fast, latest, submit, until
from test_watch import phase_state, run_state

from sut import export
from sut.cluster.liveness import Word
from sut.errors import InputError
from sut.rundir import RunDir
from sut.watch import prometheus
from sut.watch.prometheus import Exporter
from sut.watch.state import ReplicaState

prometheus_client = pytest.importorskip("prometheus_client")  # vLLM needs it, a login node does not


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run of two tests."""
    folder = tmp_path_factory.mktemp("project")
    assert submit(folder, *fast(), "--repeat", "2").returncode in (0, 1)
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_has_every_run_and_sample(project: Path) -> None:
    done = submit(project, "latest", command="export")
    assert done.returncode == 0, done.stderr
    record = latest(project)
    (run,) = rows(project / "export" / "runs.csv")
    assert run["run_id"] == record.run_id and run["verdict"] == record.verdict
    assert float(run["target_qps"]) == record.phases[0].loadgen["effective_target_qps"]
    samples = rows(project / "export" / "samples.csv")
    assert len(samples) == sum(phase.dispatcher.completed for phase in record.phases)  # type: ignore[union-attr]
    assert {each["test"] for each in samples} == {"performance", "performance-2"}
    assert f"samples.csv: {len(samples):,} rows" in done.stdout
    for each in samples[:10]:
        ttft = float(each["first_token_ms"]) - float(each["issued_ms"])
        assert float(each["ttft_ms"]) == pytest.approx(ttft, abs=1e-6) and ttft > 0


def test_says_that_a_run_has_no_samples(tmp_path: Path) -> None:
    done = submit(
        tmp_path, *fast(), "--mode", "accuracy", "--set", 'engine.replay.faults=["die@0"]'
    )
    assert done.returncode == 3
    done = submit(tmp_path, "latest", command="export")
    assert done.returncode == 0 and "samples.csv: 0 rows" in done.stdout
    assert re.search(r"^note: \S+ has no samples: no test of it is recorded$", done.stdout, re.M)


NEEDS_PYARROW = "needs pyarrow, which no lock file has: pip install pyarrow"


def test_parquet_has_the_same(project: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason=NEEDS_PYARROW)
    run = RunDir(project / "runs" / "latest")
    assert export.main([str(run), "--format", "parquet", "--output", str(tmp_path)]) == 0
    for name, table in (("runs", export.runs([run])), ("samples", export.samples([run]))):
        assert parquet.read_table(tmp_path / f"{name}.parquet").to_pydict() == table


@pytest.mark.parametrize("name", export.TYPES)
def test_parquet_has_the_same_types_without_a_value(name: str) -> None:
    """Otherwise other tools cannot read several files as one table."""
    parquet = pytest.importorskip("pyarrow.parquet", reason=NEEDS_PYARROW)
    types = export.TYPES[name]
    arrow = {str: "string", int: "int64", float: "double", bool: "bool"}
    for values in ([], [None, None]):
        content = export.to_parquet({column: list(values) for column in types}, types)
        schema = parquet.read_schema(io.BytesIO(content))
        assert {each.name: str(each.type) for each in schema} == {
            column: arrow[kind] for column, kind in types.items()
        }


def test_every_value_has_its_columns_type(project: Path) -> None:
    run = RunDir(project / "runs" / "latest")
    for name, table in (("runs", export.runs([run])), ("samples", export.samples([run]))):
        assert table.keys() == export.TYPES[name].keys() and all(table.values())
        for column, values in table.items():
            kind = export.TYPES[name][column]
            also = {int} if kind is float else set()  # LoadGen's numbers
            assert {type(value) for value in values} <= {kind, type(None), *also}


def test_parquet_without_its_package_is_refused(
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    run = str(project / "runs" / "latest")
    assert export.main([run, "--format", "parquet", "--output", str(tmp_path)]) == 2
    assert "-m pip install pyarrow; or --format csv" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_names_an_output_that_cannot_be_written(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    run = str(project / "runs" / "latest")
    assert export.main([run, "--output", str(tmp_path / "file")]) == 2
    error = capsys.readouterr().err
    assert "is a file, not a folder\nhint: another folder: --output DIR" in error


def test_a_run_without_a_record_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plan.json").write_text("{}")
    assert export.main([str(tmp_path)]) == 2
    assert "no record" in capsys.readouterr().err


# Prometheus.

REPLICA = ReplicaState(
    index=0,
    node="jw2",
    in_flight=7,
    running=5,
    waiting=2,
    kv_cache_usage=0.25,
    samples=10,
    prompt_tokens_per_s=1.0,
    output_tokens_per_s=88.5,
)


def value(text: str, name: str, **labels: str) -> float:
    """One sample of an exposition, as Prometheus reads it."""
    from prometheus_client.parser import text_string_to_metric_families

    found = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert len(found) == 1, (name, labels, found)
    return float(found[0])


def running() -> Any:
    import msgspec

    phase = msgspec.structs.replace(
        phase_state("running", "VALID"),
        issued=12,
        completed=10,
        ttft_p99_ms=250.0,
        ttft_limit_ms=2000.0,
        replicas=(REPLICA,),
    )
    return run_state(step="performance", phases=(phase,), target_qps=4.5, left_s=30.0)


def test_a_file_has_the_state_in_base_units(tmp_path: Path) -> None:
    exporter = Exporter(str(tmp_path / "run.prom"))
    exporter.show(running())
    text = (tmp_path / "run.prom").read_text()
    assert value(text, "sut_run_info", benchmark="replay", scenario="server") == 1
    assert value(text, "sut_run_state", state="running") == 1
    assert value(text, "sut_run_state", state="finished") == 0
    assert value(text, "sut_run_target_qps") == 4.5
    assert value(text, "sut_run_left_seconds") == 30
    assert value(text, "sut_samples_completed", test="performance") == 10
    assert value(text, "sut_ttft_p99_seconds", test="performance") == 0.25
    assert value(text, "sut_ttft_limit_seconds", test="performance") == 2
    assert value(text, "sut_replica_kv_cache_usage_ratio", replica="0", node="jw2") == 0.25
    assert value(text, "sut_replica_output_tokens_per_second", replica="0") == 88.5
    assert "sut_tpot_p99_seconds{" not in text and "sut_run_valid" not in text
    exporter.show(run_state(state="finished", verdict="INVALID", exit_code=1))
    text = (tmp_path / "run.prom").read_text()
    assert value(text, "sut_run_valid") == 0 and value(text, "sut_run_exit_code") == 1
    exporter.close()


def test_the_states_are_those_of_the_docs() -> None:
    section = (ROOT / "docs" / "run.md").read_text().partition("## States of a run")[2]
    table = section.partition("\n\n|")[2].partition("\n\n")[0]
    words = re.findall(r"^\| `(\w+)`", table, re.MULTILINE)
    gauge = pytest.importorskip("prometheus_client.core").GaugeMetricFamily
    families = prometheus.families(running(), gauge)
    (state,) = (family for family in families if family.name == "sut_run_state")
    shown = [sample.labels["state"] for sample in state.samples]
    assert words == shown == list(get_args(Word))


def test_a_port_serves_the_same() -> None:
    exporter = Exporter("0")
    try:
        exporter.show(running())
        assert exporter.address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(exporter.address) as answer:
            assert value(answer.read().decode(), "sut_samples_issued") == 12
        port = exporter.address.split(":")[2].split("/")[0]
        with pytest.raises(InputError, match=f"cannot listen on 127.0.0.1:{port}"):
            Exporter(port)
    finally:
        exporter.close()


@pytest.mark.parametrize(
    "target", ["99999", "no.such.host.invalid:80", "/no/such.prom", "foo", "run.txt"]
)
def test_names_what_cannot_be_published(target: str) -> None:
    with pytest.raises(InputError, match="--prometheus"):
        Exporter(target)
    assert not Path(target).exists() and not Path("/no").exists()


def test_without_the_package_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(InputError, match="pip install prometheus-client"):
        prometheus.Exporter("0")


def test_watch_publishes_a_run_to_its_end(tmp_path: Path) -> None:
    sets = ["--set", "scenarios.server.min_duration_ms=3000"]
    submit(tmp_path, *fast(), *sets, "--no-wait")
    command = [sys.executable, "-m", "sut.watch", "latest", "--prometheus", "run.prom"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode in (0, 1) and "metrics: run.prom" in done.stderr, done.stderr
    until(lambda: (tmp_path / "run.prom").is_file())
    text = (tmp_path / "run.prom").read_text()
    assert value(text, "sut_run_state", state="finished") == 1
    assert value(text, "sut_run_exit_code") == done.returncode
    assert value(text, "sut_test_valid", test="performance") == 1 - done.returncode
