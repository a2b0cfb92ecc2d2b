"""The replay engine over real sockets, as the dispatcher uses it.

The binary is the installed one, or the one named by SUT_REPLAY_ENGINE.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

import sut

IDENTITY = b"\0\0"
ADD, ABORT = b"\x00", b"\x01"
STOP, LENGTH, ERROR = 0, 1, 3
DEAD = b"ENGINE_CORE_DEAD"
TIMEOUT_MS = 10_000
UNTIMED = ("--max-num-seqs", "4", "--max-model-len", "1000", "--max-num-batched-tokens", "64")


class Output(msgspec.Struct, array_like=True):
    """The first fields of vLLM's EngineCoreOutput."""

    request_id: str
    tokens: list[int]
    new_logprobs: None
    new_prompt_logprobs_tensors: None
    pooling_output: None
    finish_reason: int | None


class Frame(msgspec.Struct, array_like=True):
    """The first fields of vLLM's EngineCoreOutputs."""

    engine_index: int
    outputs: list[Output]
    scheduler_stats: dict[str, Any]
    timestamp: float


class FrontEnd:
    """The dispatcher's sockets of one replica, and its engine process."""

    def __init__(self, binary: Path, *options: str) -> None:
        self.context = zmq.Context()
        self.handshake = self._bind(zmq.ROUTER)
        self.input = self._bind(zmq.ROUTER)
        self.output = self._bind(zmq.PULL)
        argv = [str(binary), "--handshake", _address(self.handshake), *UNTIMED, *options]
        self.engine = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)

    def _bind(self, kind: int) -> zmq.Socket[bytes]:
        socket = self.context.socket(kind)
        socket.rcvtimeo = TIMEOUT_MS
        socket.bind("tcp://127.0.0.1:*")
        return socket

    def greet(self) -> dict[str, Any]:
        """Answer the engine's HELLO and return it."""
        identity, hello = self.handshake.recv_multipart()
        assert identity == IDENTITY
        addresses = {"inputs": [_address(self.input)], "outputs": [_address(self.output)]}
        reply = {"addresses": addresses, "parallel_config": {}}
        self.handshake.send_multipart([identity, msgspec.msgpack.encode(reply)])
        return _map(hello)

    def make_ready(self) -> dict[str, Any]:
        """Complete the handshake and return the ready response."""
        self.greet()
        identity, response = self.input.recv_multipart()
        assert identity == IDENTITY
        return _map(response)

    def add(self, number: int, prompt: Sequence[int], **sampling_params: Any) -> None:
        fields = [_id(number), prompt, None, sampling_params, None, 0.0, None, None, None]
        self.send(ADD, msgspec.msgpack.encode(fields))

    def abort(self, *numbers: int) -> None:
        self.send(ABORT, msgspec.msgpack.encode([_id(number) for number in numbers]))

    def send(self, kind: bytes, data: bytes) -> None:
        self.input.send_multipart([IDENTITY, kind, data])

    def frame(self) -> Frame:
        return msgspec.msgpack.decode(self.output.recv(), type=Frame)

    def is_silent(self, for_ms: int = 200) -> bool:
        return not self.output.poll(for_ms)

    def answer(self, number: int) -> tuple[list[int], int]:
        """Read frames until one request ends; return its tokens and finish_reason."""
        tokens: list[int] = []
        while True:
            for output in self.frame().outputs:
                if output.request_id != _id(number):
                    continue
                tokens += output.tokens
                if output.finish_reason is not None:
                    return tokens, output.finish_reason

    def generate(
        self, number: int, prompt: Sequence[int], **sampling_params: Any
    ) -> tuple[list[int], int]:
        self.add(number, prompt, **sampling_params)
        return self.answer(number)

    def exit_code(self) -> int:
        return self.engine.wait(timeout=TIMEOUT_MS / 1000)

    def hang_up(self) -> None:
        self.context.destroy(linger=0)

    def close(self) -> None:
        self.engine.kill()
        self.engine.communicate()
        self.hang_up()


def _address(socket: zmq.Socket[bytes]) -> str:
    address = socket.last_endpoint
    assert isinstance(address, bytes)
    return address.decode()


def _id(number: int) -> str:
    return f"{number:016x}"


