"""Sends the proxy's knocks, through its own raw sockets or through `knockknock --send`."""

import os
import socket
import threading
from collections.abc import Callable

from ..client import raw_socket, send_client
from ..errors import SendError

PATIENCE = 2.0
"""Seconds within which the service that sends a knock must have answered."""


def sender(user: int = -1) -> Callable[[raw_socket.Knock], None]:
    """Return a function that sends a knock by raw sockets opened now, or by systemd's socket, opened for each knock.

    Raises SendError, and so does the function. user: as for raw_socket.open_raw().
    """
    try:
        raw = raw_socket.open_raw(user)
    except SendError as error:
        if os.geteuid() == 0:
            raise
        reason = str(error)
        with send_client.borrow(reason, PATIENCE, sudo=False):
            pass  # check that the service would send it

        def hand_over(knock: raw_socket.Knock) -> None:
            with send_client.borrow(reason, PATIENCE, sudo=False) as put:
                put(knock)

        return hand_over

    one_at_a_time = threading.Lock()  # each binds the socket to its own source

    def send(knock: raw_socket.Knock) -> None:
        version = knock.packet[0] >> 4
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        if family not in raw:
            raise SendError(f"this kernel has no raw sockets for IPv{version}")
        with one_at_a_time:
            raw_socket.send(raw[family], knock)

    return send
