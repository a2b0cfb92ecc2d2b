"""vLLM's sockets to the dispatcher prove the engine's key.

vLLM has no setting for it, and opens them before it loads its plugins. So the program that starts
an engine sets the options, in every process that vLLM starts from it: a forked process inherits
them, and a spawned one runs the program's module again as ``__mp_main__``.
"""

from __future__ import annotations

import os
from typing import Any

from sut.serving import keys


def authenticate() -> None:
    """Call before vLLM's engine core is imported."""
    path = os.environ.get(keys.VARIABLE)
    if path is None:  # a rank without connection to the dispatcher
        return
    import zmq
    from vllm.utils import network_utils

    found = keys.read(path)
    make_zmq_socket = network_utils.make_zmq_socket

    def make_authenticated(context: Any, path: str, *args: Any, **more: Any) -> Any:
        # An engine of one data-parallel rank opens TCP sockets to the dispatcher only. Those of
        # each of its contexts are of one kind.
        if path.startswith("tcp://"):
            context.setsockopt(zmq.CURVE_SERVERKEY, found.dispatcher.encode())
            context.setsockopt(zmq.CURVE_PUBLICKEY, found.public.encode())
            context.setsockopt(zmq.CURVE_SECRETKEY, found.secret.encode())
        return make_zmq_socket(context, path, *args, **more)

    network_utils.make_zmq_socket = make_authenticated
