"""This machine's network, as far as a run needs it: an interface's address, a free port."""

from __future__ import annotations

import fcntl
import random
import socket
import struct
from pathlib import Path

from sut.errors import RunError

SIOCGIFADDR = 0x8915
LOWEST_PORT = 10_000
NUM_TRIES = 100


def address_of(interface: str) -> str:
    """The IPv4 address of a network interface. Raises RunError where it has none."""
    request = struct.pack("256s", interface.encode()[:15])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            answer = fcntl.ioctl(any_socket.fileno(), SIOCGIFADDR, request)
        except OSError:
            names = ", ".join(name for _, name in socket.if_nameindex())
            raise RunError(
                f"{socket.gethostname()} has no interface '{interface}' with an IPv4 address. It "
                f"has {names}. Correct the site's interface: --set site.interface=...",
                code="interface",
            ) from None
    return socket.inet_ntoa(answer[20:24])


def free_port(host: str) -> int:
    """A TCP port of ``host``, an address of this machine, that can be bound. Raises RunError.

    It is for a program that binds it some seconds later, so it is none of those that the system
    hands out by itself meanwhile.
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
        f"{socket.gethostname()}: none of {NUM_TRIES} ports could be bound on {host}. Is it an "
        "address of this machine?",
        code="bind",
    )