def _map(data: bytes) -> dict[str, Any]:
    return msgspec.msgpack.decode(data, type=dict[str, Any])


@pytest.fixture(scope="session")
def binary() -> Path:
    named = os.environ.get("SUT_REPLAY_ENGINE")
    path = Path(named) if named else Path(sut.__file__).parent / "replay_engine"
    assert path.is_file(), f"{path} not found: run make build, or set SUT_REPLAY_ENGINE"
    return path


Start = Callable[..., FrontEnd]


@pytest.fixture
def start(binary: Path) -> Iterator[Start]:
    """Start an engine with these options and complete the handshake."""
    started: list[FrontEnd] = []

    def start(*options: str, ready: bool = True) -> FrontEnd:
        started.append(FrontEnd(binary, *options))
        if ready:
            started[-1].make_ready()
        return started[-1]

    yield start
    for front_end in started:
        front_end.close()


def test_the_handshake_is_vllms(start: Start) -> None:
    front_end = start(ready=False)
    assert front_end.greet() == {"status": "HELLO", "local": False, "headless": True}
    identity, response = front_end.input.recv_multipart()
    assert identity == IDENTITY
    ready = _map(response)
    assert ready["vllm_version"] == "0.32.0"
    assert (ready["max_num_seqs"], ready["max_model_len"]) == (4, 1000)
    assert ready["max_num_batched_tokens"] == 64
    identity, message = front_end.handshake.recv_multipart()
    assert (identity, _map(message)["status"]) == (IDENTITY, "READY")


def test_it_reports_the_given_version(start: Start) -> None:
    assert start("--vllm-version", "0.31.9", ready=False).make_ready()["vllm_version"] == "0.31.9"


def test_the_answer_echoes_the_prompt(start: Start) -> None:
    front_end = start()
    assert front_end.generate(1, [7, 300, 70_000], min_tokens=7, max_tokens=7) == (
        [7, 300, 70_000, 7, 300, 70_000, 7],
        LENGTH,
    )


def test_a_request_may_contain_its_answer(start: Start) -> None:
    front_end = start()
    given = {"note": [1, 2], "answer": [9, 70_000, 9], "more": {"answer": [5]}}
    for most, answer in ((3, ([9, 70_000, 9], LENGTH)), (8, ([9, 70_000, 9], STOP))):
        params = {"min_tokens": 2, "max_tokens": most, "extra_args": given}
        assert front_end.generate(most, [7, 8], **params) == answer
    cut = front_end.generate(1, [7, 8], max_tokens=2, extra_args={"answer": [4, 5, 6]})
    assert cut == ([4, 5], LENGTH)
    assert front_end.generate(2, [7, 8], max_tokens=1, extra_args={"answer": []}) == ([7], LENGTH)


def test_seed_and_prompt_determine_an_answers_length(start: Start) -> None:
    prompts = [[n, n + 1] for n in range(40)]

    def lengths(seed: str) -> list[tuple[int, int]]:
        front_end = start("--seed", seed)
        answers = [
            front_end.generate(n, prompt, min_tokens=3, max_tokens=9)
            for n, prompt in enumerate(prompts)
        ]
        return [(len(tokens), reason) for tokens, reason in answers]

    first = lengths("1")
    assert lengths("1") == first
    assert lengths("2") != first
    assert {length for length, _ in first} == set(range(3, 10))
    assert all((reason == LENGTH) == (length == 9) for length, reason in first)


def test_an_answer_ends_at_max_model_len(start: Start) -> None:
    tokens, reason = start().generate(1, [5] * 990, min_tokens=50, max_tokens=50)
    assert (len(tokens), reason) == (10, LENGTH)


def test_a_request_that_cannot_run_fails(start: Start) -> None:
    front_end = start()
    assert front_end.generate(1, []) == ([], ERROR)
    assert front_end.generate(2, [5] * 1000) == ([], ERROR)
    assert front_end.generate(3, [5], max_tokens=1) == ([5], LENGTH)


