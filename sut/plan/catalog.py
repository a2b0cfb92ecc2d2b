"""Lists of what there is to choose from: benchmarks, campaigns, sites, scenarios, keys."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from sut.errors import InputError, quoted
from sut.plan import config, document
from sut.plan.benchmark import Benchmark, Preset
from sut.plan.config import Campaign
from sut.plan.keys import all_keys
from sut.plan.site import Site
from sut.units import exact, quantity
from sut.values import Struct

_File = TypeVar("_File", bound=Struct)
_Row = TypeVar("_Row", bound=Struct)


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
    def cells(found: Benchmark) -> dict[str, Any]:
        return {
            "model": found.model.name,
            "scenarios": tuple(found.scenarios.known()),
            "official": "MLPerf" if found.official else "",
            "description": found.description,
        }

    return _each("benchmarks", Benchmark, BenchmarkRow, cells)


def campaigns() -> Iterator[CampaignRow]:
    def cells(found: Campaign) -> dict[str, Any]:
        return {"runs": len(found.each()), "description": found.description}

    return _each("campaigns", Campaign, CampaignRow, cells)


def sites() -> Iterator[SiteRow]:
    def cells(found: Site) -> dict[str, Any]:
        return {
            "device": found.device,
            "nodes": _nodes(found),
            "run_root": found.run_root,
            "description": found.description,
        }

    return _each("sites", Site, SiteRow, cells)


def _each(
    kind: str, struct: type[_File], row: type[_Row], cells: Callable[[_File], dict[str, Any]]
) -> Iterator[_Row]:
    """A row of each file; of one with errors, how to see them."""
    for name, path in config.files(kind).items():
        try:
            found = cells(config.read_as(path, struct))
        except InputError:
            found = {"description": f"invalid: python -m sut.validate {quoted(path)}"}
        yield row(name=name, file=str(path), **found)


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
            target_qps=qps if isinstance(qps, str) else exact(qps) if qps else "",
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
