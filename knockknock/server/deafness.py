"""Detects that the daemon misses packets that the kernel logs, from counts that its caller supplies. Pure.

A log file that nobody writes to, or lines with an unknown front, look like a quiet day. So the rule's counter is
compared with the packets heard, whenever something else has woken the daemon.
"""

from collections.abc import Callable

from ..errors import FirewallError, GrantError

SELDOM, OFTEN = 60.0, 5.0
"""The least seconds between two queries of the kernel: normally, and while deafness is suspected."""
LATE = 5.0
"""Seconds that a line may take through a syslog daemon."""


class Deafness:
    """The packets logged and heard since both were last seen to agree."""

    def __init__(self, path: str, logged: Callable[[], int]) -> None:
        """path: of the source, for people. logged: asks the kernel for the number of packets that the rule has logged.

        It may raise FirewallError and GrantError.
        """
        self._path, self._ask = path, logged
        self._logged = 0
        self._asked = [-SELDOM, -SELDOM]
        """Time of the last query without an unknown front, and of the last due to one; each has its own pause."""
        self._heard, self._front, self._said = False, "", False
        self._since: float | None = None
        """The time at which they were first seen to disagree."""

    def notice(self, hearing: tuple[bool, str], now: float) -> str:
        """Return a sentence about what is wrong, once; "" for nothing, or if the kernel was asked recently.

        hearing: the result of sources.Source.hearing(). now: seconds on a monotonic clock.
        """
        self._heard, self._front = self._heard or hearing[0], hearing[1] or self._front
        sure = bool(self._front)
        pause = OFTEN if (sure or self._since is not None) and not self._said else SELDOM
        if now - self._asked[sure] < pause:
            return ""
        self._asked[sure] = now
        problem = self.now(now)
        if not problem or self._said or not (sure or (self._since is not None and now - self._since >= LATE)):
            return ""
        self._said = True
        return problem

    def now(self, now: float) -> str:
        """Return a sentence about what is wrong now, or "". A line may still be on its way, for LATE seconds."""
        try:
            count = self._ask()
        except (FirewallError, GrantError):  # the next order of a knock reports it
            return ""
        more = count - self._logged
        if self._heard or more < 0:  # negative: the rules were placed again
            self._logged, self._heard, self._since, self._said = count, False, None, False
            more = 0
        if not more:
            self._front = ""  # it was not a line of our rule
            return ""
        self._since = now if self._since is None else self._since
        why = "none came there" if now - self._since >= LATE else "none came there yet"
        if self._front:
            why = f'their lines are not understood there, one begins "{self._front}"'
        return f"deaf at {self._path}: the firewall has logged {more} packet(s) to knock ports, but {why}"
