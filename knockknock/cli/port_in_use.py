"""Tells whether a service of this machine already uses the knock port of a new profile."""

import socket

from ..core.request import TCP
from ..errors import ProfileError


def check_port(port: int, protocol: int = TCP) -> None:
    """Raise ProfileError if a service of this machine listens on a port."""
    kind = socket.SOCK_STREAM if protocol == TCP else socket.SOCK_DGRAM
    for family, any_address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        try:
            with socket.socket(family, kind) as probe:
                if protocol == TCP:  # for UDP it would let two services share the port
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind((any_address, port))
        except OSError as error:
            if error.errno == 98:
                raise ProfileError(
                    f"a service of this machine listens on port {port}: take a knock port where nothing answers"
                ) from None