def test_requests_share_steps_up_to_max_num_seqs(start: Start) -> None:
    front_end = start("--step-base-us", "20000")
    for number in range(6):
        front_end.add(number, [number], min_tokens=10, max_tokens=10)
    sizes: list[int] = []
    num_waiting: list[int] = []
    while sum(sizes) < 60:
        frame = front_end.frame()
        sizes.append(len(frame.outputs))
        num_waiting.append(frame.scheduler_stats["num_waiting_reqs"])
    assert max(sizes) == 4
    assert max(num_waiting[1:]) == 2  # requests that arrive during a step wait for the next
    assert num_waiting[-1] == 0


def test_a_long_prompt_is_prefilled_in_pieces(start: Start) -> None:
    front_end = start()
    front_end.add(1, [5] * 150, max_tokens=1)
    frames = [front_end.frame() for _ in range(3)]
    assert [len(frame.outputs) for frame in frames] == [0, 0, 1]
    assert frames[1].scheduler_stats["kv_cache_usage"] == 128 / 4000


def test_a_step_takes_the_modelled_time(start: Start) -> None:
    front_end = start(
        *("--step-base-us", "800", "--step-per-sequence-us", "200"),
        *("--prefill-tokens-per-s", "1000"),
    )
    front_end.add(1, [5] * 40, min_tokens=301, max_tokens=301)
    sent = time.monotonic()
    front_end.frame()
    assert 0.0408 <= time.monotonic() - sent < 5
    for _ in range(300):
        front_end.frame()
    assert 0.3408 <= time.monotonic() - sent < 5


def test_a_request_joins_the_next_step(start: Start) -> None:
    front_end = start("--step-base-us", "100000")
    front_end.add(1, [1], min_tokens=3, max_tokens=3)
    time.sleep(0.03)
    front_end.add(2, [2], min_tokens=3, max_tokens=3)
    ids = [[output.request_id for output in front_end.frame().outputs] for _ in range(4)]
    assert ids == [[_id(1)], [_id(1), _id(2)], [_id(1), _id(2)], [_id(2)]]


def test_an_aborted_request_gets_no_output(start: Start) -> None:
    front_end = start("--step-base-us", "30000")
    for number in range(5):
        front_end.add(number, [number], min_tokens=900, max_tokens=900)
    while len(front_end.frame().outputs) < 4:
        pass
    front_end.abort(0, 4, 99)
    time.sleep(0.1)
    while not front_end.is_silent(0):
        frame = front_end.frame()
    assert [output.request_id for output in frame.outputs] == [_id(1), _id(2), _id(3)]
    assert frame.scheduler_stats["num_waiting_reqs"] == 0
    front_end.add(0, [8], max_tokens=1)
    assert front_end.answer(0) == ([8], LENGTH)


@pytest.mark.parametrize(
    ("fault", "frames", "code"), [("die@2", [], 1), ("dead@2", [DEAD], 1), ("dead@0", [DEAD], 1)]
)
def test_fault_die_or_dead_ends_it(
    start: Start, fault: str, frames: list[bytes], code: int
) -> None:
    front_end = start("--fault", fault)
    for number in range(int(fault[-1])):
        assert front_end.generate(number, [5], max_tokens=1) == ([5], LENGTH)
    if fault.endswith("@0"):
        front_end.add(0, [5])
    assert front_end.exit_code() == code
    assert [front_end.output.recv() for _ in frames] == frames
    assert front_end.is_silent()


def test_fault_die_loading_ends_it_before_ready(start: Start) -> None:
    front_end = start("--fault", "die-loading", ready=False)
    front_end.greet()
    assert front_end.exit_code() == 1
    assert not front_end.input.poll(100)


def test_fault_never_ready_keeps_it_silent(start: Start) -> None:
    front_end = start("--fault", "never-ready", ready=False)
    front_end.greet()
    assert not front_end.input.poll(300)
    assert front_end.engine.poll() is None
    front_end.hang_up()
    assert front_end.exit_code() == 0


def test_fault_stall_still_lets_it_end(start: Start) -> None:
    front_end = start("--fault", "stall@1")
    assert front_end.generate(1, [5], max_tokens=1) == ([5], LENGTH)
    front_end.add(2, [5])
    assert front_end.is_silent()
    front_end.hang_up()
    assert front_end.exit_code() == 0


