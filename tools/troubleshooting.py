"""The known failures in ``docs/troubleshooting.md``: ``python -m tools.troubleshooting``."""

from __future__ import annotations

from pathlib import Path

from sut.results.diagnosis import KnownFailure, known_failures

PAGE = Path(__file__).resolve().parent.parent / "docs" / "troubleshooting.md"
BEGIN, END = "<!-- known failures -->\n", "<!-- end -->\n"


def table() -> str:
    head = "| where | cause | what to do | log |\n|---|---|---|---|\n"
    return head + "".join(_row(known) for known in known_failures().values())


def with_table(page: str) -> str:
    """The page with the table of today's known failures."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}{table()}{END}{rest.split(END)[1]}"


def _row(known: KnownFailure) -> str:
    cells = (known.group, known.cause, known.remedy, f"[example]({known.source})")
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def main() -> None:
    PAGE.write_text(with_table(PAGE.read_text()))
    print(PAGE)


if __name__ == "__main__":
    main()
