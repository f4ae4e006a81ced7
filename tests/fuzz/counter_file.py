"""A counter file."""

import os

from knockknock.counters import read_counter
from knockknock.errors import CounterError
from knockknock.profile import MAX_COUNTER

CORPUS = [
    b"0\n",
    b"41\n",
    b"18446744073709551615\n",
    b"18446744073709551616",
    b" 7 \n",
    b"007\n",
    b"-1\n",
    b"1e3\n",
    b"",
]
_FD = os.memfd_create("counter", os.MFD_CLOEXEC)


def target(data: bytes) -> None:
    """A file raises CounterError, or holds decimal digits whose value is at most one more than the last counter."""
    os.ftruncate(_FD, 0)
    os.pwrite(_FD, data, 0)
    try:
        counter = read_counter(f"/proc/self/fd/{_FD}")
    except CounterError:
        return
    assert 0 <= counter <= MAX_COUNTER + 1
    digits = data.decode("utf-8").strip()
    assert set(digits) <= set("0123456789")
    assert int(digits) == counter
