from __future__ import annotations

import argparse
import os
import sys

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
    match arguments.action:
        case "down":
            ours.down()
            return 0
        case "prepare":
            ours.prepare()
            return 0
        case "up":
            ours.up()
            return 0
        case "run":
            ours.up()
            return ours.attach(arguments.command, arguments.node, arguments.user)
        case _:
            ours.up()
            return ours.shell(arguments.node, arguments.user)


if __name__ == "__main__":
    sys.exit(main())
