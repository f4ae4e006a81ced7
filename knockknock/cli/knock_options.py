"""Parses the options of knockknock, with a short cut for the commonest command lines."""

from collections.abc import Sequence

from ..core.request import parse_port, port_number
from ..errors import ConfigError


class Options:
    """The options of one call; argparse fills in the attributes."""

    host = ""
    port: int | None = None
    """Where --stdio connects to."""
    ports: Sequence[tuple[int, int]] | None = None
    """Protocol and port of each knock."""
    timeout: float | None = None
    """Seconds."""
    family: int | None = None
    source: str | None = None
    pcap: str | None = None
    stdio = close = dry_run = explain = enroll = replace = list = doctor = send = False


def plain(words: Sequence[str]) -> Options | None:
    """Return the options of `[-p PORT]... [--stdio] HOST [PORT]`; None for all else, which argparse reads.

    Importing argparse and describing the options to it takes a tenth of the time of a knock.
    """
    names: list[str] = []
    found, ports, rest = Options(), [], iter(words)
    try:
        for word in rest:
            if names or not word.startswith("-"):
                names.append(word)
            elif word == "-p":
                ports.append(parse_port(next(rest, "")))
            elif word == "--stdio":
                found.stdio = True
            else:
                return None
        found.host, found.port = names[0], port_number(names[1]) if names[1:] else None
    except (ConfigError, IndexError):
        return None
    found.ports = ports or None
    return None if names[2:] or any(name.startswith("-") for name in names) else found
