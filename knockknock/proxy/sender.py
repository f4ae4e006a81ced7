"""Sends the proxy's knocks, by raw sockets of its own or by systemd's sender."""

import os
import socket
import threading
from collections.abc import Callable

from .. import client, rawsend
from ..errors import SendError

PATIENCE = 2.0
"""Seconds in which somebody who sends a knock for us must have answered."""


def sender(user: int = -1) -> Callable[[client.Knock], None]:
    """Return a function that sends a knock by raw sockets opened now, or by systemd's socket, asked for each knock.

    Raises SendError, and so does what it is. user: as client.open_raw() has it.
    """
    try:
        raw = client.open_raw(user)
    except SendError as error:
        if os.geteuid() == 0:
            raise
        reason = str(error)
        with rawsend.borrow(reason, PATIENCE, sudo=False):
            pass  # whether there is somebody who would send it

        def hand_over(knock: client.Knock) -> None:
            with rawsend.borrow(reason, PATIENCE, sudo=False) as put:
                put(knock)

        return hand_over

    one_at_a_time = threading.Lock()  # each binds the socket to its own source

    def send(knock: client.Knock) -> None:
        version = knock.packet[0] >> 4
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        if family not in raw:
            raise SendError(f"this kernel has no raw sockets for IPv{version}")
        with one_at_a_time:
            client.send(raw[family], knock)

    return send
