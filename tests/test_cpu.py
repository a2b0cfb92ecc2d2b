"""The data type that a machine computes in fastest."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from plans import plan_of

from sut.machine import cpu
from sut.plan.benchmark import Dtype
from sut.plan.site import Device
from sut.results import engine_rules
from sut.results.engine_report import EngineReport
from sut.serving import dtype
from sut.serving.process import Address, Launch, argv

PLAN = plan_of("smollm2-135m-news", sets=["engine.dtype=fastest"])


@pytest.mark.parametrize(
    ("flags", "chosen"),
    [
        ("fpu sse2 avx512f avx512_bf16 vaes", Dtype.BFLOAT16),
        ("fpu amx_bf16 amx_tile", Dtype.BFLOAT16),
        ("fpu sse2 avx512f avx512_vnni", Dtype.FLOAT32),
        ("", Dtype.FLOAT32),
    ],
)
def test_fastest_follows_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, chosen: Dtype
) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor\t: 0\nflags\t\t: {flags}\n\nprocessor\t: 1\nflags\t\t: {flags}\n")
    monkeypatch.setattr(cpu, "CPU_INFO", info)
    assert dtype.of(PLAN) is chosen
    launch = Launch(replica=0, part=0, handshake=Address("127.0.0.1", 1), host="127.0.0.1")
    words = argv(PLAN, launch, tmp_path)
    assert words[words.index("--dtype") + 1] == chosen.value
    on_gpu = msgspec.structs.replace(PLAN, device=Device.CUDA)
    assert dtype.of(on_gpu) is Dtype.BFLOAT16


def test_a_machine_without_cpuinfo_has_no_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "CPU_INFO", tmp_path / "none")
    assert cpu.flags() == frozenset() and dtype.of(PLAN) is Dtype.FLOAT32


def test_a_given_type_stays() -> None:
    plan = plan_of("smollm2-135m-news", sets=["engine.dtype=float16"])
    assert dtype.of(plan) is Dtype.FLOAT16


def test_engines_must_agree_on_one() -> None:
    settings = dict(engine_rules.planned(PLAN))
    assert engine_rules.DTYPE not in settings

    def report(name: str) -> EngineReport:
        found = {**settings, engine_rules.DTYPE: name}
        return EngineReport(engine="vllm 0.32.0", settings=found, changed={})

    def met(*names: str) -> bool:
        checks = engine_rules._of_settings(PLAN, [report(name) for name in names])
        return next(check.met for check in checks if check.code == "engine_settings")

    assert met("bfloat16") and met("float32", "float32") and not met("bfloat16", "float32")
