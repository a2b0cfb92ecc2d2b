"""The installed vLLM's structs as a section of ``sut/serving/vllm_layouts.toml``: ``python -m
tools.vllm_layouts``, in an environment that has vLLM. ``--compare`` prints how they differ from
those of the newest tested version instead.
"""

from __future__ import annotations

import argparse
import textwrap

from sut.serving import vllm_layouts
from sut.serving.vllm_layouts import Structs


def section(version: str, structs: Structs) -> str:
    """A version's section of the file."""
    lines = [f'["{version}"]']
    for name, fields in structs.items():
        words = textwrap.fill(
            ", ".join(f'"{field}"' for field in fields),
            width=98,
            initial_indent="  ",
            subsequent_indent="  ",
        )
        lines += [f"{name} = [", f"{words},", "]"]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.vllm_layouts", description=__doc__)
    parser.add_argument("--compare", action="store_true", help="with the newest tested version")
    options = parser.parse_args()
    from vllm.version import __version__

    structs = vllm_layouts.installed()
    if not options.compare:
        print(section(vllm_layouts.release(__version__), structs), end="")
        return
    newest, known = list(vllm_layouts.tested().items())[-1]
    lines = []
    for name, fields in structs.items():
        lines += [f"- {name}.{field}" for field in known[name] if field not in fields]
        lines += [f"+ {name}.{field}" for field in fields if field not in known[name]]
    print(f"vLLM {newest} -> {__version__}:", *(lines or ["no field differs"]), sep="\n")


if __name__ == "__main__":
    main()
