"""Step times of Llama-3.1-8B on GPUs that nobody has measured here. Pure.

The form is a roofline: in each step the weights are read once, each decoding sequence and prefill
token costs its floating-point operations, and each context token its part of the KV cache. All of
it takes 1 / ``efficiency`` of the time at the data sheet's peak. Where a result is published, the
efficiency is the one with which the simulated Offline test reaches it; that is a *fit*, and the
published Server result, which the fit does not use, shows its error. The A30 has no published
result; with the efficiency of the L40S, the lowest of the fits, it is *computed*.

``benchmarks/hardware.py`` makes the efficiencies and the errors, for prompts of 840 tokens in the
mean. The fits are of other engines' versions and settings, and of one throughput each: they say
what to book, not what a run will give.
"""

from __future__ import annotations

from typing import Literal

from sut.results.service import ServiceTimes
from sut.values import Struct

# Llama-3.1-8B's config.json: 32 layers of 4096 with 8 of 32 KV heads and 14336 in the MLP.
_LAYER_WEIGHTS = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336)
_HEAD_WEIGHTS = 128_256 * 4096  # the output layer, in 16 bits also where the others have 8
_KV_BYTES_PER_TOKEN = 2 * 32 * 8 * 128 * 2  # in 16 bits


MODEL = "llama3_1-8b"  # LoadGen's name of what the step times are of


class Published(Struct, frozen=True, kw_only=True):
    """A closed-division MLPerf result for Llama-3.1-8B, in tokens per second and GPU."""

    offline: float
    server: float
    source: str


class Hardware(Struct, frozen=True, kw_only=True):
    """One GPU with its limits of the engine. Peaks are those of dense operations."""

    name: str
    bytes_per_weight: int  # 1: FP8, 2: bfloat16
    peak_flops: float
    bytes_per_s: float
    data_sheet: str
    efficiency: float
    max_num_seqs: int
    max_num_batched_tokens: int
    published: Published | None = None
    # Simulated over published Server tokens/s, minus 1.
    server_error: float | None = None

    @property
    def label(self) -> Literal["fit", "computed"]:
        return "computed" if self.published is None else "fit"

    @property
    def source(self) -> str:
        """Where the step times are from, and their error, in words."""
        if self.published is None:
            return f"{self.name}, {self.label} from its data sheet; nothing measured"
        return (
            f"{self.name}, a {self.label} to {self.published.source}; its Server result is "
            f"simulated with an error of {self.server_error:+.1%}"
        )

    @property
    def fastest(self) -> float:
        """The part of the step times that no engine can go below: at the data sheet's peaks, with
        weights and operations of 8 bits."""
        return self.efficiency / self.bytes_per_weight

    @property
    def times(self) -> ServiceTimes:
        weights = _LAYER_WEIGHTS * self.bytes_per_weight + _HEAD_WEIGHTS * 2
        us_per_byte = 1e6 / (self.bytes_per_s * self.efficiency)
        us_per_operation = 1e6 / (self.peak_flops * self.efficiency)
        return ServiceTimes(
            base_us=weights * us_per_byte,
            per_sequence_us=2 * (_LAYER_WEIGHTS + _HEAD_WEIGHTS) * us_per_operation,
            per_prefill_token_us=2 * _LAYER_WEIGHTS * us_per_operation,
            per_context_token_us=_KV_BYTES_PER_TOKEN * us_per_byte,
        )


A30 = Hardware(
    name="NVIDIA A30 24 GB, bfloat16",
    bytes_per_weight=2,
    peak_flops=165e12,
    bytes_per_s=933e9,
    data_sheet="NVIDIA A30 Tensor Core GPU data sheet: 165 TFLOPS bfloat16, 933 GB/s",
    efficiency=0.522,
    max_num_seqs=48,
    max_num_batched_tokens=1024,
)
L40S = Hardware(
    name="NVIDIA L40S 48 GB, FP8",
    bytes_per_weight=1,
    peak_flops=733e12,
    bytes_per_s=864e9,
    data_sheet="NVIDIA L40S data sheet: 733 TFLOPS FP8, 864 GB/s",
    efficiency=0.522,
    max_num_seqs=256,
    max_num_batched_tokens=2048,
    published=Published(
        offline=1642.22,
        server=1207.14,
        source="MLPerf Inference v5.1, Red Hat, IBM Cloud gx3, 1x L40S, vLLM 0.10.0",
    ),
    server_error=0.113,
)
H100 = Hardware(
    name="NVIDIA H100 SXM 80 GB, FP8",
    bytes_per_weight=1,
    peak_flops=1979e12,
    bytes_per_s=3.35e12,
    data_sheet="NVIDIA H100 data sheet, SXM: 1,979 TFLOPS FP8, 3.35 TB/s",
    efficiency=0.564,
    max_num_seqs=512,
    max_num_batched_tokens=2048,
    published=Published(
        offline=5777.08,
        server=5103.99,
        source="MLPerf Inference v5.1, Red Hat, Dell PowerEdge XE8640, 1x H100, vLLM 0.10.0",
    ),
    server_error=0.102,
)
H200 = Hardware(
    name="NVIDIA H200 SXM 141 GB, FP8",
    bytes_per_weight=1,
    peak_flops=1979e12,
    bytes_per_s=4.8e12,
    data_sheet="NVIDIA H200 data sheet, SXM: 1,979 TFLOPS FP8, 4.8 TB/s",
    efficiency=0.658,
    max_num_seqs=1024,
    max_num_batched_tokens=2048,
    published=Published(
        offline=7796.59,
        server=7376.60,
        source="MLPerf Inference v6.1, Naeem Khoshnevis, 1x H200, TensorRT-LLM 1.0.0",
    ),
    server_error=0.036,
)
BY_NAME = {"a30": A30, "l40s": L40S, "h100": H100, "h200": H200}
ALL = tuple(BY_NAME.values())
