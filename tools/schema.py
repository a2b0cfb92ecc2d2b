"""The JSON Schemas in ``configs/schema``, generated from the structs: ``python -m tools.schema``.

Editors and other programs that read configs and records use them.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from sut.plan.benchmark import Benchmark
from sut.plan.config import Campaign
from sut.plan.site import Site
from sut.results.record import Record

FOLDER = Path(__file__).resolve().parent.parent / "configs" / "schema"
KINDS = {"benchmark": Benchmark, "site": Site, "campaign": Campaign, "record": Record}


def text(name: str) -> str:
    """The content of a schema's file."""
    schema = msgspec.json.encode(msgspec.json.schema(KINDS[name]))
    return msgspec.json.format(schema, indent=2).decode() + "\n"


def main() -> None:
    for name in KINDS:
        path = FOLDER / f"{name}.json"
        path.write_text(text(name))
        print(path)


if __name__ == "__main__":
    main()
