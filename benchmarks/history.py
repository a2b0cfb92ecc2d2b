"""Time lists, with and without the index: ``python -m benchmarks.history [NUM_RECORDS]``.

Each figure is the time of a whole process, so imports count. The records are copies of a real one
with their own names and times.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sut.report.markdown import table
from sut.results import integrity

NUM_RECORDS = 10_000
REPEATS = 5
DIRECT = """
import sys
from pathlib import Path
from sut.results import record
for path in Path(sys.argv[1]).glob("*/record.json"):
    record.read(path)
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.history", description=__doc__)
    parser.add_argument("num_records", type=int, nargs="?", default=NUM_RECORDS)
    num_records: int = parser.parse_args().num_records
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        copy(make_record(root / "one"), root / "runs", num_records)
        listing = ["-m", "sut.history", "--root", str(root / "runs"), "--limit", "0"]
        direct = [seconds(["-c", DIRECT, str(root / "runs")]) for _ in range(REPEATS)]
        cold = []
        for _ in range(REPEATS):
            (root / "runs" / ".history.sqlite").unlink(missing_ok=True)
            cold.append(seconds(listing))
        warm = [seconds(listing) for _ in range(REPEATS)]
        last = [seconds([*listing[:-1], "30"]) for _ in range(REPEATS)]
    rows = [
        ("read every record, no index", direct),
        ("list all, no index yet", cold),
        ("list all", warm),
        ("list the last 30", last),
    ]
    print(render(num_records, rows))
    return 0


def make_record(folder: Path) -> dict[str, object]:
    """The record of a run of two replicas on the replay engine."""
    argv = [sys.executable, "-m", "sut.submit", "--config", "replay", "--preset", "quick"]
    argv += ["--mode", "all", "--set", f"site.run_root={folder}", "--set", "site.num_replicas=2"]
    subprocess.run(argv, stdout=subprocess.DEVNULL, check=False)
    return dict(json.loads((folder / "latest" / "record.json").read_text()))


def copy(record: dict[str, object], root: Path, count: int) -> None:
    first = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(count):
        at = first + timedelta(minutes=number)
        name = f"{at:%Y%m%dT%H%M%SZ}-replay-server-quick"
        (root / name).mkdir(parents=True)
        one = {**record, "run_id": name, "created_utc": f"{at:%Y-%m-%dT%H:%M:%SZ}"}
        text = json.dumps({**one, "digest": integrity.BLANK}, indent=2)
        (root / name / "record.json").write_bytes(integrity.seal(text.encode()))


def seconds(arguments: Sequence[str]) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begin


def render(num_records: int, rows: Sequence[tuple[str, Sequence[float]]]) -> str:
    base = statistics.median(rows[0][1])
    head = (f"{num_records:,} records", "seconds", "of reading them directly")
    return table(
        head,
        [
            (name, f"{statistics.median(times):.2f}", f"{statistics.median(times) / base:.0%}")
            for name, times in rows
        ],
        right=(1, 2),
    )


if __name__ == "__main__":
    sys.exit(main())
