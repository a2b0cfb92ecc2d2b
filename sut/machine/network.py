"""This machine's network, as far as a run needs it: an interface's address, a free port."""

from __future__ import annotations

import fcntl
import random
import socket
import struct
from pathlib import Path

from sut.errors import RunError

# linux/sockios.h, linux/if.h
SIOCGIFFLAGS = 0x8913
SIOCGIFADDR = 0x8915
IFF_UP = 0x1
IFF_RUNNING = 0x40
NAME_BYTES = 16
LOWEST_PORT = 10_000
NUM_TRIES = 100


def address_of(interface: str) -> str:
    """The IPv4 address of a network interface. Raises RunError where it has none."""
    try:
        return socket.inet_ntoa(_ask(interface, SIOCGIFADDR)[4:8])
    except OSError:
        names = ", ".join(name for _, name in socket.if_nameindex())
        raise RunError(
            f"{socket.gethostname()} has no interface '{interface}' with an IPv4 address. It has "
            f"{names}. Correct the site's interface: --set site.interface=...",
            code="interface",
        ) from None


def is_up(interface: str) -> bool:
    """Whether it is in use and has a carrier."""
    try:
        (flags,) = struct.unpack_from("H", _ask(interface, SIOCGIFFLAGS))
    except OSError:
        return False
    return bool(flags & IFF_UP and flags & IFF_RUNNING)


def _ask(interface: str, request: int) -> bytes:
    """The kernel's answer about an interface, without its name. Raises OSError."""
    # Not from /sys, which in a container may be that of another network namespace.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        asked = struct.pack("256s", interface.encode()[: NAME_BYTES - 1])
        return fcntl.ioctl(any_socket.fileno(), request, asked)[NAME_BYTES:]


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
        f"none of {NUM_TRIES} ports of {host} could be bound on {socket.gethostname()}. Is it an "
        "address of that machine? site.host and site.interface say which",
        code="bind",
    )
