"""``python -m sut.init [NAME]``: write a site file by asking Slurm and looking at this machine."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from sut.command import Parser, a_path, command
from sut.errors import EXIT_VALID, InputError, quoted
from sut.launch import files, site_file, survey
from sut.plan import config
from sut.plan.site import Device
from sut.rundir import write_atomic

FOLDER = Path("configs/sites")  # where --site finds a file by its name


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    if options.name and not re.fullmatch(r"[\w.-]+", options.name):
        raise InputError(
            f"{options.name!r} is not a name of a site",
            hint="use letters, digits, dots, - and _: python -m sut.init "
            + (re.sub(r"[^\w.-]+", "-", options.name).strip("-.") or "my-site"),
        )
    _refuse_a_name_in_use(options)
    found = survey.ask(options.name, options.partition, options.device, options.local)
    if not options.name and found.name in _sites():  # this cluster's or this host's
        found = msgspec.structs.replace(found, name=f"my-{found.name}")
    path = options.output or _path(found.name)
    site = _named(path)
    text = site_file.text(found, site)
    if options.print:
        print(text, end="")
        return EXIT_VALID
    others = [each for each in site_file.of_the_same(found, path.parent) if each != path]
    if others and not (options.name or options.output):
        what = f"partition {found.nodes.partition.name}" if found.nodes else "this machine"
        raise InputError(
            f"{others[0]} is a site of {what}",
            hint=f"use it: --site {quoted(_named(others[0]))}; or write another: "
            f"python -m sut.init {quoted(found.name)}",
        )
    _write(path, text, replace=options.force)
    print(site_file.summary(found))
    print(files.check(path))
    for each in others:
        print(f"note: {each} is a site of the same {'nodes' if found.nodes else 'machine'}")
    check = f"check the lines marked {site_file.CHECK}, then: " * (site_file.CHECK in text)
    print(f"next: {check}python -m sut.doctor --site {quoted(site)}")
    return EXIT_VALID


def _named(path: Path) -> str:
    """What to give to --site."""
    return path.stem if path.parent == FOLDER else str(path)


def _sites() -> dict[str, Path]:
    return config.files("sites")


def _refuse_a_name_in_use(options: argparse.Namespace) -> None:
    """In some folders ``--site NAME`` would be the other site of this name."""
    if options.name in _sites() and not options.force:
        raise InputError(
            f"there is a site {options.name}: {_sites()[options.name]}",
            hint=f"use it: --site {quoted(options.name)}; choose another name: "
            f"python -m sut.init my-{options.name}; or replace it: --force",
        )


def _path(name: str) -> Path:
    return (FOLDER if FOLDER.is_dir() else Path()) / f"{name}.yaml"


def _write(path: Path, text: str, *, replace: bool) -> None:
    exists = path.exists()
    if exists and not replace:
        raise InputError(
            f"{path} exists",
            hint=f"use it: --site {quoted(_named(path))}; choose another name: "
            "python -m sut.init NAME; or replace the file: --force",
        )
    try:
        write_atomic(path, text, mode=0o644)
    except OSError as error:
        raise InputError(
            f"cannot write the site ({error.filename or path}): {error.strerror}",
            hint="choose another file: --output FILE",
        ) from None
    print(f"{'replaced' if exists else 'wrote'} {path}")


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m sut.init",
        description="Write a site file for this cluster, by asking Slurm, or without Slurm for "
        "this machine. Comments explain each key and mark what to check.",
        epilog="exit codes: 0 written, 2 nothing written",
        examples=("", "mine --partition gpu", "--print"),
    )
    parser.add_argument(
        "name", nargs="?", default="", metavar="NAME", help="default: the cluster's or this host's"
    )
    parser.add_argument(
        "--partition", default="", metavar="NAME", help="default: one with GPUs, or Slurm's default"
    )
    parser.add_argument(
        "--device",
        default="",
        choices=list(map(str, Device)),
        help="device of the engines (default: cuda if there is a GPU)",
    )
    parser.add_argument(
        "--local", action="store_true", help="this machine alone, even if it has Slurm"
    )
    parser.add_argument(
        "--output",
        type=a_path,
        metavar="FILE",
        help=f"file to write (default: NAME.yaml in {FOLDER}, or here if there is no such folder)",
    )
    parser.add_argument("--force", action="store_true", help="replace a file that exists")
    parser.add_argument("--print", action="store_true", help="print the file; write nothing")
    return parser.parse(argv)


if __name__ == "__main__":
    sys.exit(main())
