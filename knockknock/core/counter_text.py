"""Converts a counter to and from a file's text: one number, or two slots that are written alternately. Pure.

To replace a file durably takes two syncs while a client waits; to overwrite a part of it takes one. So a server keeps
the last two counters of a client, each in a line with its CRC-32: a crash can leave only the older slot half written,
and the other is still whole.

A counter that does not follow the one before (after lost knocks, or by the clock) goes into both slots, one after the
other. So a damaged slot can have held at most one more than the other, whether it was the newer one or the older one
half written.
"""

import re
from binascii import crc32

from ..errors import CounterError

MAX_COUNTER = 2**64 - 1
"""The counter is a u64 in the authenticated message (PROTOCOL.md step 4)."""

SLOT = 30
"""Bytes: 20 digits, a space, 8 hexadecimal digits, a newline. Both are in one sector of a disk, even the smallest."""

_SLOT = re.compile(r"([0-9]{20}) ([0-9a-f]{8})\n").fullmatch


def parse_counter(text: str, where: str) -> int:
    """Return the next counter to be used or accepted: the higher of two slots, or one more than the only valid slot.

    Raises CounterError.
    """
    if found := [value for value in _slots(text) if value is not None]:
        return min(max(found) + damaged(text), MAX_COUNTER + 1)
    text = text.strip(" \t\n\v\f\r")  # ASCII only: strip() alone removes all Unicode spaces
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and int(text) <= MAX_COUNTER + 1):
        raise CounterError(
            f"{where} does not hold a counter; have new keys made on the server (knockknock-genprofile rotate NAME)"
        )
    return int(text)


def slot(counter: int) -> bytes:
    """Return a slot as bytes; a file without slots gets it twice."""
    digits = b"%020d" % counter
    return b"%b %08x\n" % (digits, crc32(digits))


def damaged(text: str) -> bool:
    """Return True if exactly one of two slots is invalid."""
    return len({value is None for value in _slots(text)}) == 2


def places(data: bytes, counter: int) -> list[int]:
    """Return the offsets to write a counter's slot at, in this order; empty if the file has no valid slot."""
    values = [-1 if value is None else value for value in _slots(data.decode("latin-1"))]
    if not values or max(values) < 0:
        return []
    older = values.index(min(values))
    return [SLOT * older] if counter == max(values) + 1 else [SLOT * older, SLOT * (1 - older)]


def _slots(text: str) -> list[int | None]:
    """The value of each slot, None for an invalid one; empty if the length is not that of two slots."""
    return [_value(text[at : at + SLOT]) for at in (0, SLOT)] if len(text) == 2 * SLOT else []


def _value(text: str) -> int | None:
    found = _SLOT(text)
    good = found and int(found[2], 16) == crc32(found[1].encode()) and int(found[1]) <= MAX_COUNTER + 1
    return int(found[1]) if found and good else None
