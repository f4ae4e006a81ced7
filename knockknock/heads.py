"""Which profiles may have said the packet that begins like this: a multimap from 32-bit heads to small numbers.

One array with open addressing and linear probing: 8 bytes an entry where a dict of lists takes some 200. Pure.
"""

from array import array

_FULL = 0.6
"""The share of places in use above which the array doubles; beyond it the runs that a search walks grow fast."""


class Heads:
    """Pairs of a head (0 to 2^32-1) and a number (0 to 2^32-2), each in one 64-bit place; an empty place is 0."""

    def __init__(self, expected: int = 0) -> None:
        """expected: how many pairs there will be, so that the array need not grow on the way."""
        size = 1 << max(6, int(expected / _FULL).bit_length())
        self._places = array("Q", bytes(8 * size))
        self._mask = size - 1
        self._used = 0

    def __len__(self) -> int:
        return self._used

    def find(self, head: int) -> list[int]:
        """The numbers that stand with a head."""
        places, mask, found = self._places, self._mask, []
        at = head & mask
        while place := places[at]:
            if place >> 32 == head:
                found.append((place & 0xFFFFFFFF) - 1)
            at = (at + 1) & mask
        return found

    def add(self, head: int, number: int) -> None:
        """Put a pair in."""
        if self._used > _FULL * self._mask:
            self._grow()
        self._put(head << 32 | (number + 1))
        self._used += 1

    def _put(self, place: int) -> None:
        places, mask = self._places, self._mask
        at = (place >> 32) & mask
        while places[at]:
            at = (at + 1) & mask
        places[at] = place

    def _grow(self) -> None:
        before = self._places
        self._places = array("Q", bytes(16 * len(before)))
        self._mask = len(self._places) - 1
        for place in filter(None, before):
            self._put(place)

    def remove(self, head: int, number: int) -> None:
        """Take a pair out. Raises KeyError if it is not there."""
        places, mask = self._places, self._mask
        at, wanted = head & mask, head << 32 | (number + 1)
        while places[at] != wanted:
            if not places[at]:
                raise KeyError(head)
            at = (at + 1) & mask
        # What follows moves up, or a search that begins before the gap would end at it (Knuth 6.4, algorithm R).
        gap = at
        while place := places[at := (at + 1) & mask]:
            if (at - ((place >> 32) & mask)) & mask >= (at - gap) & mask:
                places[gap], gap = place, at
        places[gap] = 0
        self._used -= 1
