"""vLLM's engine-core protocol: encoded requests, and the positions of an output's fields.

The protocol is vLLM's own and positional, so its layout comes from vLLM's classes where they can be
imported (:mod:`sut.serving.vllm_layouts`). The replay engine uses the same protocol and needs no
vLLM.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from sut.errors import RunError
from sut.home import container_image
from sut.machine import environment
from sut.plan.benchmark import EngineKind, Generation
from sut.plan.plan import Plan
from sut.serving import dtype, vllm_layouts
from sut.values import UNDECODABLE, Struct

VLLM_VERSION = "0.32.0"  # that make env installs, and that the replay engine reports
PLACEHOLDER_ID = "0" * 16  # the dispatcher overwrites it
PLACEHOLDER = b"\xb0" + PLACEHOLDER_ID.encode()  # as msgpack: a string of 16 characters


Layout = dict[str, Any]  # the arguments of sut._core.WireLayout

# That of every tested version, used where vLLM is not installed. A test compares them.
PINNED_LAYOUT: Layout = {
    "outputs": 1,
    "scheduler_stats": 2,
    "timestamp": 3,
    "request_id": 0,
    "new_token_ids": 1,
    "finish_reason": 5,
    "prefill_stats": 11,
    "running_key": "num_running_reqs",
    "waiting_key": "num_waiting_reqs",
    "kv_cache_usage_key": "kv_cache_usage",
}


# Of a frame of outputs: its scheduler's statistics, and a request's output with the tokens of one
# step. Both are several times what vLLM and the replay engine send. The answer's length is no part
# of it: strangers, too, can send as much before they have to prove their key.
FRAME_BYTES = 64 * 1024
OUTPUT_BYTES = 2 * 1024


class _Ready(msgspec.Struct):
    """The fields of an engine's READY message that are read here."""

    vllm_version: str
    max_num_seqs: int
    max_model_len: int | None = None


class Encoded(Struct, frozen=True, kw_only=True):
    """What is sent to the engines of a run, and how to read what they answer."""

    layout: Layout
    requests: list[tuple[bytes, int]]  # by sample: an EngineCoreRequest, its request id's offset


def max_output_bytes(plan: Plan) -> int:
    """The longest frame of outputs that an engine can send: one output for each running request."""
    return FRAME_BYTES + plan.engine.max_num_seqs * OUTPUT_BYTES


def installed() -> str:
    """The version of the installed vLLM, without its local part. Raises RunError where vLLM is
    missing, or where its two packages have different versions."""
    packages = environment.versions(environment.VLLM)
    versions = {vllm_layouts.release(version) for version in packages.values()}
    if not versions:
        raise _unsupported(f"vLLM is not installed for {sys.executable}")
    if len(versions) > 1:
        both = " and ".join(f"{name} {version}" for name, version in sorted(packages.items()))
        raise _unsupported(f"{both} are installed together for {sys.executable}")
    return versions.pop()


def remarks(plan: Plan) -> tuple[str, ...]:
    """What to know of the engines' vLLM: that its version is not a tested one. Raises RunError as
    :func:`installed` does."""
    version = installed() if plan.engine.kind is EngineKind.VLLM else VLLM_VERSION
    return () if vllm_layouts.is_tested(version) else (vllm_layouts.untested(version),)


def _unsupported(problem: str) -> RunError:
    hint = (
        f"install vLLM {VLLM_VERSION}: make env, or for a GPU "
        "pip install --require-hashes --no-deps -r requirements/cuda.lock"
    )
    if container_image():
        hint = f"build the image again with vLLM {VLLM_VERSION}: docs/images.md"
    return RunError(problem, hint=hint, code="vllm_version")


def vllm_layout() -> Layout:
    """The positions of an output's fields in the installed vLLM's structs. Imports vLLM, which
    takes seconds.

    Raises RunError where the structs differ from those of the tested versions.
    """
    from vllm.version import __version__

    structs = vllm_layouts.installed()
    vllm_layouts.check(__version__, structs)
    return layout_of(structs)


def layout_of(structs: vllm_layouts.Structs) -> Layout:
    """The positions in structs that passed :func:`sut.serving.vllm_layouts.check`."""
    outputs, output = structs["EngineCoreOutputs"], structs["EngineCoreOutput"]
    return {
        **PINNED_LAYOUT,
        **{name: outputs.index(name) for name in ("outputs", "scheduler_stats", "timestamp")},
        **{name: output.index(name) for name in ("request_id", "new_token_ids")},
        **{name: output.index(name) for name in ("finish_reason", "prefill_stats")},
    }


