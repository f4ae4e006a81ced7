"""Which profile has opened which door, so that nobody shuts another's. Pure."""

import heapq

from .grant import Grant

_Door = tuple[bytes, int, int]
"""Source address, protocol, port."""


class Doors:
    """Doors from their opening to the end of their time. One that is used up before counts until then.

    A daemon that has just started knows of none: what one that was killed left behind, any profile that may open it may
    shut.
    """

    def __init__(self) -> None:
        self._open: dict[_Door, dict[str, float]] = {}
        """When the time of each profile that opened a door is over."""
        self._ends: list[tuple[float, _Door]] = []
        """The same times as a heap, and those of doors that were opened again or shut since."""

    def __len__(self) -> int:
        return len(self._open)

    def opened(self, profile: str, grant: Grant, now: float) -> None:
        """Take note of a door. now: seconds on a monotonic clock."""
        self._forget(now)
        door = grant.address, grant.protocol, grant.port
        self._open.setdefault(door, {})[_client(profile)] = now + grant.seconds
        heapq.heappush(self._ends, (now + grant.seconds, door))

    def shut(self, profile: str, grant: Grant, now: float) -> str:
        """Forget that a profile has a door open; the name of another one that has it open, or "" if it may be shut."""
        self._forget(now)
        holders = self._open.get((grant.address, grant.protocol, grant.port), {})
        holders.pop(_client(profile), None)
        return min((name for name, end in holders.items() if end > now), default="")

    def _forget(self, now: float) -> None:
        while self._ends and self._ends[0][0] <= now:
            _, door = heapq.heappop(self._ends)
            if all(end <= now for end in self._open.get(door, {}).values()):
                self._open.pop(door, None)


def _client(profile: str) -> str:
    """A client has two profiles while its keys are rotated: NAME and NAME.old."""
    return profile.removesuffix(".old")
