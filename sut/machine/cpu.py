"""What this machine's CPU can do."""

from __future__ import annotations

from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16"})  # flags, by Linux' names


def computes_in_bfloat16() -> bool:
    """Whether it has instructions for bfloat16. Without them float32 is faster."""
    return bool(BFLOAT16 & flags())


def flags() -> frozenset[str]:
    """Its features; empty where Linux does not list them."""
    try:
        lines = CPU_INFO.read_text().splitlines()
    except OSError:
        return frozenset()
    found = (line.partition(":")[2] for line in lines if line.startswith("flags"))
    return frozenset(next(found, "").split())
