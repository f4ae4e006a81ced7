"""Records which profile opened each door, so that no profile shuts another's. Pure."""

import heapq
from collections import deque
from collections.abc import Callable, Iterator

from ..core.profile import SHARE, Profile
from ..errors import GrantError
from ..root.record import Grant, Order

_Door = tuple[bytes, int, int]
"""Source address, protocol, port."""


class DoorOwners:
    """The open doors, each until the end of its time, even if it is used up before.

    After a start there are none: doors that a killed daemon left may be shut by any profile that may open them.
    """

    def __init__(self) -> None:
        self._open: dict[_Door, dict[str, float]] = {}
        """The end of the time of each client that opened a door, on the monotonic clock."""
        self._ends: list[tuple[float, _Door]] = []
        """A heap of these times, and of those of doors that were opened again or shut since."""
        self._asked: dict[str, deque[float]] = {}
        """The times at which each client asked for doors in the last minute; the client that asked last is the last."""

    def __len__(self) -> int:
        return len(self._open)

    def ask(self, profile: Profile, grant: Grant, now: float) -> None:
        """Raise GrantError if another client has a door open that is to be shut, or the rate limit is reached.

        now: seconds on a monotonic clock. A door to be shut is forgotten for this client either way.
        """
        if grant.order is not Order.CLOSE:
            self._admit(profile, now)
        elif other := self.shut(profile.name, grant, now):
            raise GrantError(f"{other} has it open, too")

    def _admit(self, profile: Profile, now: float) -> None:
        """Count one more door within the client's rate limit, so that no client uses up the doors of all."""
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
        """Record an open door. now: seconds on a monotonic clock."""
        self._forget(now)
        door = grant.address, grant.protocol, grant.port
        self._open.setdefault(door, {})[_client(profile)] = now + grant.seconds
        heapq.heappush(self._ends, (now + grant.seconds, door))

    def shut(self, profile: str, grant: Grant, now: float) -> str:
        """Forget a client's door, and return the name of another client that has it open, or "" if it may be shut."""
        self._forget(now)
        holders = self._open.get((grant.address, grant.protocol, grant.port), {})
        holders.pop(_client(profile), None)
        return min((name for name, end in holders.items() if end > now), default="")

    def left(self, gone: Callable[[str], bool], now: float) -> Iterator[tuple[str, Grant]]:
        """Forget the doors of removed profiles. Yield client and closing grant of each that no other client has open.

        gone: returns True for the name of a removed profile.
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
    """Return the client of a profile: while its keys are rotated, it has two profiles, NAME and NAME.old."""
    return profile.removesuffix(".old")
