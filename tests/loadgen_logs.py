"""LoadGen logs from the real LoadGen (the PyPI wheel) and a system under test that answers on a
schedule.

Each log is made in its own process: LoadGen keeps state in one, and the wheel must never share one
with ``sut._core``.
"""

from __future__ import annotations

import array
import functools
import heapq
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Settings = dict[str, Any]

_PREFIX = ":::MLLOG "

DEFAULTS: Settings = {
    "model": "llama3_1-8b",
    "scenario": "Server",
    "mode": "PerformanceOnly",
    "user_conf": {},  # LoadGen's keys for this model and scenario
    "more_confs": [],  # paths of further files that are read as user.conf, an error
    "output": {},  # LoadGen's LogOutputSettings
    "num_samples": 100,
    "ttft_ms": 0.0,
    "tpot_ms": 1.0,
    "slow_every": 0,  # every Nth sample has ...
    "slow_ttft_ms": 0.0,  # ... this TTFT
    "slow_tpot_ms": 1.0,  # ... and this TPOT
    "num_tokens": 8,
    "report_tokens": None,  # the n_tokens reported to LoadGen, to report a wrong one
    "tokens": {},  # qsl index (as text) -> the sample's output token ids
}


def make(log_dir: Path, **settings: Any) -> Path:
    """Run one LoadGen test with ``settings`` (see DEFAULTS); returns ``log_dir``."""
    unknown = settings.keys() - DEFAULTS.keys()
    assert not unknown, unknown
    log_dir.mkdir(parents=True)
    command = [sys.executable, __file__, str(log_dir), json.dumps(DEFAULTS | settings)]
    subprocess.run(command, check=True, timeout=60)
    return log_dir


@functools.cache
def ten_queries() -> Path:
    """A typical first Server run: ten queries, TTFT 50 ms, TPOT 38 ms, no limit exceeded."""
    conf = {"target_qps": 50, "max_query_count": 10}
    return make(_kept() / "ten", user_conf=conf, ttft_ms=50, tpot_ms=38)


SMALLEST_VALID = {"target_qps": 1000, "min_duration": 300, "min_query_count": 480}


@functools.cache
def smallest_valid() -> Path:
    """500 Server queries that LoadGen calls VALID."""
    return make(_kept() / "valid", user_conf=SMALLEST_VALID)


def with_value(key: str, value: object) -> Callable[[str], str]:
    """An edit of a detail log's text that sets ``key`` to ``value``."""

    def change(text: str) -> str:
        lines = []
        for line in text.splitlines():
            entry = json.loads(line.removeprefix(_PREFIX))
            if entry["key"] == key:
                entry["value"] = value
            lines.append(_PREFIX + json.dumps(entry) + "\n")
        return "".join(lines)

    return change


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="loadgen-logs-")


def _kept() -> Path:
    """A folder that exists as long as this process."""
    return Path(_folder().name)


class _System:
    """Completes samples when they are due, every event from one thread as LoadGen requires."""

    def __init__(self, settings: Settings, loadgen: Any) -> None:
        self._settings = settings
        self._loadgen = loadgen
        self._due: list[tuple[float, int, Any]] = []
        self._wake = threading.Condition()
        self._num_issued = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def issue(self, samples: list[Any]) -> None:
        s, now = self._settings, time.monotonic()
        with self._wake:
            for sample in samples:
                self._num_issued += 1
                slow = s["slow_every"] and self._num_issued % s["slow_every"] == 0
                ttft_ms, tpot_ms = (
                    (s["slow_ttft_ms"], s["slow_tpot_ms"]) if slow else (s["ttft_ms"], s["tpot_ms"])
                )
                tokens = s["tokens"].get(str(sample.index), list(range(s["num_tokens"])))
                first = now + ttft_ms / 1e3
                done = first + tpot_ms / 1e3 * (len(tokens) - 1)
                event = (sample.id, tokens)
                heapq.heappush(self._due, (first, 2 * self._num_issued, (True, *event)))
                heapq.heappush(self._due, (done, 2 * self._num_issued + 1, (False, *event)))
            self._wake.notify()

    def _serve(self) -> None:
        while True:
            with self._wake:
                while not self._due or self._due[0][0] > time.monotonic():
                    wait = self._due[0][0] - time.monotonic() if self._due else None
                    self._wake.wait(wait)
                _, _, (is_first, sample_id, tokens) = heapq.heappop(self._due)
            self._report(is_first, sample_id, tokens)

    def _report(self, is_first: bool, sample_id: int, tokens: list[int]) -> None:
        data = array.array("i", tokens[:1] if is_first else tokens)
        address, length = data.buffer_info()
        reported = self._settings["report_tokens"]
        num_tokens = len(data) if reported is None or is_first else reported
        response = self._loadgen.QuerySampleResponse(
            sample_id, address, length * data.itemsize, num_tokens
        )
        if is_first:
            self._loadgen.FirstTokenComplete([response])
        else:
            self._loadgen.QuerySamplesComplete([response])


def _run(log_dir: Path, s: Settings) -> None:
    import mlperf_loadgen as loadgen

    conf = log_dir / "user.conf"
    prefix = f"{s['model']}.{s['scenario']}"
    conf.write_text("".join(f"{prefix}.{k} = {v}\n" for k, v in s["user_conf"].items()))
    test = loadgen.TestSettings()
    test.FromConfig("", s["model"], s["scenario"], 0)
    test.FromConfig(str(conf), s["model"], s["scenario"], 2)
    for path in [str(conf), *s["more_confs"]] if s["more_confs"] else []:
        test.FromConfig(path, s["model"], s["scenario"], 1)
    test.scenario = getattr(loadgen.TestScenario, s["scenario"])
    test.mode = getattr(loadgen.TestMode, s["mode"])
    output = loadgen.LogOutputSettings()
    output.outdir = str(log_dir)
    for key, value in s["output"].items():
        setattr(output, key, value)
    logging = loadgen.LogSettings()
    logging.log_output = output
    logging.enable_trace = False

    system = _System(s, loadgen)
    sut = loadgen.ConstructSUT(system.issue, lambda: None)
    num = s["num_samples"]
    qsl = loadgen.ConstructQSL(num, num, lambda _: None, lambda _: None)
    loadgen.StartTestWithLogSettings(sut, qsl, test, logging, "")
    loadgen.DestroyQSL(qsl)
    loadgen.DestroySUT(sut)


if __name__ == "__main__":
    _run(Path(sys.argv[1]), json.loads(sys.argv[2]))
