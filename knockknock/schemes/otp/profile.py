"""The profile of one-time passwords by UDP, and its datagram: an HMAC of sender and minute. Pure.

It accepts xt_pknock's clients, too (otp_layout = pknock). PROTOCOL.md, "One-time passwords", has the layouts.
"""

import hmac
import re
import sys
from binascii import crc32
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

from ...core import ini
from ...core.profile import KnockPort
from ...core.request import UDP, Ports, Request, Verb, parse_ports, port_number
from ...errors import ConfigError, CounterError, ProfileError
from .. import door_options
from ..values import Sending

RAW = False
BOUND = True
LAYOUTS = ("portable", "pknock")
SECRETS = ("opensecret", "closesecret")
KEY = "a text of 1 to 128 bytes, as a blob"
KEYS: ini.Keys = {
    "knock_port": port_number,
    "otp_layout": ini.one_of(*LAYOUTS),
    "ports": parse_ports,
    **door_options.KEYS,
}
LABEL = b"knockknock-otp-1"
"""The first bytes under the HMAC of the portable layout, so that it is no HMAC of anything else."""
MAX_DOORS = 16
"""The most ports that one datagram opens: each takes a grant of its own."""
MIN_SECRET, MAX_SECRET = 16, 128
"""Bytes of a secret. The minimum is for the portable layout only: xt_pknock takes shorter ones."""
NEW_SECRET = 21
"""Random bytes of a new secret: 28 characters in base64, where xt_pknock takes up to 31."""
MAX_USED = 1024
"""The most used datagrams of a profile that are remembered; a few clients do not reach it within the tolerance."""
TOLERANCE = 1
"""Minutes by which a datagram's minute may differ from the server's, either way."""
SPARE = b"\n"
"""The byte after the digits in the pknock layout; xt_pknock accepts no payload without one."""

Used = tuple[Verb, int, bytes]
"""An accepted datagram: its verb, its Unix minute and its source address."""


class Memory(NamedTuple):
    """The used one-time passwords of a profile."""

    floor: int
    """The first Unix minute whose datagrams are accepted."""
    used: frozenset[Used] = frozenset()


class Profile(NamedTuple):
    """One client of one server, which knocks by one-time password. Its repr shows no secret."""

    name: str
    opensecret: bytes
    closesecret: bytes
    knock_port: int
    otp_layout: str
    """One of LAYOUTS."""
    ports: tuple[Ports, ...]
    single_use: bool | None = None
    """None for the daemon's default."""
    delay: int | None = None
    """Seconds; None for the daemon's default."""
    doors_per_minute: int | None = None
    """None for core.profile.SHARE."""

    @property
    def scheme(self) -> str:
        return "otp"

    @property
    def kind(self) -> str:
        return f"otp {self.otp_layout}"

    @property
    def knock_ports(self) -> tuple[KnockPort, ...]:
        return ((UDP, self.knock_port),)

    @property
    def tries(self) -> int:
        return 0

    @property
    def where(self) -> str:
        return f"udp/{self.knock_port}"

    @property
    def any_flags(self) -> bool:
        return False

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"payload"})

    @property
    def file(self) -> str:
        return ""

    @property
    def expires(self) -> None:
        return None

    @property
    def legacy(self) -> bool:
        return False

    def secrets(self) -> tuple[tuple[Verb, bytes], ...]:
        """Each verb with its secret."""
        return (Verb.OPEN, self.opensecret), (Verb.CLOSE, self.closesecret)

    def requests(self, verb: Verb) -> list[Request]:
        """The requests of one datagram: one for each port of the allow-list."""
        return [Request(verb, one.protocol, port) for one in self.ports for port in range(one.first, one.last + 1)]

    def __repr__(self) -> str:
        return f"<profile {self.name}>"


def parse(values: Mapping[str, Any], where: str) -> Profile:
    """A profile without name and secrets. Raises ConfigError."""
    for key, example in (("knock_port", "4000"), ("ports", "tcp/22")):
        if key not in values:
            raise ConfigError(f"{where}: there must be a line {key} = ..., such as {key} = {example}")
    if sum(one.last - one.first + 1 for one in values["ports"]) > MAX_DOORS:
        raise ConfigError(f"{where}: ports: one datagram opens all of them, so there are at most {MAX_DOORS}")
    return Profile("", b"", b"", **{"otp_layout": LAYOUTS[0], **values})


def write(profile: Profile) -> Iterable[str]:
    """The lines of a config that parse() reads back."""
    yield f"knock_port = {profile.knock_port}"
    yield f"otp_layout = {profile.otp_layout}"
    yield f"ports = {', '.join(map(str, profile.ports))}"
    yield from door_options.write(profile)


