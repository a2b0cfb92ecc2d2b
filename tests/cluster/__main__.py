from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Iterator

import cluster
from cluster.cluster import ADDRESSES, LOGIN, USER, Cluster, ClusterError


def main() -> int:
    arguments = parse()
    if os.geteuid() != 0:
        print("error: the test cluster needs root\nhint: sudo make cluster", file=sys.stderr)
        return 2
    try:
        return act(Cluster(), arguments)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="cluster", description=cluster.__doc__)
    parser.add_argument("action", choices=["prepare", "up", "down", "run", "shell"])
    parser.add_argument("command", nargs="?", default="true")
    parser.add_argument("--node", choices=list(ADDRESSES), default=LOGIN)
    parser.add_argument("--user", choices=[USER, "root"], default=USER)
    return parser.parse_args()


def act(ours: Cluster, arguments: argparse.Namespace) -> int:
    if arguments.action == "down":
        ours.down()
        return 0
    with unwinding():
        if arguments.action == "prepare":
            ours.prepare()
        else:
            ours.up()
    match arguments.action:
        case "run":
            return ours.attach(arguments.command, arguments.node, arguments.user)
        case "shell":
            return ours.shell(arguments.node, arguments.user)
        case _:
            return 0


@contextlib.contextmanager
def unwinding() -> Iterator[None]:
    """SIGTERM also ends what is being built."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
