"""Options that several commands share, and where runs are kept."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

_SHARED: dict[str, dict[str, Any]] = {
    "config": {
        "metavar": "NAME|FILE",
        "help": "benchmark or campaign: a name in configs/ or a YAML file "
        "(default: smollm2-135m-news)",
    },
    "site": {
        "metavar": "NAME|FILE",
        "help": "site: a name in configs/sites or a YAML file (default: $SUT_SITE, this cluster's "
        "site, or local)",
    },
    "root": {"type": Path, "metavar": "DIR", "help": "folder that contains the runs"},
    "nodes": {
        "metavar": "N|NAMES|all",
        "help": "nodes of the site: a number, comma-separated names, or all (default: one). One "
        "LoadGen drives a replica on every GPU of them",
    },
    "set": {
        "action": "append",
        "default": [],
        "metavar": "KEY=VALUE",
        "help": "change one key of the benchmark, or of the site (site.KEY=VALUE); repeatable",
    },
    "json": {"action": "store_true", "help": "print JSON"},
}


def shared(*names: str) -> argparse.ArgumentParser:
    """A parent parser with the options called ``names``; of --site and --root only one may be
    given."""
    parent = argparse.ArgumentParser(add_help=False)
    where = parent.add_mutually_exclusive_group() if "root" in names else parent
    for name in names:
        group = where if name in ("site", "root") else parent
        group.add_argument(f"--{name}", **_SHARED[name])
    return parent


def run_root(arguments: argparse.Namespace) -> Path:
    """The folder that holds the runs, which need not exist. Raises InputError."""
    if arguments.root is not None:
        return Path(arguments.root).expanduser().absolute()
    # Imported here: the YAML checks take longer to import than to run.
    from sut.launch import default_site
    from sut.plan import config

    return Path(config.load_site(arguments.site or default_site.default()).run_root)
