"""Seals a request and encodes it in header fields: PROTOCOL.md steps 2 to 7, and the tags of step 9. Pure."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from struct import Struct
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hmac import HMAC

from ...core.headers import Carried
from ...core.packet import Packet
from ...core.request import TCP, UDP, Kind, Request, Verb
from .profile import FORMATS as FORMATS
from .profile import Profile

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import CipherContext

AT_HAND = 128
"""The most keys that stay expanded: after a pause, to expand one takes 0.1 ms, while a client waits."""
LABEL = b"knockknock-2"
_COMPACT, _CLASSIC, _STEALTH = Struct("!HIH").pack, Struct("!HIIH").pack, Struct("!HII").pack
"""The header fields of each format: identification, sequence number and others (step 6)."""


_SIZES = {"compact": 8, "classic": 12, "stealth": 10}
"""The number of sealed bytes of each format: 2 of port, the rest tag."""


def kinds(format: str) -> list[Kind]:
    """The verbs and protocols of a format. They are not sent: the receiver tries each (step 9)."""
    return [(Verb.OPEN, TCP)] if format == "classic" else [(verb, protocol) for verb in Verb for protocol in (TCP, UDP)]


@lru_cache(maxsize=AT_HAND)
def _encryptor(key: bytes) -> "CipherContext":
    """Return an encryptor of whole blocks, which keeps no state between two calls."""
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor()


def keystreams(profile: Profile, first: int, count: int) -> list[bytes]:
    """The keystreams of count counters from first on, each as long as the format's sealed bytes (step 2).

    The first block of AES-CTR is the encrypted initial counter block, and no format needs more than one block: so one
    call encrypts all counters.
    """
    blocks = _encryptor(profile.cipher_key).update(
        b"".join(counter.to_bytes(16, "big") for counter in range(first, first + count))
    )
    size = _SIZES[profile.format]
    return [blocks[start : start + size] for start in range(0, 16 * count, 16)]


def _before(profile: Profile, kind: Kind) -> bytes:
    """The bytes before the counter in the message (step 4)."""
    return b"" if profile.format == "classic" else LABEL + kind[0].value + bytes([kind[1]])


def _counter(profile: Profile, counter: int) -> bytes:
    return b"" if profile.format == "classic" else counter.to_bytes(8, "big")


def _bound(profile: Profile, source: bytes) -> bytes:
    """The source at the end of the message, 16 bytes; empty if the profile does not bind it (step 4)."""
    if not profile.bind_source:
        return b""
    return source if len(source) == 16 else bytes(10) + b"\xff\xff" + source


@lru_cache(maxsize=AT_HAND)
def _keyed(key: bytes) -> HMAC:
    """Return a keyed HMAC. Its copies take a third of the time of hmac.digest(), which hashes the key each time."""
    return HMAC(key, hashes.SHA1())  # the protocol's (PROTOCOL.md step 4)


def forget_keys() -> None:
    """Drop the expanded keys of all profiles, because one of them was removed."""
    _encryptor.cache_clear()
    _keyed.cache_clear()


def _xor(left: bytes, right: bytes) -> bytes:
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(len(left), "big")


def seal(profile: Profile, counter: int, request: Request, source: bytes) -> bytes:
    """Return the sealed bytes of a request (step 5); source: 4 or 16 bytes. The counter must never have been used."""
    port = request.port.to_bytes(2, "big")
    message = _before(profile, (request.verb, request.protocol)) + _counter(profile, counter) + port
    made = _keyed(profile.mac_key).copy()
    made.update(message + _bound(profile, source))
    return _xor(port + made.finalize()[: _SIZES[profile.format] - 2], keystreams(profile, counter, 1)[0])


def sealed(profile: Profile, first: int, count: int, requests: Sequence[Request]) -> Iterator[bytes]:
    """Yield the sealed bytes of each request with each of count counters from first on.

    For profiles that do not bind the source. Written for speed: a server with many profiles makes millions at start.
    """
    keyed, size = _keyed(profile.mac_key), _SIZES[profile.format]
    parts = [(_before(profile, (one.verb, one.protocol)), one.port.to_bytes(2, "big")) for one in requests]
    for counter, stream in enumerate(keystreams(profile, first, count), first):
        mask, middle = int.from_bytes(stream, "big"), _counter(profile, counter)
        for before, port in parts:
            tag = keyed.copy()
            tag.update(before + middle + port)
            yield (mask ^ int.from_bytes(port + tag.finalize()[: size - 2], "big")).to_bytes(size, "big")


def padded(sealed: bytes) -> bytes:
    """Return sealed bytes as an element of an nftables set: each field begins a register of 4 bytes."""
    return sealed[:2] + bytes(2) + sealed[2:] + bytes((2 - len(sealed)) % 4)


def matcher(
    profile: Profile, sealed: bytes, source: bytes, kinds: Iterable[Kind]
) -> Callable[[int, bytes], Request | None]:
    """Return a function from a counter and its keystream to the request in the sealed bytes, None without a valid tag.

    kinds: the verbs and protocols to try. Tags are compared in constant time (step 9).
    """
    from hmac import compare_digest  # imported here, because a client compares nothing, and starts faster without

    keyed, bound = _keyed(profile.mac_key), _bound(profile, source)
    befores = [(kind, _before(profile, kind)) for kind in kinds]

    def match(counter: int, keystream: bytes) -> Request | None:
        plain = _xor(sealed, keystream)
        port, tag, found = plain[:2], plain[2:], None
        rest = _counter(profile, counter) + port + bound
        for kind, before in befores:
            made = keyed.copy()
            made.update(before + rest)
            if compare_digest(tag, made.finalize()[: len(tag)]):
                found = Request(*kind, int.from_bytes(port, "big"))
        return found

    return match


def carry(format: str, sealed: bytes) -> Carried:
    """Return the header fields that carry sealed bytes, in the order of step 6."""
    ident, sequence, rest = int.from_bytes(sealed[:2], "big"), int.from_bytes(sealed[2:6], "big"), sealed[6:]
    if format == "stealth":
        return Carried(ident, sequence, timestamp=int.from_bytes(rest, "big"))
    acknowledgment = int.from_bytes(rest[:-2], "big")
    return Carried(ident, sequence, acknowledgment, window=int.from_bytes(rest[-2:], "big"))


def carried(format: str, packet: Packet) -> bytes | None:
    """Return the sealed bytes in a packet (step 7), None if it cannot be a knock of this format."""
    ident = packet.ident & 0xFFFF
    if format == "classic":
        return _CLASSIC(ident, packet.sequence, packet.acknowledgment, packet.window)
    if packet.acknowledgment:
        return None
    if format == "compact":
        return _COMPACT(ident, packet.sequence, packet.window)
    return None if packet.timestamp is None else _STEALTH(ident, packet.sequence, packet.timestamp)
