"""The options of the installed vLLM's command line, as a section of ``sut/plan/vllm_options.json``:
``python -m tools.vllm_options``, in an environment that has vLLM. Other sections stay as they are.

A login node has no vLLM, and importing it takes seconds: :mod:`sut.plan.engine_args` reads this
file instead.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from sut.plan.engine_args import OPTIONS_FILE
from sut.serving.vllm_layouts import release

Tables = dict[str, dict[str, Any]]  # by version, by option


def text() -> str:
    """The file's content, with the installed version from its own parser."""
    from vllm.version import __version__

    known: Tables = json.loads(OPTIONS_FILE.read_bytes())
    return written(known | {release(__version__): _installed()})


def written(tables: Tables) -> str:
    """The file's content: a line for each option."""
    sections = []
    for version, options in tables.items():
        lines = (f"{json.dumps(name)}: {json.dumps(options[name])}" for name in sorted(options))
        sections.append(f'"{version}": {{\n' + ",\n".join(lines) + "\n}")
    return "{" + ",\n".join(sections) + "}\n"


def _installed() -> dict[str, Any]:
    """By name, from the parser that :mod:`sut.serving.vllm_headless` uses."""
    from vllm.entrypoints.cli.serve import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    actions = make_arg_parser(FlexibleArgumentParser())._actions
    return {name: _option(action) for action in actions for name in action.option_strings}


def _option(action: argparse.Action) -> dict[str, Any]:
    """``values``: how many it takes: 0, 1, or -1 for any number. ``choices``: which; empty: any."""
    if isinstance(action, argparse.BooleanOptionalAction) or action.nargs == 0:
        return {"values": 0}
    values = -1 if action.nargs in ("*", "+", "?") else 1
    choices = sorted(map(str, action.choices or ()))
    return {"values": values, "choices": choices} if choices else {"values": values}


def main() -> None:
    OPTIONS_FILE.write_text(text())
    print(OPTIONS_FILE)


if __name__ == "__main__":
    main()
