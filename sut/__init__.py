"""MLPerf Inference for LLMs on Slurm: the official LoadGen over batched vLLM engines."""

import os
import signal
import sys

OLDEST_PYTHON = (3, 11)

# All that a process of this package writes, and the programs that it starts, is for its user alone:
# answers, logs, and files that are executed later. sut.assets, whose files are public, lifts it.
os.umask(0o077)

# While the modules of a command (sut NAME, python -m sut.NAME) are imported, Ctrl-C ends the
# process at once: a KeyboardInterrupt there is a traceback, or is lost in one of Python's
# callbacks. sys.argv[0] is "-m" until the module runs. sut.command restores Python's own handler.
_NAME = os.path.basename(sys.argv[0]) if sys.argv else ""
if _NAME in ("-m", "sut") and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _refuse_this_python(lacks: str) -> None:
    """End a command that was typed outside of the project's environments."""
    import shlex

    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    venvs = [os.path.join(root, name) for name in (".venv", ".venv-login")]
    scripts = [os.path.join(venv, "bin", "activate") for venv in venvs if venv != sys.prefix]
    made = [shlex.quote(script) for script in scripts if os.path.isfile(script)]
    hint = "in a checkout: pip install ."
    if made:
        hint = "source " + made[0]
    elif os.path.isfile(os.path.join(root, "Makefile")):
        hint = f"cd {shlex.quote(root)} && make build && source .venv/bin/activate"
        hint += "; on a login node: make login && source .venv-login/bin/activate"
    sys.stderr.write(f"error: this Python cannot run sut ({sys.executable}): {lacks}\n")
    sys.stderr.write(f"hint: {hint}\n")
    sys.exit(2)


if sys.argv[:1] == ["-m"]:
    if sys.version_info < OLDEST_PYTHON:
        _refuse_this_python("Python {}.{} or newer is needed".format(*OLDEST_PYTHON))
    import importlib.util

    if importlib.util.find_spec("msgspec") is None:
        _refuse_this_python("its packages are not installed")
