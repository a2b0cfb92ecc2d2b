"""This machine's network interfaces and free ports."""

from __future__ import annotations

import random
import socket
from pathlib import Path

from sut.errors import RunError

LOWEST_PORT = 10_000
NUM_TRIES = 100


def address_of(interface: str) -> str:
    """The first IPv4 address of a network interface. Raises RunError where it has none."""
    import psutil  # a login node, which only lists engines, has none

    interfaces = psutil.net_if_addrs()
    for address in interfaces.get(interface, []):
        if address.family == socket.AF_INET:
            return address.address
    raise RunError(
        f"no IPv4 address on interface '{interface}' of {socket.gethostname()}; its interfaces: "
        f"{', '.join(interfaces)}",
        hint="correct the site's interface: --set site.interface=NAME",
        code="interface",
    )


def is_up(interface: str) -> bool:
    import psutil

    stats = psutil.net_if_stats().get(interface)
    return stats is not None and stats.isup


def free_port(host: str) -> int:
    """A TCP port of ``host``, an address of this machine, that can be bound. Raises RunError.

    A program binds it some seconds later, so the port is outside the range from which the system
    assigns ports meanwhile.
    """
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = range(LOWEST_PORT, low) or range(LOWEST_PORT, 2**16)
    for port in random.sample(ports, min(NUM_TRIES, len(ports))):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tried:
            try:
                tried.bind((host, port))
            except OSError:
                continue
        return port
    raise RunError(
        f"no free port on {host} ({socket.gethostname()}): binding {NUM_TRIES} ports failed",
        hint="set site.host or site.interface to an address of that machine",
        code="bind",
    )
