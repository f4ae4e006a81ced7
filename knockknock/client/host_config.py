"""Parses ~/.knockknock/config, the client's settings by host, in the grammar of ssh_config(5)."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from ..core.request import parse_port
from ..errors import ConfigError

MAX_TIMEOUT = 3600.0
"""Seconds."""


class Host(NamedTuple):
    """Settings of one host; None for each that the file does not set."""

    host_name: str | None = None
    """The name to resolve instead of the host that was asked for."""
    profile: str | None = None
    """The directory in ~/.knockknock."""
    ports: tuple[tuple[int, int], ...] | None = None
    """Protocol and port of each knock."""
    timeout: float | None = None
    source: str | None = None
    """The source address that the server sees, as text."""
    address_family: str | None = None
    """any, inet or inet6."""


def seconds(text: str) -> float:
    """A time from decimal text, above 0 and an hour at most. Raises ConfigError."""
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,6})?", text) or not 0 < float(text) <= MAX_TIMEOUT:
        raise ConfigError(f"{text!r} is not a number of seconds, above 0 and up to {MAX_TIMEOUT:.0f}")
    return float(text)


def _one(make: Callable[[str], Any]) -> Callable[[list[str]], Any]:
    def value(words: list[str]) -> Any:
        if len(words) != 1:
            raise ConfigError("one word is expected")
        return make(words[0])

    return value


def _matching(pattern: str, what: str) -> Callable[[list[str]], str]:
    def match(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ConfigError(f"{text!r} is not {what}")
        return text

    return _one(match)


def _ports(words: list[str]) -> tuple[tuple[int, int], ...]:
    if not words:
        raise ConfigError("ports are expected, such as 22 or 51820/udp")
    return tuple(parse_port(word) for word in words)


_KEYS: dict[str, tuple[str, Callable[[list[str]], Any]]] = {
    "hostname": ("host_name", _matching(r"[^\s/-][^\s/]*", "a host name")),
    "profile": ("profile", _matching(r"[^\s/.-][^\s/]*", "the name of a profile")),
    "ports": ("ports", _ports),
    "timeout": ("timeout", _one(seconds)),
    "source": ("source", _matching(r"[0-9A-Fa-f:.]+", "an IP address")),
    "addressfamily": ("address_family", _matching("any|inet|inet6", "any, inet or inet6")),
}
KEYWORDS = ("Host", "HostName", "Profile", "Ports", "Timeout", "Source", "AddressFamily")
"""As people write them; any case is taken."""


def parse(text: str, where: str, host: str) -> Host:
    """The settings of a host: for each key the first value that applies. Raises ConfigError.

    where: the file's path, for messages. Lines that do not apply are checked all the same.
    """
    found: dict[str, Any] = {}
    applies = True
    for number, line in enumerate(text.split("\n"), 1):
        try:
            keyword, words = _words(line)
            if keyword == "host":
                applies = _applies(words, host)
            elif keyword:
                name, value = _value(keyword, words)
                if applies:
                    found.setdefault(name, value)
        except ConfigError as error:
            raise ConfigError(f"{where}:{number}: {error}") from None
    return Host(**found)


def _words(line: str) -> tuple[str, list[str]]:
    """The keyword of a line in lower case and the words after it; "" for a line that says nothing."""
    line = line.strip()
    if not line or line.startswith("#"):
        return "", []
    begin = re.match(r"([A-Za-z]+)(\s*=\s*|\s+|$)", line)
    if not begin:
        raise ConfigError("not of the form Keyword value")
    rest = line[begin.end() :]
    words = re.findall(r'(?:^|(?<=\s))#.*|"([^"]*)"|([^\s"]+)|(")', rest)
    if any(mark for _, _, mark in words):
        raise ConfigError("a quotation mark is not closed")
    return begin[1].lower(), [quoted or bare for quoted, bare, _ in words if quoted or bare]


def _value(keyword: str, words: list[str]) -> tuple[str, Any]:
    if keyword not in _KEYS:
        raise ConfigError(f"there is no keyword '{keyword}'; there are {', '.join(KEYWORDS)}")
    name, make = _KEYS[keyword]
    try:
        return name, make(words)
    except ConfigError as error:
        spelling = next(one for one in KEYWORDS if one.lower() == keyword)
        raise ConfigError(f"{spelling}: {error}") from None


def _applies(patterns: list[str], host: str) -> bool:
    """Return whether one of the patterns matches the host, and none with a ! before it."""
    if not patterns:
        raise ConfigError("Host: a pattern is expected")
    hits = [pattern for pattern in patterns if _matches(pattern.removeprefix("!"), host)]
    return bool(hits) and not any(pattern.startswith("!") for pattern in hits)


def _matches(pattern: str, host: str) -> bool:
    """Match a host with * (any characters) and ? (any one); case does not count. Linear in memory."""
    pattern, host = pattern.lower(), host.lower()
    reach = {0}
    for char in re.sub(r"\*+", "*", pattern):
        if char == "*":
            reach = set(range(min(reach), len(host) + 1))
        else:
            reach = {at + 1 for at in reach if at < len(host) and char in ("?", host[at])}
        if not reach:
            return False
    return len(host) in reach
