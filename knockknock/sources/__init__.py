"""Where packets come from: a configuration word -> the module that knows it, imported when asked for."""

from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from ..errors import SourceError

if TYPE_CHECKING:
    from ..config import Config
    from ..packet import Packet

SOURCES = {
    "file": "knockknock.sources.kernlog",
    "kmsg": "knockknock.sources.kmsg",
    "nflog": "knockknock.sources.nflog",
}


class Source(Protocol):
    """What each of these modules' open_source() returns."""

    GIVES: frozenset[str]
    """What a format may need (schemes.Scheme.needs)."""
    path: str
    """Where the packets come from, for people."""
    group: int | None
    """A group that the daemon must stay in to read on after root is gone, or None."""

    def fileno(self) -> int:
        """A descriptor that is readable when read() has something."""

    def read(self) -> "Iterator[Packet | None]":
        """The packets that have come, until there are no more; does not wait. Raises SourceError if it cannot go on.

        None for each thing read that is no packet of ours, so that whoever reads can stop, and go on, anywhere.
        """

    def drain(self) -> None:
        """Take in what could be lost before the next read(). Raises SourceError."""

    def hearing(self) -> tuple[bool, str]:
        """Whether anything of ours was understood since the last call, and how a line began of which it was not.

        The latter is text for people, or "": what came before the words of our rule, and nothing of the packet.
        """

    def complaint(self) -> str:
        """What was lost since the last call, in a sentence; empty for nothing."""


class Opener(Protocol):
    """A source's module. place: the path of a file, or the number of an NFLOG group."""

    def open_source(self, place: str, /) -> Source:
        """Open at the end of what is there, as root. Raises SourceError."""

    def look(self, place: str, /) -> Source:
        """The same for a look, and not to be read: without taking what only one program can have."""


def open_source(config: "Config", *, look: bool = False) -> Source:
    """The source that a configuration names; `auto` takes the log file where there is one. Raises SourceError.

    look: only for a look at it, so that a daemon that runs is not disturbed.
    """
    name, place = choose(config)
    module = cast(Opener, import_module(SOURCES[name]))
    source = module.look(place) if look else module.open_source(place)
    if config.source == "auto" and name == "kmsg" and _stale(config.log_file):
        source.path += f" ({config.log_file} was not written to since this machine's boot)"
    return source


def _stale(path: str) -> bool:
    """Whether there is a file that nobody has written to since the boot, when the kernel had much to say."""
    import os

    try:
        with open("/proc/stat") as file:
            boot = next((int(line.split()[1]) for line in file if line.startswith("btime ")), 0)
        return os.stat(path).st_mtime < boot
    except OSError:
        return False


def choose(config: "Config") -> tuple[str, str]:
    """A word of SOURCES and the place that it is to read."""
    from os.path import exists

    from .kmsg import given

    name = config.source
    if name == "nflog":
        return name, str(config.nflog_group)
    if name == "auto":
        name = "file" if exists(config.log_file) and not _stale(config.log_file) else "kmsg"
    if name == "kmsg" and not exists("/dev/kmsg") and not given():
        raise SourceError(f"there is neither {config.log_file} nor /dev/kmsg to read the kernel's log from")
    return name, config.log_file if name == "file" else "/dev/kmsg"
