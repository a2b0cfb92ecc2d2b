"""Benchmarks, sites and campaigns: YAML in, frozen values out.

The structs here, in :mod:`sut.plan.benchmark` and in :mod:`sut.plan.site` are the one definition;
the JSON Schemas in ``configs/schema`` are generated from them (:mod:`tools.schema`), and
:mod:`sut.plan.document` validates files against them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from sut.errors import InputError
from sut.plan.benchmark import Benchmark, Preset, Scenario
from sut.plan.document import apply, check, convert, nearest, read
from sut.plan.plan import Mode
from sut.plan.site import Site
from sut.values import Struct


class CampaignRun(Struct, frozen=True, kw_only=True):
    """One place of a campaign: some nodes, under one LoadGen."""

    name: str
    nodes: str  # as --nodes takes it
    sets: tuple[str, ...] = ()  # as --set takes them


class Campaign(Struct, frozen=True, kw_only=True):
    """Runs that are to be compared: every run in every scenario."""

    name: str
    description: str = ""
    benchmark: str
    site: str
    scenarios: tuple[Scenario, ...] = (Scenario.SERVER,)
    mode: Mode = Mode.PERFORMANCE
    preset: Preset = Preset.SMOKE
    sets: tuple[str, ...] = ()
    runs: tuple[CampaignRun, ...]

    def each(self) -> list[tuple[CampaignRun, Scenario]]:
        return [(run, scenario) for scenario in self.scenarios for run in self.runs]


def load_campaign(name: str) -> Campaign | None:
    """The campaign of this name, or in this file; None where it is no campaign.

    Raises InputError for one with mistakes.
    """
    if not _is_path(name) and (name in _known("benchmarks") or name not in _known("campaigns")):
        return None
    path = find("campaigns", name)
    document = read(path)
    if "runs" not in document and _is_path(name):
        return None  # a benchmark's file
    if mistakes := check(document, Campaign, path):
        raise InputError("\n".join(mistakes))
    return convert(document, Campaign)


def load(benchmark: str, site: str, sets: Sequence[str] = ()) -> tuple[Benchmark, Site]:
    """The benchmark and the site by name or file, changed by ``sets`` (``engine.dtype=float32``,
    ``site.run_root=/x``). Raises InputError that lists every mistake in both."""
    benchmark_file, site_file = find("benchmarks", benchmark), find("sites", site)
    benchmark_document, site_document = read(benchmark_file), read(site_file)
    for change in sets:
        apply(change, benchmark_document, site_document)
    mistakes = _as_typed(check(benchmark_document, Benchmark, benchmark_file), "", sets)
    mistakes += _as_typed(check(site_document, Site, site_file), "site.", sets)
    if mistakes:
        raise InputError("\n".join(mistakes))
    loaded = convert(benchmark_document, Benchmark)
    if benchmark_file.resolve().parent not in _own_folders("benchmarks"):
        loaded = msgspec.structs.replace(loaded, official=False)  # a copy may differ
    return loaded, _with_whole_paths(convert(site_document, Site))


def _as_typed(mistakes: Sequence[str], prefix: str, sets: Sequence[str]) -> list[str]:
    """A mistake of a key that the command line sets, where the keys of this document have the
    prefix, is the command line's and not the file's."""
    typed = {change.partition("=")[0].strip(): change for change in sets}

    def told(mistake: str) -> str:
        for key, change in typed.items():
            _, found, text = mistake.partition(f": {key.removeprefix(prefix)}: ")
            if found and key.startswith(prefix):
                return f"--set {change}: {text}"
        return mistake

    return [told(mistake) for mistake in mistakes]


def _with_whole_paths(site: Site) -> Site:
    """The same site, its paths without ``~`` and absolute: they are read on other machines and
    bound into containers."""

    def whole(path: str) -> str:
        return str(Path(path).expanduser().absolute()) if path else ""

    container = site.container and msgspec.structs.replace(
        site.container,
        image=whole(site.container.image),
        binds=tuple(map(whole, site.container.binds)),
        node_cache=whole(site.container.node_cache),
    )
    return msgspec.structs.replace(
        site,
        run_root=whole(site.run_root),
        cache=whole(site.cache),
        models={name: whole(path) for name, path in site.models.items()},
        datasets={name: whole(path) for name, path in site.datasets.items()},
        container=container,
    )


def load_site(name: str) -> Site:
    """The site by name or file. Raises InputError that lists every mistake in it."""
    file = find("sites", name)
    document = read(file)
    if mistakes := check(document, Site, file):
        raise InputError("\n".join(mistakes))
    return _with_whole_paths(convert(document, Site))


def sites() -> dict[str, Site]:
    """Every site that has a name here and is without mistakes."""
    found = {}
    for path in _known("sites").values():
        with contextlib.suppress(InputError):
            document = read(path)
            if not check(document, Site, path):
                found[path.stem] = _with_whole_paths(convert(document, Site))
    return found


def find(kind: str, name: str) -> Path:
    """The file of a benchmark, a site or a campaign: a path as it is, a name under ``configs/``."""
    if _is_path(name):
        if not Path(name).is_file():
            raise InputError(f"{name}: no such file")
        return Path(name)
    known = _known(kind)
    if name not in known:
        # --config takes both.
        campaigns = _known("campaigns") if kind == "benchmarks" else {}
        also = f", and campaigns {', '.join(sorted(campaigns))}" if campaigns else ""
        near = nearest(name, [*known, *campaigns])
        raise InputError(
            f"no {kind.removesuffix('s')} is called '{name}'{near}. "
            f"There are {', '.join(sorted(known)) or 'none'}{also}; or give a .yaml file."
        )
    return known[name]


def shipped(kind: str, name: str) -> Path:
    """Our own file of this name, whatever lies under the current folder."""
    found = (folder / f"{name}.yaml" for folder in _own_folders(kind))
    return next(path for path in found if path.is_file())


def _is_path(name: str) -> bool:
    return name.endswith((".yaml", ".yml")) or "/" in name


def _known(kind: str) -> dict[str, Path]:
    """Files by name; one under the current folder comes before one of ours."""
    return {path.stem: path for folder in reversed(_folders(kind)) for path in _files(folder)}


def _folders(kind: str) -> list[Path]:
    return [Path.cwd() / "configs" / kind, *_own_folders(kind)]


def _own_folders(kind: str) -> list[Path]:
    """Beside the package (a checkout), and inside it (installed)."""
    package = Path(__file__).resolve().parent.parent
    return [root / "configs" / kind for root in (package.parent, package)]


def _files(folder: Path) -> Iterable[Path]:
    return sorted(folder.glob("*.yaml"))
