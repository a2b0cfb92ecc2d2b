"""The C++ core from Python: misuse raises an exception, and every stop ends all waits."""

from __future__ import annotations

import gc
import math
import threading
from pathlib import Path
from typing import Any

import pytest
from replay import MAX_TOKENS, links_with, request_of, served

from sut import _core
from sut.serving import keys, wire


def dispatcher(store: _core.SampleStore | None = None, **changes: Any) -> _core.Dispatcher:
    settings: dict[str, Any] = {
        "max_output_tokens": 8,
        "sample_deadline_s": 5.0,
        "stall_deadline_s": 5.0,
    }
    links = changes.pop("links", None) or links_with(keys.make(1))
    layout = _core.WireLayout(**wire.PINNED_LAYOUT)
    return _core.Dispatcher(links, store or _core.SampleStore(), layout, **{**settings, **changes})


def test_refuses_a_request_with_its_id_elsewhere() -> None:
    store = _core.SampleStore()
    request = request_of([1, 2, 3])
    for id_offset in (0, 3, len(request) - 3, 10**6):
        with pytest.raises(ValueError, match=r"."):
            store.add(request, id_offset, 3)
    assert len(store) == 0 and store.num_bytes == 0


def test_names_the_limit_of_too_many_replicas() -> None:
    many = [keys.make(1).engines[0].public] * 100_000
    with pytest.raises(_core.LimitError, match=r"100000 replicas .*LIMIT.*EMFILE"):
        links_with(keys.make(1), engine_keys=many)


def test_a_prompts_bytes_are_stored_once() -> None:
    store = _core.SampleStore()
    request = request_of([7] * 1000)
    for _ in range(10):
        store.add(request, 2, 1000)
    assert store.num_bytes == 10 * len(request)


