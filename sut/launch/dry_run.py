"""A dry run: print what would run and what was checked."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from typing import Any

import msgspec

from sut import layout
from sut.command import as_typed, print_json
from sut.errors import EXIT_VALID
from sut.launch import checks, page
from sut.launch.finding import Finding
from sut.launch.members import Planned
from sut.plan.plan import Plan

OPTIONS = ("--dry-run", "--full", "--json")


def show(
    planned: Sequence[Planned], checked: Sequence[Sequence[Finding]], arguments: argparse.Namespace
) -> int:
    """Print plans, each with its checks, in the form that ``arguments`` asks for. Raises InputError
    that lists what the checks found."""
    pages = [page.of(p.plan, c, p.name) for p, c in zip(planned, checked, strict=True)]
    if arguments.json:
        print_json({"runs": [_whole(each) for each in planned] if arguments.full else pages})
    elif arguments.full:
        _print_plans(planned)
    else:
        width = layout.terminal_width() or layout.PAGE
        print("\n\n".join(page.render(each, width) for each in pages))
        if planned and not checks.problems(checked):
            print(f"\n{page.commands(_command(), planned[0].run_root)}")
    checks.problems(checked).raise_all()
    return EXIT_VALID


def _print_plans(planned: Sequence[Planned]) -> None:
    for each in planned:
        if each.name:
            print(f"# {each.name}")
        print(describe(each.plan), end="\n" if each.name else "")


def describe(plan: Plan) -> str:
    """The plan and LoadGen's user.conf, for reading."""
    text = msgspec.yaml.encode(plan, order="sorted").decode()
    return f"{text}\n# user.conf\n{plan.user_conf()}"


def _whole(planned: Planned) -> dict[str, Any]:
    return {
        "name": planned.name or None,
        "plan": planned.plan,
        "user_conf": planned.plan.user_conf(),
    }


def _command() -> str:
    """The command line of this dry run without what makes it one."""
    return shlex.join(word for word in shlex.split(as_typed()) if word not in OPTIONS)