def test_fault_error_fails_one_request(start: Start) -> None:
    front_end = start("--fault", "error@2")
    answers = [front_end.generate(n, [5], max_tokens=1) for n in range(3)]
    assert answers == [([5], LENGTH), ([], ERROR), ([5], LENGTH)]


def test_fault_garbage_sends_one_bad_frame(start: Start) -> None:
    front_end = start("--fault", "garbage@1")
    assert front_end.generate(1, [5], max_tokens=1) == ([5], LENGTH)
    with pytest.raises(msgspec.DecodeError):
        msgspec.msgpack.decode(front_end.output.recv())
    assert front_end.generate(2, [5], max_tokens=1) == ([5], LENGTH)


def test_fault_truncate_shortens_one_frame(start: Start) -> None:
    front_end = start("--fault", "truncate@1")
    assert front_end.generate(1, [5], max_tokens=1) == ([5], LENGTH)
    front_end.add(2, [5], max_tokens=1)
    with pytest.raises(msgspec.DecodeError, match="truncated"):
        msgspec.msgpack.decode(front_end.output.recv())
    assert front_end.generate(3, [5], max_tokens=1) == ([5], LENGTH)


def test_fault_unknown_id_answers_another_request(start: Start) -> None:
    front_end = start("--fault", "unknown-id@1")
    assert front_end.generate(1, [5], max_tokens=1) == ([5], LENGTH)
    assert [output.request_id for output in front_end.frame().outputs] == ["f" * 16]


def test_fault_reset_output_reconnects(start: Start) -> None:
    front_end = start("--fault", "reset-output@1")
    events = front_end.output.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    front_end.add(1, [5], max_tokens=1)  # its frame may be lost with the connection
    assert events.poll(20_000)
    assert front_end.generate(2, [5], max_tokens=1) == ([5], LENGTH)


def test_fault_slow_makes_steps_longer(start: Start) -> None:
    front_end = start("--step-base-us", "10000", "--fault", "slow@1:10")

    def seconds(number: int) -> float:
        began = time.monotonic()
        front_end.generate(number, [5], min_tokens=3, max_tokens=3)
        return time.monotonic() - began

    assert 0.03 <= seconds(1) < 0.2
    assert seconds(2) >= 0.3


@pytest.mark.parametrize("step_us", ["0", "50", "60000000"])
def test_it_ends_when_the_front_end_disconnects(start: Start, step_us: str) -> None:
    front_end = start("--step-base-us", step_us, "--max-model-len", "1000000000")
    front_end.add(1, [5], min_tokens=900_000_000, max_tokens=900_000_000)
    time.sleep(0.1)
    front_end.hang_up()
    assert front_end.exit_code() == 0


def test_it_ends_when_no_front_end_answers(start: Start) -> None:
    front_end = start(ready=False)
    front_end.handshake.recv_multipart()
    front_end.hang_up()
    assert front_end.exit_code() == 0


def test_it_continues_without_the_handshake_socket(start: Start) -> None:
    front_end = start()
    front_end.handshake.recv_multipart()
    front_end.handshake.close()
    time.sleep(0.1)
    assert front_end.generate(1, [5], max_tokens=1) == ([5], LENGTH)


@pytest.mark.parametrize("step_us", ["0", "60000000"])
def test_sigterm_ends_it_during_a_step(start: Start, step_us: str) -> None:
    front_end = start("--step-base-us", step_us, "--max-model-len", "1000000000")
    front_end.add(1, [5], min_tokens=900_000_000, max_tokens=900_000_000)
    time.sleep(0.1)
    front_end.engine.send_signal(signal.SIGTERM)
    assert front_end.exit_code() == 0


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (ADD, b"\x92\xa1a"),
        (ADD, b"\xc1"),
        (ADD, msgspec.msgpack.encode({"request_id": "a"})),
        (ABORT, b"\x05"),
        (b"\x03", msgspec.msgpack.encode([0, 1, "profile", []])),
        (b"no", b""),
    ],
)
def test_an_invalid_request_ends_it_with_an_error(start: Start, kind: bytes, data: bytes) -> None:
    front_end = start()
    front_end.send(kind, data)
    assert front_end.output.recv() == DEAD
    assert front_end.exit_code() == 1
    assert front_end.engine.stderr is not None
    assert "error: invalid " in front_end.engine.stderr.read().splitlines()[1]


