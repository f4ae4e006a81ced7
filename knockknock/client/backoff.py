"""Computes the times of connection attempts, which come sooner than the kernel's own retries."""

from collections.abc import Iterator
from itertools import pairwise

_AGAIN = (1.0, 3.0)
"""Seconds after the first knock at which to knock again. The first is the initial retransmission timeout of TCP (RFC
6298 section 2): later than any usual round trip, so that a slow answer is not taken for a lost knock."""
_FIRST = 0.002
"""Seconds from a knock to the attempt after it; a daemon on a fast machine has opened the door by then."""
_GROWTH = 1.5
_LONGEST = 0.25
"""Seconds between two attempts at most."""


def attempts(timeout: float) -> Iterator[tuple[float, bool]]:
    """Yield the times of connection attempts, each with True if a new knock is due right before it.

    Times are seconds since the first knock, ascending, above 0 and below timeout (seconds, above 0). Earlier attempts
    are kept, as their answers may be on the way. After the last time, wait for answers until timeout.
    """
    starts = (0.0, *(start for start in _AGAIN if start < timeout), timeout)
    for start, end in pairwise(starts):
        if start:
            yield start, True
        step = _FIRST
        at = start + step
        while at < end:
            yield at, False
            step = min(step * _GROWTH, _LONGEST)
            at += step