def encode(
    plan: Plan,
    prompts: Sequence[Sequence[int]],
    model_path: Path | None,
    answers: Sequence[Sequence[int]] = (),
) -> Encoded:
    """The prompts' requests. For vLLM engines this imports vLLM, which takes seconds.

    ``answers`` are the replay engine's, one for each prompt. Without them it echoes the prompt.
    """
    match plan.engine.kind:
        case EngineKind.VLLM:
            assert model_path is not None
            layout, encoded = vllm_layout(), _encode_by_vllm(plan, prompts, model_path)
        case EngineKind.REPLAY:
            layout, encoded = PINNED_LAYOUT, _encode_for_replay(plan.generation, prompts, answers)
    # The id is the first field, so the first match is right.
    requests = [(request, request.index(PLACEHOLDER) + 1) for request in encoded]
    return Encoded(layout=layout, requests=requests)


def check_ready(response: bytes, plan: Plan) -> dict[str, Any]:
    """An engine's READY message, decoded. Raises RunError for an engine of another version than
    encoded the requests, and for one that cannot run the plan."""
    try:
        ready: dict[str, Any] = msgspec.msgpack.decode(response, type=dict[str, Any])
        known = msgspec.convert(ready, _Ready)
    except UNDECODABLE:
        raise _unsupported("an engine's READY message differs from vLLM's") from None
    ours = VLLM_VERSION if plan.engine.kind is EngineKind.REPLAY else installed()
    if vllm_layouts.release(known.vllm_version) != ours:
        raise _unsupported(
            f"an engine reports vLLM {known.vllm_version}, but its requests are those of {ours}"
        )
    planned, possible = plan.engine.max_model_len, known.max_model_len
    if possible is not None and possible < planned:
        raise RunError(
            f"an engine reduced max_model_len from {planned} to {possible}: its KV cache is too "
            "small",
            hint=f"give engines more memory, or --set engine.max_model_len={possible}",
            code="max_model_len",
        )
    return ready


def _encode_by_vllm(
    plan: Plan, prompts: Sequence[Sequence[int]], model_path: Path
) -> Iterable[bytes]:
    """Encode with vLLM's InputProcessor, which sets EOS and stop ids, and vLLM's encoder."""
    from vllm.inputs.engine import tokens_input
    from vllm.sampling_params import RequestOutputKind, SamplingParams
    from vllm.v1.engine.input_processor import InputProcessor
    from vllm.v1.serial_utils import MsgpackEncoder

    processor, encoder = InputProcessor(_vllms_config(plan, model_path)), MsgpackEncoder()
    generation = plan.generation
    params = SamplingParams(
        temperature=generation.temperature,
        top_p=generation.top_p,
        top_k=generation.top_k,
        seed=generation.seed,
        min_tokens=generation.min_tokens,
        max_tokens=generation.max_tokens,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
    )
    for prompt in prompts:
        request = processor.process_inputs(
            PLACEHOLDER_ID, tokens_input(list(prompt)), params, ("generate",), arrival_time=0.0
        )
        frame, *others = encoder.encode(request)
        assert not others, "a request of token ids alone is one frame"
        yield bytes(frame)


def _vllms_config(plan: Plan, model_path: Path) -> Any:
    """A VllmConfig of what the requests depend on. Raises RunError for settings that vLLM
    refuses for this model."""
    from vllm.engine.arg_utils import EngineArgs

    try:
        return EngineArgs(
            model=str(model_path),
            dtype=dtype.of(plan),
            max_model_len=plan.engine.max_model_len,
            enforce_eager=True,
            enable_prefix_caching=False,
        ).create_engine_config()
    except ValueError as error:  # also pydantic's
        reasons = [each["msg"] for each in error.errors()] if hasattr(error, "errors") else [error]
        why = "; ".join(str(reason).removeprefix("Value error, ") for reason in reasons)
        raise RunError(
            f"vLLM refuses the model {model_path}: {why}",
            hint="change the setting it names, such as --set engine.dtype=bfloat16",
            code="engine_config",
        ) from None


def _encode_for_replay(
    generation: Generation, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
) -> Iterable[bytes]:
    """The same array, with those SamplingParams that the replay engine reads."""
    for index, prompt in enumerate(prompts):
        params: dict[str, Any] = {
            "min_tokens": generation.min_tokens,
            "max_tokens": generation.max_tokens,
        }
        if answers:
            params["extra_args"] = {"answer": list(answers[index])}
        fields = [PLACEHOLDER_ID, list(prompt), None, params, None, 0.0, None, None, None]
        yield msgspec.msgpack.encode(fields)
