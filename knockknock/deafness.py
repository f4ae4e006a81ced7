"""Notices that the kernel logs packets which the daemon does not hear. Pure; its caller asks the kernel.

A log file that nobody writes to, or lines with a front that is not understood, look like a quiet day. So what the rule
has counted is held against what was heard, whenever something else has woken the daemon.
"""

from collections.abc import Callable

from .errors import FirewallError, GrantError

SELDOM, OFTEN = 60.0, 5.0
"""Seconds between two questions to the kernel at least; and while something is suspected."""
LATE = 5.0
"""Seconds that a line may take through a syslog daemon."""


class Deafness:
    """Counts of logged and of heard packets since both were last seen to agree."""

    def __init__(self, path: str, logged: Callable[[], int]) -> None:
        """path: of the source, for people. logged: asks the kernel how many packets the rule has logged.

        It may raise FirewallError and GrantError.
        """
        self._path, self._ask = path, logged
        self._logged = 0
        self._asked = [-SELDOM, -SELDOM]
        """When the kernel was asked without a strange line, and because of one, which may be the only one for long."""
        self._heard, self._front, self._said = False, "", False
        self._since: float | None = None
        """When it was first seen that they do not agree."""

    def notice(self, hearing: tuple[bool, str], now: float) -> str:
        """Return what is wrong, once, in a sentence; "" for nothing, or if the kernel was asked not long ago.

        hearing: what the source says of itself (sources.Source.hearing). now: seconds on a monotonic clock.
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
        """Return what is wrong now; at first a line that never comes looks like one that is on its way."""
        try:
            count = self._ask()
        except (FirewallError, GrantError):  # who opens a door says it
            return ""
        more = count - self._logged
        if self._heard or more < 0:  # less: the rules were placed again
            self._logged, self._heard, self._since, self._said = count, False, None, False
            more = 0
        if not more:
            self._front = ""  # of a line that was not our rule's
            return ""
        self._since = now if self._since is None else self._since
        why = "none came there" if now - self._since >= LATE else "none came there yet"
        if self._front:
            why = f'their lines are not understood there, one begins "{self._front}"'
        return f"deaf at {self._path}: the firewall has logged {more} packet(s) to knock ports, but {why}"
