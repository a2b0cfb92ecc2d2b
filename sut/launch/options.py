"""The options that several commands share."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sut.command import Parser

DEFAULT_BENCHMARK = "smollm2-135m-news"

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
    "root": {"type": Path, "metavar": "DIR", "help": "folder that contains the runs"},
    "nodes": {
        "metavar": "N|NAMES|all",
        "help": "nodes of the site: a number, names separated by commas, or all (default: one); "
        "one LoadGen drives a replica on every GPU",
    },
    "set": {
        "action": "append",
        "default": [],
        "metavar": "KEY=VALUE",
        "help": "change one key of the benchmark, or of the site (site.KEY=VALUE); repeatable",
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


def _complete(kinds: Sequence[str], prefix: str, **_: object) -> list[str]:
    from sut.plan import config

    return [name for kind in kinds for name in config.names(kind) if name.startswith(prefix)]


def run_root(arguments: argparse.Namespace) -> Path:
    """The folder that contains the runs; it need not exist. Raises InputError."""
    if arguments.root is not None:
        return Path(arguments.root).expanduser().absolute()
    # Imported here: the YAML checks take longer to import than to run.
    from sut.launch import default_site
    from sut.plan import config

    return Path(config.load_site(arguments.site or default_site.default()).run_root)
