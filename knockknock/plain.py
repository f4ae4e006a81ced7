"""Sends the knocks that need no raw socket: connects and datagrams, in order, by anybody."""

import contextlib
import os
import socket
import time

from . import route, schemes, store
from .errors import SendError
from .packet import TCP
from .request import PROTOCOL_NAMES, Verb
from .schemes import Profile, Sending

PAUSE = 0.05
"""Seconds between two packets, so that they arrive in their order. The server logs 20 a second of one source, and 40 at
once."""


def packets(directory: str, profile: Profile, verb: Verb, *, dry: bool) -> list[Sending]:
    """What says a verb, with a counter durably used up if the scheme has one. Raises KnockError.

    directory: of the profile. dry: leave the counter as it is.
    """
    scheme, counter = schemes.load(profile.scheme), 0
    if scheme.first(profile) is not None:
        counter = store.next_counter(directory, 0)
    found = scheme.sends(profile, verb, counter)  # what cannot be said uses nothing up
    if dry or scheme.first(profile) is None or verb is Verb.CLOSE:
        return found
    return scheme.sends(profile, verb, store.take_counter(directory))


def knock(found: list[Sending], address: tuple[int, str], source: str) -> str:
    """Send packets to an address; the source address that they leave from. Raises SendError.

    source: which of this machine's addresses to take, or "" for the kernel's choice.
    """
    family, destination = address
    used = route.find(family, destination, found[0].port, source)[0]
    if source and not route.same(family, used, source):
        raise SendError(
            f"{source} is not an address of this machine, from which these packets could leave: leave it out"
        )
    for number, sending in enumerate(found):
        if number:
            time.sleep(PAUSE)
        _send(sending, family, destination, source)
    return used


def _send(sending: Sending, family: int, destination: str, source: str) -> None:
    """One datagram, or one SYN by a connection that nobody waits for; closing it sends nothing more."""
    kind = socket.SOCK_STREAM if sending.protocol == TCP else socket.SOCK_DGRAM
    try:
        with socket.socket(family, kind) as one:
            one.setblocking(False)
            if source:
                one.bind((source, 0))
            if sending.protocol == TCP:
                with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
                    one.connect((destination, sending.port))
            else:
                one.sendto(sending.payload, (destination, sending.port))
    except OSError as error:
        what = f"{PROTOCOL_NAMES[sending.protocol]} packet to {destination}"
        raise SendError(f"the {what} could not be sent: {error.strerror or os.strerror(error.errno or 0)}") from None
