"""The table of sources of packets; a source's module is imported when the configuration names it."""

from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from ..errors import SourceError

if TYPE_CHECKING:
    from ..core.packet import Packet

SOURCES = {
    "file": "knockknock.sources.log_file",
    "kmsg": "knockknock.sources.kmsg",
    "nflog": "knockknock.sources.nflog",
}


class Source(Protocol):
    """The protocol of a source: open_source() of each of these modules returns one."""

    GIVES: frozenset[str]
    """Features that a format may need (core.profile.Profile.needs)."""
    path: str
    """The place where the packets come from, for people."""
    group: int | None
    """The id of the group that the daemon must keep to read on after it gave up root, or None."""

    def fileno(self) -> int:
        """A descriptor that is readable when read() has something."""

    def read(self) -> "Iterator[Packet | None]":
        """Yield the packets that have come; do not wait. Raises SourceError if it cannot go on.

        None for each line or message without a packet of ours, so that the caller can stop, and go on, anywhere.
        """

    def drain(self) -> None:
        """Take in data that could be lost before the next read(). Raises SourceError."""

    def hearing(self) -> tuple[bool, str]:
        """Return True if anything of ours was understood since the last call, and the front of a line that was not.

        The front is text for people, or "": the start of a line up to our rule's prefix, and nothing of the packet.
        """

    def complaint(self) -> str:
        """Return a sentence about what was lost since the last call, or ""."""


class Opener(Protocol):
    """The interface of a source's module. place: the path of a file, or the number of an NFLOG group."""

    def open_source(self, place: str, /) -> Source:
        """Open a source at its end, as root. Raises SourceError."""

    def look(self, place: str, /) -> Source:
        """Open a source to look at it only: take nothing that only one program can have. Raises SourceError."""


class Choice(Protocol):
    """The settings that say where packets come from; the daemon's configuration has them."""

    @property
    def source(self) -> str:
        """A key of SOURCES, or `auto`."""

    @property
    def log_file(self) -> str: ...
    @property
    def nflog_group(self) -> int: ...


def open_source(choice: Choice, *, look: bool = False) -> Source:
    """Open the source that the settings name; `auto` prefers a log file that is in use. Raises SourceError.

    look: only to look at it, so that a running daemon is not disturbed.
    """
    name, place, passed_by = choose(choice)
    module = cast(Opener, import_module(SOURCES[name]))
    source = module.look(place) if look else module.open_source(place)
    if passed_by:
        source.path += f" ({passed_by})"
    return source


def choose(choice: Choice) -> tuple[str, str, str]:
    """Return a key of SOURCES, the place to read, and the reason why `auto` passes over a log file, or "".

    Raises SourceError if /dev/kmsg is to be read and there is none.
    """
    from os.path import exists

    from . import log_writer
    from .kmsg import given

    name, path, why = choice.source, choice.log_file, ""
    ring = exists("/dev/kmsg") or given()
    if name == "auto" and exists(path):
        if log_writer.stale(path):
            why = f"{path} was not written to since this machine's boot"
        elif ring and log_writer.gone(path):  # perhaps in the middle of a rotation: without a ring the file is better
            why = f"no program has {path} open to write to it"
    if name == "auto":
        name = "file" if exists(path) and not why else "kmsg"
    if name == "kmsg" and not ring:
        absent = why or f"there is no {path}"
        lacking = f", and {absent}" if choice.source == "auto" else ""
        raise SourceError(f"there is no /dev/kmsg here, as in many containers{lacking}: set source = nflog")
    place = {"file": path, "kmsg": "/dev/kmsg", "nflog": str(choice.nflog_group)}[name]
    return name, place, why
