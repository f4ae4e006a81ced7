"""Profile: one client's keys, where it knocks, how, and what it may open. A value; no I/O."""

import base64
import binascii
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from . import ini, schemes
from .errors import ConfigError, ProfileError
from .request import ANY_TCP, Ports, Request, parse_ports, permitted, port_number

KEY_SIZES = (16, 32)
"""Bytes, of the AES key and of the HMAC key; new profiles have 32."""

MAX_COUNTER = 2**64 - 1
"""The counter is a u64 in the authenticated message (PROTOCOL.md step 4)."""


def _moment(text: str) -> int:
    from . import moment  # imported only when asked for: most profiles do not expire

    return moment.parse(text)


KEYS: ini.Keys = {
    "knock_port": port_number,
    "format": ini.one_of(*schemes.FORMATS),
    "ports": parse_ports,
    "bind_source": ini.boolean,
    "single_use": ini.boolean,
    "counter": ini.one_of("event", "clock"),
    "expires": _moment,
}


class Profile(NamedTuple):
    """One client of one server. Its repr shows no key."""

    name: str
    cipher_key: bytes
    mac_key: bytes
    knock_port: int
    format: str
    """A word of schemes.FORMATS."""
    ports: tuple[Ports, ...] = ANY_TCP
    bind_source: bool = False
    """Whether the tag covers the source address."""
    single_use: bool | None = None
    """None: as the daemon's configuration says."""
    legacy: bool = False
    """Whether knockknock 0.8 made it: its config names no format."""
    clock: bool = False
    """Whether the counter is the time of day in seconds (PROTOCOL.md step 1)."""
    expires: int | None = None
    """Seconds since 1970 from which on the server obeys it no more."""

    def permits(self, request: Request) -> bool:
        """Whether the allow-list names the request's port."""
        return permitted(self.ports, request.protocol, request.port)

    def __repr__(self) -> str:
        return f"<profile {self.name}>"


def check_name(name: str) -> str:
    """The name, if it can be a profile's and a file's: letters, digits, `._-`, at most 64. Raises ProfileError."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise ProfileError(
            f"'{shown(name)}' cannot name a profile: take up to 64 letters, digits, dots, dashes and underscores, "
            "the first of them a letter or a digit"
        )
    return name


def shown(name: str) -> str:
    """A name, or what was found in the place of one, on one line of printable text."""
    return name if name.isprintable() else ascii(name)[1:-1]


def parse_config(text: str, where: str) -> Mapping[str, Any]:
    """Values for Profile from a profile's config text. Raises ConfigError.

    A config without `format` is one of knockknock 0.8: classic, any TCP port.
    """
    try:
        return _parsed(text)
    except ConfigError:
        return _parse(text, where)  # raises it again, with the place in it


@lru_cache(maxsize=1024)
def _parsed(text: str) -> Mapping[str, Any]:
    """Remembered, because most of a server's profiles have the same text."""
    return _parse(text, "config")


def _parse(text: str, where: str) -> Mapping[str, Any]:
    values = ini.read(text, where, KEYS)
    if "knock_port" not in values:
        raise ConfigError(f"{where}: there must be a line knock_port = PORT")
    values["legacy"] = "format" not in values
    values["clock"] = values.pop("counter", "event") == "clock"
    values.setdefault("format", "classic")
    if values["format"] == "classic":
        _check_classic(values, where)
    return values


def _check_classic(values: Mapping[str, Any], where: str) -> None:
    """Refuse what the classic tag, which covers a TCP port and nothing else, cannot promise."""
    if values.get("bind_source"):
        raise ConfigError(f"{where}: format classic cannot bind the source; take format compact or stealth")
    if values.get("clock"):  # two machines in one second would give the difference of two tags away, for good
        raise ConfigError(f"{where}: format classic cannot count by the clock; take format compact or stealth")
    if any(one.protocol != ANY_TCP[0].protocol for one in values.get("ports", ())):
        raise ConfigError(f"{where}: format classic opens TCP ports only; take format compact or stealth for udp")


def write_config(profile: Profile) -> str:
    """The config text that parse_config() reads back."""
    lines = [
        "[main]",
        f"knock_port = {profile.knock_port}",
        f"format = {profile.format}",
        f"ports = {', '.join(map(str, profile.ports))}",
    ]
    if profile.bind_source:
        lines.append("bind_source = yes")
    if profile.single_use is not None:
        lines.append(f"single_use = {'yes' if profile.single_use else 'no'}")
    if profile.clock:
        lines.append("counter = clock")
    if profile.expires is not None:
        from . import moment  # as above

        lines.append(f"expires = {moment.show(profile.expires)}")
    return "\n".join([*lines, ""])


def parse_key(text: str, where: str) -> bytes:
    """A key of 16 or 32 bytes from its base64 text. Raises ProfileError, without the text."""
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) not in KEY_SIZES:
        raise ProfileError(f"{where}: not a key: base64 of 16 or 32 bytes is expected")
    return key


def write_key(key: bytes) -> str:
    """The text that parse_key() reads back."""
    return base64.b64encode(key).decode() + "\n"
