"""MLPerf Inference for LLMs on Slurm: the official LoadGen over batched vLLM engines."""

import signal
import sys

# While the modules of a command (python -m sut.NAME) are imported, Ctrl-C ends the process at once:
# a KeyboardInterrupt there is a traceback, or is lost in one of Python's callbacks. sys.argv[0] is
# "-m" until the module runs. sut.command restores Python's own handler.
if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
