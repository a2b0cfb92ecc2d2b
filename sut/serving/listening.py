"""What the processes of a run listen on, as a preflight check of one node."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from sut.results.record import PreflightCheck

NAME = "listening"


def check(sessions: Iterable[int]) -> PreflightCheck:
    """Name the TCP addresses of this process, of those it has started, and of the engines'
    ``sessions``. Our own must not be those of all interfaces; vLLM's and torch's can be."""
    ours, theirs = set[str](), set[str]()
    open_to_all = False
    for process_is_ours, name, host, port in _listeners(sessions):
        everywhere = ipaddress.ip_address(host).is_unspecified
        open_to_all |= everywhere and process_is_ours
        address = f"{host}:{port}" + " (all interfaces)" * everywhere
        if process_is_ours:
            ours.add(address)
        else:
            theirs.add(f"{name} on {address}")
    theirs = {each for each in theirs if not any(each.endswith(f" on {own}") for own in ours)}
    text = f"the run on {', '.join(sorted(ours)) or 'no port'}"
    text += "".join(f"; {each}" for each in sorted(theirs))
    if open_to_all:
        text += ". Set site.host, or site.interface, to one network's"
    count = len(ours) + len(theirs)
    return PreflightCheck(NAME, not open_to_all, text, measured=count, unit="sockets")


def _listeners(sessions: Iterable[int]) -> Iterator[tuple[bool, str, str, int]]:
    """Whether the process is this one, its name, and the address."""
    import psutil  # a login node, which only lists engines, has none

    own = psutil.Process()
    processes = {own.pid: own}
    for pid in (own.pid, *sessions):
        try:
            root = psutil.Process(pid)
            found = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
        processes.update({each.pid: each for each in found})
    for process in processes.values():
        try:
            name = process.name()
            for each in process.net_connections("tcp"):
                if each.status == psutil.CONN_LISTEN:
                    yield process.pid == own.pid, name, each.laddr.ip, each.laddr.port
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
