"""A counter file."""

import os
import re
import zlib

from knockknock.core.counter_text import MAX_COUNTER
from knockknock.errors import CounterError
from knockknock.profiles.counters import read_counter

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
    b"00000000000000000041 d7eeb7b1\n" * 2,
    b"00000000000000000000 c4854223\n00000000000000000041 d7eeb7b1\n",
    b"00000000000000000041 d7eeb7b1\n00000000000000000099 d7eeb7b1\n",
]
_FD = os.memfd_create("counter", os.MFD_CLOEXEC)


def target(data: bytes) -> None:
    """A file raises CounterError, or is digits, or two slots: the higher counts, or one more than what is left."""
    os.ftruncate(_FD, 0)
    os.pwrite(_FD, data, 0)
    try:
        counter = read_counter(f"/proc/self/fd/{_FD}")
    except CounterError:
        return
    assert 0 <= counter <= MAX_COUNTER + 1
    text = data.decode("utf-8", "replace")
    if (digits := text.strip()).isdigit():
        assert set(digits) <= set("0123456789")
        assert int(digits) == counter
        return
    assert len(text) == 60
    slots = [re.fullmatch(r"([0-9]{20}) ([0-9a-f]{8})\n", text[at : at + 30]) for at in (0, 30)]
    whole = [int(one[1]) for one in slots if one and f"{zlib.crc32(one[1].encode()):08x}" == one[2]]
    good = [one for one in whole if one <= MAX_COUNTER + 1]
    assert counter == min(max(good) + 2 - len(good), MAX_COUNTER + 1)
