"""Sends knocks that need no raw socket, as TCP connects and UDP datagrams, in order."""

import contextlib
import os
import socket
import time
from collections.abc import Iterator

from .. import schemes
from ..core.packet import TCP
from ..core.profile import Profile
from ..core.request import PROTOCOL_NAMES, Verb
from ..errors import SendError
from ..profiles import clock, counters
from ..schemes.values import Sending
from . import route

PAUSE = 0.05
"""Seconds between two packets, so that they arrive in their order. The server logs 20 a second of one source, and 40 at
once."""


@contextlib.contextmanager
def packets(
    directory: str, profile: Profile, verb: Verb, source: bytes, *, dry: bool, end: float | None = None
) -> Iterator[list[Sending]]:
    """Yield the packets of a knock, with a counter durably used up if the scheme has one. Raises KnockError.

    The next counter is locked until this ends.

    directory: of the profile. source: the address that the server sees. dry: leave the counter as it is. end: as for
    counters.taking().
    """
    scheme, counter, now = schemes.load(profile.scheme), 0, clock.seconds()
    counted = scheme.counter(profile) is not None
    if counted:
        counter = counters.next_counter(directory, 0)
    found = scheme.sends(profile, verb, counter, source, now)  # a failure uses no counter up
    if dry or not counted or verb is Verb.CLOSE:
        yield found
        return
    with counters.taking(directory, end=end) as counter:
        yield scheme.sends(profile, verb, counter, source, now)


def leaves(profile: Profile, address: tuple[int, str], source: str) -> str:
    """Return the address of this machine from which a knock to an address leaves. Raises SendError.

    source: the address to leave from, or "" for the kernel's choice; behind NAT the one that the server sees.
    """
    family, destination = address
    used = route.find(family, destination, next(iter(profile.knock_ports))[1], source)[0]
    if source and not schemes.load(profile.scheme).BOUND and not route.same(family, used, source):
        raise SendError(
            f"{source} is not an address of this machine, from which these packets could leave: leave it out"
        )
    return used


def knock(found: list[Sending], address: tuple[int, str], source: str) -> None:
    """Send packets to an address. Raises SendError. source: from leaves(), or "" for the kernel's choice."""
    family, destination = address
    for number, sending in enumerate(found):
        if number:
            time.sleep(PAUSE)
        _send(sending, family, destination, source)


def _send(sending: Sending, family: int, destination: str, source: str) -> None:
    """Send a datagram, or a SYN by a connect() that is not awaited; closing the socket sends nothing more."""
    kind = socket.SOCK_STREAM if sending.protocol == TCP else socket.SOCK_DGRAM
    try:
        with socket.socket(family, kind) as one:
            one.setblocking(False)
            if source:
                one.bind(route.end(source, 0))
            if sending.protocol == TCP:
                with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
                    one.connect(route.end(destination, sending.port))
            else:
                one.sendto(sending.payload, route.end(destination, sending.port))
    except OSError as error:
        what = f"{PROTOCOL_NAMES[sending.protocol]} packet to {destination}"
        raise SendError(f"the {what} could not be sent: {error.strerror or os.strerror(error.errno or 0)}") from None
