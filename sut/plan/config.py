"""Benchmarks, sites and campaigns: YAML in, frozen values out.

The structs here, in :mod:`sut.plan.benchmark` and in :mod:`sut.plan.site` are the one definition;
the JSON Schemas in ``configs/schema`` are generated from them (:mod:`tools.schema`), and
:mod:`sut.plan.document` validates files against them.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from sut.errors import InputError, nearest, quoted
from sut.home import expanded
from sut.plan import hostlist
from sut.plan.benchmark import Benchmark, Preset, Scenario
from sut.plan.document import Document, apply, check, convert, read
from sut.plan.hostlist import HostlistError
from sut.plan.plan import Mode
from sut.plan.site import Site, SiteNode
from sut.values import PositiveInt, Struct

_T = TypeVar("_T", bound=Struct)


class CampaignRun(Struct, frozen=True, kw_only=True):
    """The nodes of one run of a campaign, under one LoadGen."""

    name: str
    nodes: str | PositiveInt = ""  # as --nodes takes it; empty: this machine, or one free node
    sets: tuple[str, ...] = ()  # as --set takes them


class Campaign(Struct, frozen=True, kw_only=True):
    """Runs to compare: each of ``runs`` in each of ``scenarios``."""

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


KINDS: dict[str, type[Struct]] = {"benchmark": Benchmark, "site": Site, "campaign": Campaign}
_OPTIONS = {"benchmark": "--config", "site": "--site", "campaign": "--config"}


def load_campaign(name: str) -> Campaign | None:
    """The campaign by name or file; None for a benchmark. Raises InputError that lists every
    error in it."""
    if not _is_path(name) and (name in files("benchmarks") or name not in files("campaigns")):
        return None
    path = find("campaigns", name)
    if _is_path(name) and "runs" not in read(path):
        return None
    return read_as(path, Campaign)


def load(benchmark: str, site: str, sets: Sequence[str] = ()) -> tuple[Benchmark, Site]:
    """The benchmark and the site by name or file, changed by ``sets`` (``engine.dtype=float32``,
    ``site.run_root=/x``). Raises InputError that lists every error in both."""
    benchmark_file, site_file = find("benchmarks", benchmark), find("sites", site)
    benchmark_document = _read(benchmark_file, Benchmark)
    site_document = _read(site_file, Site)
    for change in sets:
        apply(change, benchmark_document, site_document)
    errors = check(benchmark_document, Benchmark, benchmark_file, sets)
    errors += check(site_document, Site, site_file, sets, "site")
    errors.raise_all()
    loaded = convert(benchmark_document, Benchmark)
    if benchmark_file.resolve().parent not in _own_folders("benchmarks"):
        loaded = msgspec.structs.replace(loaded, official=False)  # a copy may differ
    return loaded, completed(convert(site_document, Site), site_file)


def load_site(name: str) -> Site:
    """The site by name or file. Raises InputError that lists every error in it."""
    file = find("sites", name)
    return completed(read_as(file, Site), file)


def sites() -> dict[str, Site]:
    """Every site under ``configs/`` that has no errors, by name."""
    found = {}
    for path in files("sites").values():
        with contextlib.suppress(InputError):
            found[path.stem] = completed(read_as(path, Site), path)
    return found


def names(kind: str) -> list[str]:
    """The names of all ``benchmarks``, ``campaigns`` or ``sites`` under ``configs/``."""
    return sorted(files(kind))


def read_as(path: Path, kind: type[_T]) -> _T:
    """The benchmark, site or campaign in a file. Raises InputError that lists every error."""
    document = _read(path, kind)
    check(document, kind, path).raise_all()
    return convert(document, kind)


def kind_of(document: Document) -> str | None:
    """The kind that has most of the document's keys; None if two have as many."""
    num_known = {kind: len(document.keys() & _keys(struct)) for kind, struct in KINDS.items()}
    first, second = sorted(num_known, key=lambda kind: -num_known[kind])[:2]
    return first if num_known[first] > num_known[second] else None


def _keys(struct: type[Struct]) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(struct)}


def _read(path: Path, wanted: type[Struct]) -> Document:
    """Raises InputError for a file of another kind: every key would be an error."""
    document = read(path, wanted)
    kind = kind_of(document)
    if kind is not None and KINDS[kind] is not wanted:
        raise InputError(
            f"{path} is a {kind}, not a {wanted.__name__.lower()}",
            hint=f"{_OPTIONS[kind]} {path}",
        )
    return document


