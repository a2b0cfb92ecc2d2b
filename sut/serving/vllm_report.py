"""What a vLLM engine process reports of itself: its resolved configuration, as a JSON file.

Arguments do not show it: vLLM accepts abbreviations, reads files, and changes settings itself. So
the process writes what vLLM made of them, and what ``engine.extra_args`` changed: the settings that
differ from those of the same command line without them. This needs no table of vLLM's defaults, and
what vLLM derives from the platform or the model is not taken for a change.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

REPORT = "SUT_ENGINE_REPORT"  # the path of the file
EXTRA_ARGS = "SUT_ENGINE_EXTRA_ARGS"  # how many of the last arguments are the plan's

# They depend on a run's nodes and ports, or on chance, repeat others, or are secret.
_IGNORED = re.compile(
    r"instance_id|speculative_config\.(draft|target)_(model|parallel)_config(\..*)?|kv_transfer_config\.engine_id|model_config\.(hf_token|hf_text_config(\..*)?)|"
    r"parallel_config\.(.*port.*|.*_ip|master_addr|.*rank.*|data_parallel_index)|(.*\.)?_[^.]*"
)
Settings = dict[str, Any]


def report_all() -> None:
    """Have vLLM report each configuration that it makes in this process; the last one remains."""
    from vllm.engine.arg_utils import AsyncEngineArgs

    create = AsyncEngineArgs.create_engine_config
    if hasattr(create, "__wrapped__"):  # it does already
        return

    @functools.wraps(create)
    def create_and_report(given: Any, *arguments: Any, **options: Any) -> Any:
        num_extra = int(os.environ.get(EXTRA_ARGS) or 0)
        planned: Settings | None = None
        if num_extra:
            try:
                without, _ = parsed(sys.argv[1:-num_extra])
                planned = flat(create(without, *arguments, **options))
            except Exception as error:  # these arguments are not the engine's
                print(f"without engine.extra_args: {error}", file=sys.stderr)
        config = create(given, *arguments, **options)
        settings = flat(config)
        _write(settings, planned if num_extra else settings)
        return config

    AsyncEngineArgs.create_engine_config = create_and_report


def parsed(arguments: Sequence[str]) -> tuple[Any, list[str]]:
    """vLLM's AsyncEngineArgs, and the arguments that only its server knows."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = AsyncEngineArgs.add_cli_args(FlexibleArgumentParser())
    parser.add_argument("model_tag")
    parser.add_argument("--headless", action="store_true")
    found, others = parser.parse_known_args(arguments)
    found.model = found.model_tag
    return AsyncEngineArgs.from_cli_args(found), others


def flat(config: Any) -> Settings:
    """The settings of vLLM's VllmConfig by dotted names, as JSON values."""
    return {name: value for name, value in _leaves(config, "") if not _IGNORED.fullmatch(name)}


def _leaves(config: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name, None), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, f"{name}.")
        else:
            yield name, json.loads(json.dumps(value, default=_text, skipkeys=True))


def _text(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    if type(value).__module__ == "torch":
        return str(value).removeprefix("torch.")
    return type(value).__qualname__


def _write(settings: Settings, planned: Settings | None) -> None:
    from vllm.version import __version__

    if not (path := os.environ.get(REPORT)):
        return
    names = settings.keys() | (planned or {}).keys()
    document = {
        "engine": f"vllm {__version__}",
        "settings": settings,
        "changed": planned
        and {
            name: planned.get(name)
            for name in sorted(names)
            if settings.get(name) != planned.get(name)
        },
    }
    temporary = Path(f"{path}.{os.getpid()}")
    temporary.write_text(json.dumps(document))
    temporary.replace(path)