def read_key(text: str, where: str) -> bytes:
    """Return the secret in the text of its file: the text without its line end. Raises ProfileError."""
    secret = text.removesuffix("\n").removesuffix("\r").encode()
    if not 0 < len(secret) <= MAX_SECRET or b"\n" in secret or b"\0" in secret:
        raise ProfileError(f"{where}: not a secret: one line of 1 to {MAX_SECRET} bytes is expected")
    return secret


def write_key(key: bytes) -> str:
    """The text that read_key() reads back."""
    return key.decode("utf-8", "replace") + "\n"


def check(profile: Profile) -> None:
    """Raise ProfileError if the secrets are equal, or too short for the layout."""
    if hmac.compare_digest(profile.opensecret, profile.closesecret):
        raise ProfileError(f"{profile.name}: opensecret and closesecret must differ")
    if profile.otp_layout == "portable" and min(len(secret) for _, secret in profile.secrets()) < MIN_SECRET:
        raise ProfileError(
            f"{profile.name}: a secret has fewer than {MIN_SECRET} bytes, and could be guessed from one datagram; "
            "secrets of xt_pknock go with otp_layout = pknock"
        )


def unshared(profile: Profile) -> Iterable[Hashable]:
    """Each of the two secrets."""
    yield from (profile.opensecret, profile.closesecret)


def first(_profile: Profile) -> str:
    """The memory of an unused profile."""
    return write_memory(Memory(0))


def counter(_profile: Profile) -> None:
    """Return None: a client uses the clock."""


def recall(profile: Profile, text: str | None, where: str, latest: int) -> Memory:
    """Return the used passwords. Raises ProfileError for bad secrets (check()), CounterError for text that is none.

    latest: seconds since 1970, not before now. Without a file all passwords valid until then count as used, so the
    profile is heard one to two minutes after that.
    """
    check(profile)
    return Memory(latest // 60 + TOLERANCE + 1) if text is None else read_memory(text, where)


_MEMORY = re.compile(
    r"(floor [0-9]{1,10}\n(?:(?:open|close) [0-9]{1,10} (?:[0-9a-f]{8}|[0-9a-f]{32})\n)*)(?:crc32 ([0-9a-f]{8})\n)?"
)


def read_memory(text: str, where: str) -> Memory:
    """Return the memory in the text of write_memory(); the first versions wrote no checksum. Raises CounterError."""
    found = _MEMORY.fullmatch(text)
    if not found or (found[2] and int(found[2], 16) != crc32(found[1].encode())):
        raise CounterError(
            f"{where} does not hold used one-time passwords: remove it, and the profile is heard again when "
            "clock_skew and two minutes more have passed"
        )
    floor, *lines = found[1].split("\n")[:-1]
    words = [line.split(" ") for line in lines]
    used = frozenset((Verb[verb.upper()], int(minute), bytes.fromhex(source)) for verb, minute, source in words)
    return Memory(int(floor.removeprefix("floor ")), used)


def write_memory(memory: Memory) -> str:
    """The text for the state directory: the floor, a line for each datagram, and a CRC-32 of these lines."""
    lines = sorted(f"{verb.name.lower()} {minute} {source.hex()}" for verb, minute, source in memory.used)
    text = "\n".join([f"floor {memory.floor}", *lines, ""])
    return f"{text}crc32 {crc32(text.encode()):08x}\n"


def read_payload(payload: bytes) -> bytes | None:
    """Return the 32-byte HMAC of a payload: 64 lowercase hexadecimal digits, and at most one byte more. Else None."""
    return bytes.fromhex(payload[:64].decode()) if _PAYLOAD.fullmatch(payload) else None


_PAYLOAD = re.compile(rb"[0-9a-f]{64}.?", re.DOTALL)


def message(layout: str, source: bytes, minute: int, order: Literal["little", "big"] = sys.byteorder) -> bytes | None:
    """Return the bytes that the HMAC covers; None for an IPv6 source in the pknock layout.

    source: 4 or 16 bytes, network order. minute: since 1970. order: of the server's machine, for the pknock layout.
    """
    if layout == "pknock":
        return source + minute.to_bytes(4, order) if len(source) == 4 else None
    return LABEL + (source if len(source) == 16 else bytes(10) + b"\xff\xff" + source) + minute.to_bytes(4, "big")


def sends(profile: Profile, verb: Verb, _counter: int, source: bytes, clock: int) -> list[Sending]:
    """Return the datagram that a client sends. Raises ProfileError."""
    check(profile)
    covered = message(profile.otp_layout, source, clock // 60)
    if covered is None:
        raise ProfileError(f"{profile.name}: otp_layout pknock knows IPv4 only: knock with -4, or take portable")
    digits = hmac.digest(dict(profile.secrets())[verb], covered, "sha256").hex().encode()
    return [Sending(UDP, profile.knock_port, digits + (SPARE if profile.otp_layout == "pknock" else b""))]
