"""Finds the profiles that a packet may be a knock of, by its first 32 sealed bits; junk costs one look-up.

Tables with open addressing and linear probing take 8 bytes a place, where a dict of lists takes some 200. To copy a
full table into a larger one would take seconds for millions of pairs, and no knock would be heard meanwhile. Instead a
further table is added, as large as all before it. Pure.
"""

import mmap

_SMALLEST = 1 << 10
"""The fewest places of the first table: with few profiles it is nearly empty, and a search ends at once."""
_FULL = 0.6
"""The share of used places at which a table is full; beyond it the runs that a search walks grow fast."""


class _Table:
    """Places of 64 bits; an empty one is 0."""

    __slots__ = ("mask", "places", "room")

    def __init__(self, size: int) -> None:
        """size: a power of 2."""
        # Not an array: the zeros of an anonymous mapping cost nothing before they are used.
        memory = mmap.mmap(-1, 8 * size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.places = memoryview(memory).cast("Q")
        self.mask = size - 1
        self.room = int(_FULL * size)
        """Pairs that still fit."""

    def put(self, place: int) -> None:
        places, mask = self.places, self.mask
        at = (place >> 32) & mask
        while places[at]:
            at = (at + 1) & mask
        places[at] = place
        self.room -= 1

    def take(self, wanted: int) -> bool:
        """Remove a pair, and return whether it was there."""
        places, mask = self.places, self.mask
        at = (wanted >> 32) & mask
        while places[at] != wanted:
            if not places[at]:
                return False
            at = (at + 1) & mask
        # Later pairs move up, or a search that begins before the gap would end at it (Knuth 6.4, algorithm R).
        gap = at
        while place := places[at := (at + 1) & mask]:
            if (at - ((place >> 32) & mask)) & mask >= (at - gap) & mask:
                places[gap], gap = place, at
        places[gap] = 0
        self.room += 1
        return True


class Candidates:
    """Pairs of a prefix (0 to 2^32-1) and a number (0 to 2^32-2), each in one 64-bit place."""

    def __init__(self, expected: int = 0) -> None:
        """expected: the number of pairs that the first table has room for."""
        self._tables = [_Table(max(_SMALLEST, 1 << int(expected / _FULL).bit_length()))]
        self._used = 0

    def __len__(self) -> int:
        return self._used

    def find(self, prefix: int) -> list[int]:
        """The numbers paired with a prefix."""
        found = []
        for table in self._tables:
            places, mask = table.places, table.mask
            at = prefix & mask
            while place := places[at]:
                if place >> 32 == prefix:
                    found.append((place & 0xFFFFFFFF) - 1)
                at = (at + 1) & mask
        return found

    def add(self, prefix: int, number: int) -> None:
        """Add a pair to the first table with room."""
        for table in self._tables:
            if table.room:
                break
        else:
            table = _Table(sum(table.mask + 1 for table in self._tables))
            self._tables.append(table)
        table.put(prefix << 32 | (number + 1))
        self._used += 1

    def remove(self, prefix: int, number: int) -> None:
        """Remove a pair. Raises KeyError if it is not there."""
        wanted = prefix << 32 | (number + 1)
        if not any(table.take(wanted) for table in self._tables):
            raise KeyError(prefix)
        self._used -= 1
