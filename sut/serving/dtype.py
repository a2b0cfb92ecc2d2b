"""The data type of an engine on this machine."""

from __future__ import annotations

from sut.machine import cpu
from sut.plan.benchmark import Dtype
from sut.plan.plan import Plan
from sut.plan.site import Device


def of(plan: Plan) -> Dtype:
    """The plan's; ``fastest`` is bfloat16 on a GPU and on a CPU with instructions for it, else
    float32."""
    if plan.engine.dtype is not Dtype.FASTEST:
        return plan.engine.dtype
    fast = plan.device is Device.CUDA or cpu.computes_in_bfloat16()
    return Dtype.BFLOAT16 if fast else Dtype.FLOAT32
