"""The progress of the first `make build`, with an interpreter that installs nothing."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from cli import ROOT

# Makes itself the interpreter of each environment. Its pip prints what pip does for a lock.
PYTHON = r"""#!/bin/bash
case $* in
'-m venv '*)
  folder=${!#}
  mkdir -p "$folder/bin" "$folder/lib/python3.11/site-packages"
  cp "$0" "$folder/bin/python"
  ;;
'-m pip '*)
  locks=$(tr ' ' '\n' <<<"$*" | grep 'lock$')
  for name in $(sed -n 's/^\([^ #]*\)==.*/\1/p' $locks | sort -u); do
    case $name in
    setuptools) echo "Requirement already satisfied: $name in /there" ;;
    torch) echo "Processing /wheels/$name.whl (from -r FILE (line 3))" ;;
    *) echo "Collecting $name (from -r FILE (line 7))" && echo "  Downloading $name.whl (1 MB)" ;;
    esac
  done
  echo 'Installing collected packages: all'
  echo 'Successfully installed all'
  ;;
-c*) echo "$0" ;;
esac
"""


def test_progress_reaches_its_total_once(tmp_path: Path) -> None:
    python = tmp_path / "python3.11"
    python.write_text(PYTHON)
    python.chmod(0o755)
    outside = {**os.environ, "PYTHON": str(python), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    script = ROOT / "tools" / "python_env.sh"
    done = subprocess.run([script, tmp_path / "venv"], env=outside, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    counts = [(int(n), int(of)) for n, of in re.findall(r"(\d+) of (\d+) packages", done.stdout)]
    assert counts and counts == sorted(set(counts)), done.stdout
    assert counts[0] == (25, counts[-1][0]) and len({of for _, of in counts}) == 1
    assert done.stdout.splitlines()[-2:] == ["    installing", "    compiling them (a minute)"]
    assert done.stdout.count("installing") == 1
