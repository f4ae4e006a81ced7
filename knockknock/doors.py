"""Remembers which profile opened which door, so that none shuts another's. Pure."""

import heapq
from collections import deque
from collections.abc import Callable, Iterator

from .errors import GrantError
from .grant import Grant, Order
from .schemes import SHARE, Profile

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
        self._asked: dict[str, deque[float]] = {}
        """When each client asked for doors in the last minute; who asked last is the last."""

    def __len__(self) -> int:
        return len(self._open)

    def ask(self, profile: Profile, grant: Grant, now: float) -> None:
        """Raises GrantError if another has the door open that is to be shut, or the profile's share is used up.

        now: seconds on a monotonic clock.
        """
        if grant.order is not Order.CLOSE:
            self._admit(profile, now)
        elif other := self.shut(profile.name, grant, now):
            raise GrantError(f"{other} has it open, too")

    def _admit(self, profile: Profile, now: float) -> None:
        """Count one more door, unless it is refused: so one client does not use up the doors of all."""
        while self._asked and next(iter(self._asked.values()))[-1] <= now - 60:
            del self._asked[next(iter(self._asked))]
        times, most = self._asked.get(_client(profile.name), deque()), profile.doors_per_minute or SHARE
        while times and times[0] <= now - 60:
            times.popleft()
        if len(times) >= most:
            raise GrantError(
                f"it opened {most} doors within a minute, its share: raise doors_per_minute in the profile's config"
            )
        times.append(now)
        self._asked.pop(_client(profile.name), None)
        self._asked[_client(profile.name)] = times

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

    def left(self, gone: Callable[[str], bool], now: float) -> Iterator[tuple[str, Grant]]:
        """Forget what profiles that are gone have open: each with the record that shuts it, if nobody else has it open.

        gone: whether a profile, by its name, is heard no more.
        """
        self._forget(now)
        for (address, protocol, port), holders in list(self._open.items()):
            for client in [one for one in holders if gone(one) and gone(f"{one}.old")]:
                close = Grant(Order.CLOSE, address, protocol, port, 0)
                if not self.shut(client, close, now):
                    yield client, close

    def _forget(self, now: float) -> None:
        while self._ends and self._ends[0][0] <= now:
            _, door = heapq.heappop(self._ends)
            if all(end <= now for end in self._open.get(door, {}).values()):
                self._open.pop(door, None)


def _client(profile: str) -> str:
    """A client has two profiles while its keys are rotated: NAME and NAME.old."""
    return profile.removesuffix(".old")
