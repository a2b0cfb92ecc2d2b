"""The options of vLLM's command line, as ``sut/plan/vllm_options.json``: ``python -m
tools.vllm_options``, in an environment that has vLLM.

A login node has no vLLM, and importing it takes seconds: :mod:`sut.plan.engine_args` reads this
file instead.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from sut.plan.engine_args import OPTIONS_FILE
from sut.serving.wire import VLLM_VERSION


def text() -> str:
    """The file's content, from the parser that :mod:`sut.serving.vllm_headless` uses."""
    from vllm.entrypoints.cli.serve import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = make_arg_parser(FlexibleArgumentParser())
    actions = parser._actions
    options = {name: _option(action) for action in actions for name in action.option_strings}
    lines = ",\n".join(
        f"{json.dumps(name)}: {json.dumps(options[name])}" for name in sorted(options)
    )
    return f'{{"version": "{VLLM_VERSION}", "options": {{\n{lines}\n}}}}\n'


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
