"""The options that several commands share."""

from __future__ import annotations

import argparse
import functools
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sut.cluster import runs
from sut.command import Parser, a_path
from sut.errors import Errors, InputError
from sut.home import expanded
from sut.rundir import RunDir

DEFAULT_BENCHMARK = "smollm2-135m-news"
RUN_ROOT = "SUT_RUN_ROOT"  # environment variable
RUN = "a run's folder, its name, latest, or its Slurm job id"

_SHARED: dict[str, dict[str, Any]] = {
    "config": {
        "metavar": "NAME|FILE",
        "help": "benchmark or campaign: a name in configs/ or a YAML file "
        f"(default: {DEFAULT_BENCHMARK})",
    },
    "site": {
        "metavar": "NAME|FILE",
        "help": "site: a name in configs/sites or a YAML file (default: $SUT_SITE, this cluster's "
        "site, or local)",
    },
    "root": {
        "type": a_path,
        "metavar": "DIR",
        "help": f"folder that contains the runs (default: ${RUN_ROOT}, or the site's run_root)",
    },
    "nodes": {
        "metavar": "N|HOSTLIST|all",
        "help": "nodes of the site: a number, a hostlist (jw2,jw3 or 'jw[2-3]'), or all (default: "
        "one that is free); one LoadGen drives a replica on every GPU",
    },
    "set": {
        "action": "append",
        "default": [],
        "metavar": "KEY=VALUE",
        "help": "change one key of the benchmark, or of the site (site.KEY=VALUE); repeatable; "
        "all keys: python -m sut.list keys",
    },
    "json": {"action": "store_true", "help": "print JSON"},
}

_KINDS = {"config": ("benchmarks", "campaigns"), "site": ("sites",)}  # what a shell completes


def shared(*names: str) -> argparse.ArgumentParser:
    """A parent parser with these options; --site and --root exclude each other."""
    parent = Parser(add_help=False)
    where = parent.add_mutually_exclusive_group() if "root" in names else parent
    for name in names:
        add(where if name in ("site", "root") else parent, name)
    return parent


def add(group: argparse._ActionsContainer, name: str, **changes: Any) -> None:
    """Add one shared option, changed where a command differs, e.g. in its default."""
    option: Any = group.add_argument(f"--{name}", **{**_SHARED[name], **changes})
    if name in _KINDS:
        option.completer = functools.partial(_complete, _KINDS[name])  # read by argcomplete
    elif name == "set":
        option.completer = _complete_keys


def _complete(kinds: Sequence[str], prefix: str, **_: object) -> list[str]:
    from sut.plan import config

    return [name for kind in kinds for name in config.names(kind) if name.startswith(prefix)]


def _complete_keys(prefix: str, parsed_args: argparse.Namespace, **_: object) -> list[str]:
    """Whole keys, up to their first part that stands for any name."""
    from sut.plan import keys

    scenario = getattr(parsed_args, "scenario", None) or "server"
    found = []
    for key in keys.all_keys():
        parts = [scenario if part == "SCENARIO" else part for part in key.parts]
        known = list(itertools.takewhile(lambda part: not part.isupper(), parts))
        if not key.group:
            found.append(".".join(known) + ("=" if known == parts else "."))
    return [name for name in dict.fromkeys(found) if name.startswith(prefix)]


def add_runs(parser: argparse._ActionsContainer, name: str = "run", **changes: Any) -> None:
    """Add an argument or an option that names runs, for :func:`find_run`."""
    option: Any = parser.add_argument(name, **{"metavar": "RUN", "help": RUN, **changes})
    option.completer = _complete_runs  # read by argcomplete


def find_run(name: str, arguments: argparse.Namespace) -> RunDir:
    """The run that the user names: a path, a name under the run root (also ``latest``), or a Slurm
    job id. Raises InputError."""
    return runs.at(name) or runs.find(name, run_root(arguments))


def find_runs(names: Sequence[str], arguments: argparse.Namespace) -> list[RunDir]:
    """Raises InputError that names every one that is not a run."""
    found, errors = [], Errors()
    for name in names:
        try:
            found.append(find_run(name, arguments))
        except InputError as error:
            errors.append(error)
    errors.raise_all()
    return found


def run_root(arguments: argparse.Namespace) -> Path:
    """The folder that contains the runs: --root, else SUT_RUN_ROOT, else the site's. It need not
    exist. Raises InputError."""
    if given := given_root(getattr(arguments, "root", None)):
        return given
    # Imported here: the YAML checks take longer to import than to run.
    from sut.launch import default_site
    from sut.plan import config

    site = getattr(arguments, "site", None) or default_site.default()
    return _here_or_above(Path(config.load_site(site).run_root))


def given_root(option: Path | str | None) -> Path | None:
    """The run root that the user chose with --root or SUT_RUN_ROOT; None for the site's."""
    chosen = option or os.environ.get(RUN_ROOT)
    return expanded(chosen).absolute() if chosen else None


def _here_or_above(root: Path) -> Path:
    """``root``; if it does not exist under the current folder, the nearest one with runs that is
    at the same place under a parent folder."""
    here = Path.cwd()
    if root.exists() or not root.is_relative_to(here):
        return root
    above = (parent / root.relative_to(here) for parent in here.parents)
    return next((each for each in above if runs.names(each)), root)


def _complete_runs(prefix: str, parsed_args: argparse.Namespace, **_: object) -> list[str]:
    """The names of runs; paths where no name has this prefix."""
    from argcomplete.completers import FilesCompleter

    known = [runs.LATEST, *runs.names(run_root(parsed_args))]
    names = list(dict.fromkeys(name for name in known if name.startswith(prefix)))
    return names or list(FilesCompleter()(prefix))
