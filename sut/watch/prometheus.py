"""A run's state as Prometheus metrics: over HTTP, or as a file for node_exporter's textfile
collector."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

from sut.cluster.liveness import Word
from sut.errors import InputError
from sut.rundir import write_atomic
from sut.watch.state import PhaseState, RunState

HOST = "127.0.0.1"
SUFFIX = ".prom"  # of the files that node_exporter reads
MS_PER_S = 1000.0
# Of a test: the metric after sut_, its help, the field, and what the field is divided by.
_PHASE = (
    ("samples_issued", "Samples that LoadGen issued", "issued", 1.0),
    ("samples_completed", "Samples completed", "completed", 1.0),
    ("samples_queued", "Samples in the dispatcher's queue", "queued", 1.0),
    ("samples_in_flight", "Samples sent to engines and not completed", "in_flight", 1.0),
    ("output_tokens_per_second", "Tokens generated a second, of late", "output_tokens_per_s", 1.0),
    ("ttft_p99_seconds", "TTFT p99 of the test so far", "ttft_p99_ms", MS_PER_S),
    ("ttft_limit_seconds", "LoadGen's limit on TTFT p99", "ttft_limit_ms", MS_PER_S),
    ("tpot_p99_seconds", "TPOT p99 of the test so far", "tpot_p99_ms", MS_PER_S),
    ("tpot_limit_seconds", "LoadGen's limit on TPOT p99", "tpot_limit_ms", MS_PER_S),
)
_REPLICA = (
    ("replica_samples_in_flight", "Samples sent to the replica and not completed", "in_flight"),
    ("replica_running", "Samples that the engine runs", "running"),
    ("replica_waiting", "Samples that wait in the engine", "waiting"),
    ("replica_kv_cache_usage_ratio", "Share of the KV cache in use", "kv_cache_usage"),
    ("replica_output_tokens_per_second", "Tokens generated a second", "output_tokens_per_s"),
)


def _client() -> Any:
    """The package prometheus_client. Raises InputError without it."""
    try:
        import prometheus_client
        import prometheus_client.core
    except ImportError:
        raise InputError(
            f"--prometheus needs the package prometheus-client, which {sys.executable} does not "
            "have",
            hint=f"{sys.executable} -m pip install prometheus-client",
        ) from None
    return prometheus_client


class Exporter:
    """Publishes the last state that it was given. ``target`` is a port, HOST:PORT or a file."""

    def __init__(self, target: str) -> None:
        """Raises InputError where the package, the port or the file is not to be had."""
        self._client = _client()
        self._state: RunState | None = None
        self._registry = self._client.CollectorRegistry()
        self._registry.register(self)
        self._server: Any = None
        self._file: Path | None = None
        host, colon, port = target.rpartition(":")
        if port.isdecimal() and "/" not in target:
            self._serve(host if colon else HOST, int(port))
        elif target.endswith(SUFFIX):
            self._file = Path(target)
            if not self._file.parent.is_dir():
                raise InputError(
                    f"cannot write {self._file}: {self._file.parent} is not a folder",
                    hint=f"--prometheus FILE{SUFFIX} in a folder that exists, or a port",
                )
            self._write()
        else:
            raise InputError(
                f"--prometheus {target}: neither a port nor a file that ends with {SUFFIX}",
                hint=f"--prometheus 9105, --prometheus HOST:9105 or --prometheus FILE{SUFFIX}",
            )

    def _serve(self, host: str, port: int) -> None:
        try:
            self._server, _ = self._client.start_http_server(port, host, self._registry)
        except (OSError, OverflowError) as error:
            raise InputError(
                f"cannot listen on {host}:{port}: {getattr(error, 'strerror', None) or error}",
                hint="choose a free port: --prometheus PORT",
            ) from None

    @property
    def address(self) -> str:
        """Where the metrics are, for people."""
        if self._file is not None:
            return str(self._file)
        host, port = self._server.server_address[:2]
        return f"http://{host}:{port}/metrics"

    def show(self, state: RunState) -> None:
        """Raises InputError if the file cannot be written."""
        self._state = state
        if self._file is not None:
            self._write()

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def _write(self) -> None:
        assert self._file is not None
        try:
            write_atomic(self._file, self._client.generate_latest(self._registry), mode=0o644)
        except OSError as error:
            raise InputError(
                f"cannot write {self._file}: {error.strerror}",
                hint="--prometheus FILE in a folder that you can write to, or a port",
            ) from None

    def collect(self) -> Iterator[Any]:
        """The metrics, as prometheus_client asks for them."""
        if self._state is not None:
            yield from families(self._state, self._client.core.GaugeMetricFamily)


def families(state: RunState, gauge: Callable[..., Any]) -> Iterator[Any]:
    """``gauge`` is prometheus_client's GaugeMetricFamily."""
    names = ("run", "benchmark", "scenario", "mode", "preset", "site")
    run = Path(state.run).name
    info = gauge("sut_run_info", "The run", labels=names)
    info.add_metric([run, *(str(getattr(state, name)) for name in names[1:])], 1)
    yield info
    of_run = gauge("sut_run_state", "1 for the state of the run", labels=["run", "state"])
    for each in get_args(Word):
        of_run.add_metric([run, each], float(state.state == each))
    yield of_run
    for name, text, value in (
        ("valid", "1 for VALID, 0 for INVALID", _valid(state.verdict)),
        ("exit_code", "Exit code of a finished run", state.exit_code),
        ("target_qps", "Load in queries a second", state.target_qps),
        ("left_seconds", "Estimated time to the end of the last test", state.left_s),
        ("silent_seconds", "Time since the last line of progress", state.silent_s),
    ):
        if value is not None:
            one = gauge(f"sut_run_{name}", text, labels=["run"])
            one.add_metric([run], float(value))
            yield one
    yield from _of_phases(run, state.phases, gauge)


def _of_phases(
    run: str, phases: tuple[PhaseState, ...], gauge: Callable[..., Any]
) -> Iterator[Any]:
    for name, text, field, divisor in _PHASE:
        family = gauge(f"sut_{name}", text, labels=["run", "test"])
        for phase in phases:
            value = getattr(phase, field)
            if phase.elapsed_s and value is not None:
                family.add_metric([run, phase.name], value / divisor)
        yield family
    verdicts = gauge("sut_test_valid", "1 for VALID, 0 for INVALID", labels=["run", "test"])
    for phase in phases:
        if (valid := _valid(phase.verdict)) is not None:
            verdicts.add_metric([run, phase.name], valid)
    yield verdicts
    for name, text, field in _REPLICA:
        family = gauge(f"sut_{name}", text, labels=["run", "replica", "node"])
        for phase in phases:
            for each in phase.replicas if phase.state == "running" else ():
                labels = [run, str(each.index), each.node]
                family.add_metric(labels, float(getattr(each, field)))
        yield family


def _valid(verdict: str | None) -> float | None:
    return None if verdict is None else float(verdict == "VALID")
