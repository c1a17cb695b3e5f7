"""Which network interface leads to another host."""

from __future__ import annotations

import fcntl
import socket
import struct
from contextlib import suppress

_SIOCGIFADDR = 0x8915
"""Linux: the IPv4 address of an interface (netdevice(7))."""


def interface_to(host: str) -> str | None:
    """The name of the interface through which this machine reaches `host`, or None if it cannot be told.

    gloo takes the address that this machine's own name stands for, which is the loopback on many: no other machine
    could connect to it.
    """
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # Of a datagram socket this sends nothing; it only chooses the route.
        probe.connect((host, 9))
        own = probe.getsockname()[0]
        for _, name in socket.if_nameindex():
            with suppress(OSError):
                asked = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                if socket.inet_ntoa(asked[20:24]) == own:
                    return name
    return None
