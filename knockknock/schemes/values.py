"""Return types of the schemes' methods: packets to send, and header values by which the kernel knows a knock."""

from collections.abc import Callable, Iterator
from typing import NamedTuple


class Sending(NamedTuple):
    """A packet that any program may send: the SYN of a connect(), or a UDP datagram."""

    protocol: int
    port: int
    payload: bytes = b""
    """Empty for TCP."""


class Next(NamedTuple):
    """The sealed fields that a profile's next knocks can have, for a set of the kernel."""

    set: str
    """The name of a set in root.record.EXPECTED."""
    each: int
    """Values for each counter."""
    first: int
    """The next counter that the server accepts."""
    values: Callable[[int, int], Iterator[bytes]]
    """Makes the values of the counters from one up to another, which is excluded."""
