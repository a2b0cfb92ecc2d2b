"""Lists of what there is to choose from: benchmarks, campaigns, sites, scenarios, keys."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sut.errors import InputError
from sut.plan import config, document
from sut.plan.benchmark import Benchmark, Preset
from sut.plan.config import Campaign
from sut.plan.keys import all_keys
from sut.plan.site import Site
from sut.units import number, quantity
from sut.values import Struct


class BenchmarkRow(Struct, frozen=True, kw_only=True):
    name: str
    model: str = ""
    scenarios: tuple[str, ...] = ()
    official: str = ""
    description: str = ""
    file: str


class CampaignRow(Struct, frozen=True, kw_only=True):
    name: str
    runs: int = 0
    description: str = ""
    file: str


class SiteRow(Struct, frozen=True, kw_only=True):
    name: str
    device: str = ""
    nodes: str = ""
    run_root: str = ""
    description: str = ""
    file: str


class ScenarioRow(Struct, frozen=True, kw_only=True):
    """Limits are of p99. Empty: mlperf.conf's value, or none."""

    scenario: str
    loadgen: str
    target_qps: str
    ttft: str
    tpot: str
    presets: tuple[str, ...]


class KeyRow(Struct, frozen=True, kw_only=True):
    """``value`` is what the chosen benchmark and site have; empty if they leave it out."""

    key: str
    type: str
    default: str
    value: str
    meaning: str


def benchmarks() -> Iterator[BenchmarkRow]:
    for name, path in config.files("benchmarks").items():
        try:
            found = config.read_as(path, Benchmark)
        except InputError:
            yield BenchmarkRow(name=name, description=_invalid(path), file=str(path))
            continue
        yield BenchmarkRow(
            name=name,
            model=found.model.name,
            scenarios=tuple(found.scenarios.known()),
            official="MLPerf" if found.official else "",
            description=found.description,
            file=str(path),
        )


def campaigns() -> Iterator[CampaignRow]:
    for name, path in config.files("campaigns").items():
        try:
            found = config.read_as(path, Campaign)
        except InputError:
            yield CampaignRow(name=name, description=_invalid(path), file=str(path))
            continue
        yield CampaignRow(
            name=name, runs=len(found.each()), description=found.description, file=str(path)
        )


def sites() -> Iterator[SiteRow]:
    for name, path in config.files("sites").items():
        try:
            found = config.read_as(path, Site)
        except InputError:
            yield SiteRow(name=name, description=_invalid(path), file=str(path))
            continue
        yield SiteRow(
            name=name,
            device=found.device,
            nodes=_nodes(found),
            run_root=found.run_root,
            description=found.description,
            file=str(path),
        )


def scenarios(benchmark: str) -> Iterator[ScenarioRow]:
    """Raises InputError for a benchmark that is unknown or invalid."""
    found = config.read_as(config.find("benchmarks", benchmark), Benchmark)
    for scenario in found.scenarios.known():
        settings = found.scenarios.of(scenario)
        assert settings is not None
        qps = settings.target_qps
        yield ScenarioRow(
            scenario=scenario,
            loadgen=scenario.loadgen,
            target_qps=qps if isinstance(qps, str) else number(qps) if qps else "",
            ttft=_limit(settings.ttft_latency_ms),
            tpot=_limit(settings.tpot_latency_ms),
            presets=tuple(p for p in Preset if found.presets.of(p).of(scenario) is not None),
        )


def key_rows(benchmark: str, site: str) -> Iterator[KeyRow]:
    """Raises InputError."""
    documents = document.read(config.find("benchmarks", benchmark))
    documents["site"] = document.read(config.find("sites", site))
    for key in all_keys():
        if key.group:  # --set can replace one as a whole, but its keys say more
            continue
        yield KeyRow(
            key=key.name,
            type=key.type,
            default=key.default,
            value=", ".join(_values(documents, key.parts)),
            meaning=key.meaning,
        )


def _values(within: Any, parts: Sequence[str]) -> Iterator[str]:
    """What is at a key; where it has stand-ins, one text for each name."""
    if not parts:
        yield json.dumps(within)
    elif isinstance(within, dict):
        for name in within if parts[0].isupper() else within.keys() & {parts[0]}:
            label = f"{name}: " if parts[0].isupper() else ""
            yield from (f"{label}{text}" for text in _values(within[name], parts[1:]))


def _nodes(site: Site) -> str:
    if site.slurm is None:
        return "this machine"
    gpus = sum(node.gpus for node in site.nodes)
    what = quantity(len(site.nodes), "nodes")
    return f"{what}, {quantity(gpus, 'GPUs')}" if gpus else what


def _limit(milliseconds: float | None) -> str:
    return quantity(milliseconds, "ms") if milliseconds else ""


def _invalid(path: Path) -> str:
    return f"invalid: python -m sut.validate {path}"