def test_a_store_in_use_refuses_samples() -> None:
    store = _core.SampleStore()
    store.add(request_of([1]), 2, 1)
    dispatcher(store).close()
    with pytest.raises((RuntimeError, ValueError)):
        store.add(request_of([1]), 2, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"max_output_tokens": 0},
        {"sample_deadline_s": 0.0},
        {"sample_deadline_s": -1.0},
        {"sample_deadline_s": math.nan},
        {"stall_deadline_s": math.nan},
    ],
)
def test_refuses_invalid_settings(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be"):
        dispatcher(**change)


def test_accepts_infinite_deadlines() -> None:
    dispatcher(sample_deadline_s=math.inf, stall_deadline_s=math.inf).close()


def test_links_serve_only_one_dispatcher() -> None:
    links = links_with(keys.make(1))
    first = dispatcher(links=links)
    with pytest.raises(RuntimeError, match="already"):
        dispatcher(links=links)
    first.close()


@pytest.mark.parametrize(
    ("host", "num_replicas", "error"),
    [
        ("127.0.0.1", 0, ValueError),
        ("203.0.113.1", 1, RuntimeError),
        ("no such host", 1, RuntimeError),
        ("", 1, RuntimeError),
    ],
)
def test_refuses_a_host_it_cannot_bind(
    host: str, num_replicas: int, error: type[Exception]
) -> None:
    with pytest.raises(error):
        links_with(keys.make(num_replicas), host=host)


def test_every_replica_has_its_own_ports() -> None:
    links = [links_with(keys.make(3)) for _ in range(2)]
    ports = {each.handshake_address(i)[1] for each in links for i in range(3)}
    assert len(ports) == 6


def test_refuses_an_unknown_replica() -> None:
    one = dispatcher()
    for call in (
        lambda: one.ready_response(1),
        lambda: one.ready_response(-1),
        lambda: one.set_credit(1, 1),
        lambda: one.generate([], 5, 1.0),
    ):
        with pytest.raises((IndexError, ValueError)):
            call()
    one.close()


@pytest.mark.parametrize("timeout_s", [-1.0, math.nan])
def test_refuses_an_invalid_timeout(timeout_s: float) -> None:
    one = dispatcher()
    with pytest.raises(ValueError, match="timeout"):
        one.wait_ready(timeout_s)
    one.close()


def test_the_first_failure_is_kept_after_close() -> None:
    one = dispatcher()
    one.fail("first", "it was this", 0)
    one.fail("second", "not this")
    failure = one.failure
    assert failure is not None and (failure.code, failure.message) == ("first", "it was this")
    one.close()
    one.close()
    assert one.failure is not None and one.failure.code == "first"


def test_closing_ends_every_wait() -> None:
    with served(4, 1, "--fault", "stall@0") as one:
        errors: list[BaseException] = []

        def wait() -> None:
            try:
                one.generate([0, 1, 2, 3], 0, 60.0)
            except RuntimeError as error:
                errors.append(error)

        waiting = threading.Thread(target=wait)
        waiting.start()
        while one.stats().issued < 4:
            pass
        one.close()
        waiting.join(10)
        assert not waiting.is_alive() and len(errors) == 1


def test_a_generate_timeout_fails_the_dispatcher() -> None:
    with served(4, 1, "--fault", "stall@0") as one:
        with pytest.raises(RuntimeError, match="generate_timeout"):
            one.generate([0], 0, 0.2)
        assert one.failure is not None and one.failure.code == "generate_timeout"
        with pytest.raises(RuntimeError):
            one.generate([0], 0, 0.2)


def test_many_threads_read_statistics_during_a_run() -> None:
    with served(64, 2) as one:
        stop = threading.Event()
        seen: list[int] = []

        def read() -> None:
            while not stop.is_set():
                stats = one.stats()
                assert stats.completed <= stats.admitted <= stats.issued
                assert set(stats.ttft_ns) in (set(), {"p50", "p90", "p99", "p99.9", "max"})
                seen.append(stats.completed)

        readers = [threading.Thread(target=read) for _ in range(3)]
        for reader in readers:
            reader.start()
        for _ in range(50):
            answers = one.generate(range(64), -1, 30.0)
            assert [len(answer) for answer in answers] == [MAX_TOKENS] * 64
        stop.set()
        for reader in readers:
            reader.join()
        assert one.stats().completed == 50 * 64 and max(seen) > 0


def test_a_blocking_call_releases_the_gil() -> None:
    one = dispatcher()
    done = threading.Event()
    waiting = threading.Thread(target=lambda: (one.wait_ready(1.0), done.set()))
    waiting.start()
    turns = 0
    while not done.is_set():
        turns += 1
    waiting.join()
    one.close()
    assert turns > 1000


def test_a_dispatcher_may_be_dropped_unclosed() -> None:
    for _ in range(20):
        dispatcher()
        gc.collect()


def test_dropping_a_running_test_does_not_hang(tmp_path: Path) -> None:
    # In its own process, because LoadGen's thread keeps running.
    import subprocess
    import sys

    program = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from replay import served
from sut import _core
with served(10, 1, "--fault", "stall@5") as dispatcher:
    test = _core.LoadGenTest(dispatcher, model="x", scenario="Offline", mode="performance",
        user_conf="", audit_conf="", log_dir={str(tmp_path)!r}, sut_name="s", qsl_name="q")
    test.start()
    assert not test.wait(0.5)
    del test
    assert dispatcher.failure.code == "test_abandoned"
print("left", flush=True)
os._exit(0)
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert run.stdout == "left\n", run.stderr


@pytest.mark.parametrize(
    "change",
    [
        {"scenario": "MultiStream"},
        {"scenario": "server"},
        {"mode": "submission"},
        {"user_conf": "x.Server.target_qps = many\n"},
    ],
)
def test_refuses_a_test_loadgen_cannot_run(change: dict[str, str], tmp_path: Path) -> None:
    settings = {
        "model": "x",
        "scenario": "Server",
        "mode": "performance",
        "user_conf": "",
        "audit_conf": "",
        "log_dir": str(tmp_path),
        "sut_name": "s",
        "qsl_name": "q",
    }
    one = dispatcher()
    with pytest.raises(ValueError, match=r"."):
        _core.LoadGenTest(one, **{**settings, **change})
    one.close()