def test_a_duplicate_id_is_an_error(start: Start) -> None:
    front_end = start("--step-base-us", "60000000")
    front_end.add(1, [5])
    front_end.add(1, [5])
    assert front_end.output.recv() == DEAD
    assert front_end.exit_code() == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--max-num-seqs", "0"],
            "invalid value '0' for --max-num-seqs: expected an integer of at least 1",
        ),
        (["--max-num-seqs", "99"], "--max-num-batched-tokens must be at least --max-num-seqs"),
        (
            ["--step-base-us", "-1"],
            "invalid value '-1' for --step-base-us: expected a number of at least 0",
        ),
        (["--seed", "1x"], "invalid value '1x' for --seed"),
        (["--sede", "1"], "unknown option --sede"),
        (["--seed"], "option --seed is unknown or has no value"),
        (["--fault", "die"], "unknown fault 'die': expected one of die@N"),
        (["--fault", "error@0"], "unknown fault 'error@0'"),
        (["--fault", "slow@1"], "slow@N:FACTOR"),
        (["--fault", "slow@1:nan"], "unknown fault 'slow@1:nan'"),
    ],
)
def test_reports_an_invalid_option(binary: Path, options: list[str], message: str) -> None:
    argv = [str(binary), "--handshake", "tcp://127.0.0.1:1", *UNTIMED, *options]
    result = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
    assert result.returncode == 2
    assert message in result.stderr.splitlines()[0]


def test_vllms_own_classes_work_with_it(start: Start) -> None:
    v1 = pytest.importorskip("vllm.v1.engine")
    serial = pytest.importorskip("vllm.v1.serial_utils")
    sampling = pytest.importorskip("vllm.sampling_params")
    encoder, decoder = serial.MsgpackEncoder(), serial.MsgpackDecoder(v1.EngineCoreOutputs)

    def encode(number: int, prompt: list[int], **params: Any) -> bytes:
        request = v1.EngineCoreRequest(
            request_id=_id(number),
            prompt_token_ids=prompt,
            mm_features=None,
            sampling_params=sampling.SamplingParams(temperature=0.0, detokenize=False, **params),
            pooling_params=None,
            arrival_time=time.time(),
            lora_request=None,
            cache_salt=None,
            data_parallel_rank=None,
            trace_headers={"max_tokens": "no"},
        )
        (frame,) = encoder.encode(request)
        return bytes(frame)

    front_end = start("--fault", "error@3", ready=False)
    ready = msgspec.convert(front_end.make_ready(), v1.EngineCoreReadyResponse)
    assert ready.kv_cache_size_tokens == 4000

    def answer(number: int) -> tuple[list[int], Any]:
        tokens: list[int] = []
        while True:
            frame = front_end.output.recv()
            outputs = decoder.decode(frame)
            assert b"".join(encoder.encode(outputs)) == frame
            assert outputs.timestamp == pytest.approx(time.monotonic(), abs=5)
            for output in outputs.outputs:
                assert output.request_id == _id(number)
                tokens += output.new_token_ids
                if output.finished:
                    return tokens, output.finish_reason

    requests: list[tuple[list[int], dict[str, Any]]] = [
        ([1, 200, 128_000], {"max_tokens": 20, "min_tokens": 20, "stop_token_ids": [2, 3]}),
        ([9] * 300, {"max_tokens": 30, "min_tokens": 30, "logit_bias": {5: 1.0}}),
        ([1], {}),
        ([3, 4], {"max_tokens": None, "min_tokens": 998}),
        ([6], {}),
        ([7], {"max_tokens": 20, "extra_args": {"answer": [11, 128_000]}}),
    ]
    answers = []
    for number, (prompt, params) in enumerate(requests):
        front_end.send(ADD, encode(number, prompt, **params))
        answers.append(answer(number))
    length = v1.FinishReason.LENGTH
    assert answers[:4] == [
        (([1, 200, 128_000] * 7)[:20], length),
        ([9] * 30, length),
        ([], v1.FinishReason.ERROR),
        ([3, 4] * 499, length),
    ]
    assert 1 <= len(answers[4][0]) <= 16
    assert answers[5] == ([11, 128_000], v1.FinishReason.STOP)
