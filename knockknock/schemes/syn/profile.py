"""The encrypted SYN's profile: keys, knock port, format, allow-list, and its text. Pure.

seal.py seals knocks and listener.py recognises them; they are apart, so that a program that needs neither does not
import them.
"""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, NamedTuple

from ...core import ini
from ...core.counter_text import parse_counter
from ...core.key_text import parse_key
from ...core.key_text import write_key as write_key
from ...core.profile import KnockPort
from ...core.request import ANY_TCP, TCP, Ports, Request, parse_ports, permitted, port_number
from ...errors import ConfigError, CounterError
from .. import door_options

FORMATS = ("compact", "classic", "stealth")
"""The sets of header fields that carry a knock (PROTOCOL.md step 6)."""
SECRETS = ("cipher_key", "mac_key")
KEY = "a blob of 16 or 32 bytes"
read_key = parse_key
RAW = True


def _moment(text: str) -> int:
    from ...core import dates  # imported here because most profiles do not expire

    return dates.parse(text)


KEYS: ini.Keys = {
    "knock_port": port_number,
    "format": ini.one_of(*FORMATS),
    "ports": parse_ports,
    "bind_source": ini.boolean,
    **door_options.KEYS,
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
    """One of FORMATS."""
    ports: tuple[Ports, ...] = ANY_TCP
    bind_source: bool = False
    """True if the tag covers the source address."""
    single_use: bool | None = None
    """None for the daemon's default."""
    legacy: bool = False
    """True if knockknock 0.8 made it: its config names no format."""
    clock: bool = False
    """True if the counter is the time of day in seconds (PROTOCOL.md step 1)."""
    expires: int | None = None
    """The time from which the server refuses its knocks, in seconds since 1970; None for never."""
    delay: int | None = None
    """Seconds; None for the daemon's default."""
    doors_per_minute: int | None = None
    """None for core.profile.SHARE."""

    @property
    def scheme(self) -> str:
        return "syn"

    @property
    def kind(self) -> str:
        return self.format

    @property
    def knock_ports(self) -> tuple[KnockPort, ...]:
        return ((TCP, self.knock_port),)

    @property
    def tries(self) -> int:
        return 1

    @property
    def where(self) -> str:
        return f"tcp/{self.knock_port}"

    @property
    def any_flags(self) -> bool:
        return False

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"tcp timestamps"}) if self.format == "stealth" else frozenset()

    @property
    def file(self) -> str:
        return ""

    def permits(self, request: Request) -> bool:
        """Return True if the allow-list names the request's port."""
        return permitted(self.ports, request.protocol, request.port)

    def __repr__(self) -> str:
        return f"<profile {self.name}>"


def parse(values: Mapping[str, Any], where: str) -> Profile:
    """A profile without name and keys. Raises ConfigError.

    A config without `format` is one of knockknock 0.8: classic, any TCP port.
    """
    if "knock_port" not in values:
        raise ConfigError(f"{where}: there must be a line knock_port = PORT")
    found = {"format": "classic", "legacy": "format" not in values, **values}
    found["clock"] = found.pop("counter", "event") == "clock"
    if found["format"] == "classic":
        _check_classic(found, where)
    return Profile("", b"", b"", **found)


def _check_classic(values: Mapping[str, Any], where: str) -> None:
    """Raise ConfigError for keys that the classic tag cannot support, as it covers a TCP port and nothing else."""
    if values.get("bind_source"):
        raise ConfigError(f"{where}: format classic cannot bind the source; take format compact or stealth")
    if values["clock"]:  # two clients in one second would reveal the XOR of two tags, for good
        raise ConfigError(f"{where}: format classic cannot count by the clock; take format compact or stealth")
    if any(one.protocol != ANY_TCP[0].protocol for one in values.get("ports", ())):
        raise ConfigError(f"{where}: format classic opens TCP ports only; take format compact or stealth for udp")


def write(profile: Profile) -> Iterable[str]:
    """The lines of a config that parse() reads back."""
    yield f"knock_port = {profile.knock_port}"
    yield f"format = {profile.format}"
    yield f"ports = {', '.join(map(str, profile.ports))}"
    if profile.bind_source:
        yield "bind_source = yes"
    yield from door_options.write(profile)
    if profile.clock:
        yield "counter = clock"
    if profile.expires is not None:
        from ...core import dates  # imported here as in _moment()

        yield f"expires = {dates.show(profile.expires)}"


def unshared(profile: Profile) -> Iterable[Hashable]:
    """Both keys as one secret, whatever the format: a knock needs both."""
    yield profile.cipher_key, profile.mac_key


def first(_profile: Profile) -> str:
    """The counter of an unused profile."""
    return "0\n"


counter = first


def recall(profile: Profile, text: str | None, where: str, latest: int) -> int:
    """Return the next counter that the server accepts. Raises CounterError.

    A missing counter is an error: to begin again at 0 would accept every knock that was ever recorded. A clock profile
    may lose it: every counter that can have been accepted is below `latest`, the end of the window of now.
    """
    if text is None and profile.clock:
        return latest
    if text is None:
        raise CounterError(
            f"{where} is gone, and with it the memory of used knocks: remove {profile.name} and mint it anew"
        )
    return parse_counter(text, where)
