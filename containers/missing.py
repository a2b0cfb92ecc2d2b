"""Print the requirements of a lock file that this Python lacks in any version.

Usage: missing.py LOCK
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from pathlib import Path


def main() -> None:
    wanted = False
    for line in Path(sys.argv[1]).read_text().splitlines():
        pinned = re.match(r"([A-Za-z0-9._-]+)==", line)
        if pinned:
            wanted = not installed(pinned[1])
        if wanted and not line.lstrip().startswith("#"):
            print(line)


def installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    main()