def completed(site: Site, file: Path) -> Site:
    """The same site with an entry for each node, and with absolute paths. Raises InputError."""
    nodes: list[SiteNode] = []
    for node in site.nodes:
        try:
            names = hostlist.expand(node.name)
        except HostlistError as error:
            raise InputError(f"{file}: nodes: {node.name}: {error}") from None
        nodes += [msgspec.structs.replace(node, name=name) for name in names]
    for name, count in Counter(node.name for node in nodes).items():
        if count > 1:
            raise InputError(f"{file}: nodes: duplicate node {name}")
    return _with_absolute_paths(msgspec.structs.replace(site, nodes=tuple(nodes)))


def _with_absolute_paths(site: Site) -> Site:
    """The same site with absolute paths and without ``~``: other machines read them, and they are
    bound into containers."""

    def absolute(path: str) -> str:
        return str(expanded(path).absolute()) if path else ""

    container = site.container and msgspec.structs.replace(
        site.container,
        image=absolute(site.container.image),
        binds=tuple(map(absolute, site.container.binds)),
        node_cache=absolute(site.container.node_cache),
    )
    return msgspec.structs.replace(
        site,
        run_root=absolute(site.run_root),
        cache=absolute(site.cache),
        models={name: absolute(path) for name, path in site.models.items()},
        datasets={name: absolute(path) for name, path in site.datasets.items()},
        container=container,
        node_local=tuple(map(absolute, site.node_local)),
    )


def find(kind: str, name: str) -> Path:
    """The file of a benchmark, a site or a campaign, by path or by its name under ``configs/``."""
    if _is_path(name):
        if not Path(name).is_file():
            found = "not a regular file" if Path(name).exists() else "no such file"
            raise InputError(f"{name}: {found}", hint=_instead_of(name, kind))
        return Path(name)
    known = files(kind)
    if name not in known:
        # --config takes both.
        campaigns = files("campaigns") if kind == "benchmarks" else {}
        also = f"; campaigns: {', '.join(sorted(campaigns))}" if campaigns else ""
        here = Path(f"{name}.yaml")
        one_here = f"the file here: {_OPTIONS[kind.removesuffix('s')]} {quoted(here)}; or "
        raise InputError(
            f"unknown {kind.removesuffix('s')} '{name}'{nearest(name, [*known, *campaigns])}",
            hint=f"{one_here if here.is_file() else 'give a .yaml file, or '}"
            f"one of these {kind}: {', '.join(sorted(known))}{also}",
        )
    return known[name]


def _instead_of(file: str, kind: str) -> str:
    kinds = ("sites",) if kind == "sites" else ("benchmarks", "campaigns")  # --config takes both
    stem = Path(file).stem
    for each in kinds:
        one = each.removesuffix("s")
        if stem in files(each):
            return f"the {one} of this name: {_OPTIONS[one]} {stem}"
    return f"give a .yaml file, or a name: python -m sut.list {kinds[0]}"


def shipped(kind: str, name: str) -> Path:
    """The file of this name that comes with this project, never one under the current folder."""
    found = (folder / f"{name}.yaml" for folder in _own_folders(kind))
    return next(path for path in found if path.is_file())


def all_shipped(kind: str) -> list[Path]:
    """Every file of a kind that comes with this project."""
    return sorted(path for folder in _own_folders(kind) for path in folder.glob("*.yaml"))


def _is_path(name: str) -> bool:
    return name.endswith((".yaml", ".yml")) or "/" in name


def files(kind: str) -> dict[str, Path]:
    """Files by name; those under the current folder have precedence over the shipped ones. The
    template is for copying."""
    folders = [Path.cwd() / "configs" / kind, *_own_folders(kind)]
    found = {path.stem: path for each in reversed(folders) for path in sorted(each.glob("*.yaml"))}
    found.pop("template", None)
    return found


def _own_folders(kind: str) -> list[Path]:
    """Next to the package (in a checkout), and inside it (installed)."""
    package = Path(__file__).resolve().parent.parent
    return [root / "configs" / kind for root in (package.parent, package)]
