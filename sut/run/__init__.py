"""One run, measured."""

import sys

from sut import messages
from sut.errors import EXIT_BAD_INPUT, InputError
from sut.machine import modules

# Before the modules of the command are imported: a Python that lacks one would print a traceback.
# sys.argv[0] is "-m" until then.
if sys.argv[:1] == ["-m"]:
    try:
        modules.require(modules.OF_EVERY_RUN)
    except InputError as error:
        messages.report(f"error: {error}")
        sys.exit(EXIT_BAD_INPUT)
