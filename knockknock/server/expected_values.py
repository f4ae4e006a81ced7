"""Keeps, in kernel sets, the values that the next knocks can carry; at knock ports only matches are logged.

For each profile these are the values of the look-ahead window, and of counters beyond it if there is room. At a port
where not all knocks can be listed, the kernel logs every SYN, within a rate limit for each source. It does so at all
knock ports when our table was placed or the policy read again, until all values are handed over.
"""

import contextlib
from collections.abc import Callable, Generator, Iterator

from ..core.packet import TCP
from ..errors import FirewallError, GrantError
from ..root.record import EXPECTED
from .gatekeeper import Gatekeeper

Change = Callable[[str, list[bytes], list[bytes]], None]
"""A function that adds values to the set of a name, and deletes others from it."""
PORTS = "every_syn"
"""The name of the set of ports at which the kernel logs every SYN."""
PORTION = 1000
"""The most values to add, and to delete, in one message; they become a netlink(7) attribute, 64 KiB at most."""
NAMED = 10
"""The most profiles that are named as the reason for a port."""


class Expected:
    """The expected values in the kernel's sets."""

    def __init__(self, keeper: Gatekeeper, size: int, change: Change, emptied: Callable[[], bool]) -> None:
        """size: the most values to list. change: may raise FirewallError and GrantError; the methods pass them on.

        emptied: returns True if the sets were replaced since the hand-over began, so that another one must follow.
        """
        self._keeper, self._size, self._change, self._emptied = keeper, size, change, emptied
        self._firsts: dict[str, int] = {}
        """The first listed counter, by profile."""
        self._busy, self._late = False, set[str]()
        """True during a hand-over; the profiles that have knocked meanwhile."""
        self.ahead = 0
        """Counters that are listed for each profile."""
        self._every = set[int]()
        """Ports at which the kernel logs every SYN."""
        self.every: dict[str, str] = {}
        """The same for people, without secrets: the reason, by place."""

    def __len__(self) -> int:
        """Return the number of listed profiles."""
        return len(self._firsts)

    def forget(self) -> None:
        """Note that the sets were emptied, and the kernel logs every SYN."""
        self._firsts.clear()

    def hand_over(self) -> Iterator[None]:
        """List all values anew, in small steps. Knocks are heard even if a step fails."""
        self.forget()
        self._busy = True
        try:
            needs = yield from self._needs()
            self._plan(needs)
            self._send(PORTS, [_port(port) for port in needs.keys() | self._every], [])
            yield from self._values()
            if not self._emptied():
                self._send(PORTS, [], [_port(port) for port in needs if port not in self._every])
            self._busy = False
            while self._late:
                self.follow(self._late.pop())
        except (FirewallError, GrantError):
            self.forget()
            with contextlib.suppress(FirewallError, GrantError):
                self._send(PORTS, [_port(port) for port in needs.keys() | self._every], [])
            places = self.every.keys() | {f"tcp/{port}" for port in needs}
            self.every = dict.fromkeys(places, "as the kernel did not take the expected values")
            raise
        finally:
            self._busy = False
            self._late.clear()

    def _needs(self) -> Generator[None, None, dict[int, int]]:
        """Return the number of values for each counter, by knock port. Also find the ports that cannot be listed."""
        needs: dict[int, int] = {}
        names: dict[str, list[str]] = {}
        self._every.clear()
        for name in self._keeper.names():
            profile, found = self._keeper.profile(name), self._keeper.next(name)
            tcp = {port for protocol, port in profile.knock_ports if protocol == TCP} if profile else set[int]()
            if found:
                needs |= {port: needs.get(port, 0) + found.each for port in tcp}
            elif profile and tcp:
                self._every |= tcp
                names.setdefault(profile.where, []).append(name)
            yield
        self.every = {
            where: f"because knocks of {', '.join(sorted(some)[:NAMED])} cannot be listed"
            for where, some in names.items()
        }
        return needs

    def _plan(self, needs: dict[int, int]) -> None:
        """Choose the values: the windows of as many ports as possible, then as many counters ahead as possible."""
        settings, room, in_all = self._keeper.settings, self._size, 0
        for port in sorted(needs, key=needs.__getitem__):
            if port in self._every:
                self.every.setdefault(f"tcp/{port}", "because knocks of another profile there cannot be listed")
            elif (room := room - needs[port] * settings.window) < 0:
                self._every.add(port)
                self.every[f"tcp/{port}"] = "as expected_size is too small" if self._size else "as it is configured"
            else:
                in_all += needs[port]
        self.ahead = min(settings.window + settings.resync, self._size // in_all) if in_all else 0

    def _values(self) -> Iterator[None]:
        """List the expected values of all profiles, many in one message."""
        waiting: dict[str, list[bytes]] = {name: [] for name, _ in EXPECTED.values()}
        for name in self._keeper.names():
            profile, found = self._keeper.profile(name), self._keeper.next(name)
            if profile and found and not any(port in self._every for _, port in profile.knock_ports):
                self._firsts[name], more = found.first, waiting[found.set]
                more += found.values(found.first, found.first + self.ahead)
                if len(more) >= PORTION:
                    self._send(found.set, more, [])
                    more.clear()
            yield
        for set_name, more in waiting.items():
            self._send(set_name, more, [])

    def follow(self, name: str) -> None:
        """Add a profile's new expected values after a knock was used up, and delete those before."""
        first, found = self._firsts.get(name), self._keeper.next(name)
        if self._busy:
            self._late.add(name)
        elif first is not None and found and found.first > first:
            self._firsts[name] = found.first
            come = [*found.values(max(first + self.ahead, found.first), found.first + self.ahead)]
            self._send(found.set, come, [*found.values(first, min(first + self.ahead, found.first))])

    def _send(self, name: str, come: list[bytes], go: list[bytes]) -> None:
        for at in range(0, max(len(come), len(go)), PORTION):
            self._change(name, come[at : at + PORTION], go[at : at + PORTION])


def _port(number: int) -> bytes:
    return number.to_bytes(2, "big")
