"""Consecutive knocks of one profile, as an observer sees them."""

from knockknock.core.request import TCP, Ports, Request, Verb
from knockknock.schemes.syn import seal
from knockknock.schemes.syn.profile import Profile

from ..helpers import KNOCK_PORT, seen

SOURCE = bytes([192, 0, 2, 7])
OPEN_22 = Request(Verb.OPEN, TCP, 22)
"""Always the same request: what does not change shows the most, if anything shows."""


def carried(format: str, cipher_key: bytes, mac_key: bytes, number: int, first: int = 0) -> list[bytes]:
    """Bytes of the carrying fields, in wire order, of some consecutive knocks from a counter on."""
    profile = Profile("observed", cipher_key, mac_key, KNOCK_PORT, format, (Ports(TCP, 22, 22),))
    found = []
    for counter in range(first, first + number):
        packet = seen(seal.carry(format, seal.seal(profile, counter, OPEN_22, SOURCE)), SOURCE)
        data = seal.carried(format, packet)
        assert data
        found.append(data)
    return found
