"""Keeps the values that knocks can bear next in sets of the kernel, which logs nothing else at knock ports.

For each profile those are the values of the look-ahead window and of what is beyond it, as far as there is room. Where
not all that is heard at a port can be listed, the kernel tells of every SYN there, within a limit for each source. So
it does at all knock ports when our table is placed or the policy was read again, until everything is handed over.
"""

import contextlib
from collections.abc import Callable, Generator, Iterator

from .errors import FirewallError, GrantError
from .gatekeeper import Gatekeeper
from .grant import EXPECTED
from .packet import TCP

Change = Callable[[str, list[bytes], list[bytes]], None]
"""Puts values into a set, and takes others out of it."""
PORTS = "every_syn"
"""The set of ports of which the kernel tells of every SYN."""
PORTION = 1000
"""Values that come, and that go, in one message; an attribute of netlink(7), which they become, has 64 KiB at most."""
NAMED = 10
"""Profiles that are named for each such place."""


class Expected:
    """The expected values in the kernel's sets."""

    def __init__(self, keeper: Gatekeeper, size: int, change: Change, emptied: Callable[[], bool]) -> None:
        """size: values that may be listed. change: may raise FirewallError and GrantError, as these methods do then.

        emptied: whether the sets are others since the hand-over began, so that all is to be handed over again.
        """
        self._keeper, self._size, self._change, self._emptied = keeper, size, change, emptied
        self._firsts: dict[str, int] = {}
        """The first counter that is listed, by profile."""
        self._busy, self._late = False, set[str]()
        """Whether a hand-over is going on, and the profiles that have knocked meanwhile."""
        self.ahead = 0
        """Counters that are listed for each profile."""
        self._every = set[int]()
        """Ports of which the kernel tells of every SYN."""
        self.every: dict[str, str] = {}
        """The same for people, without what is a secret, and why."""

    def __len__(self) -> int:
        """Profiles that are listed."""
        return len(self._firsts)

    def forget(self) -> None:
        """Somebody has emptied the sets, and the kernel tells of every SYN."""
        self._firsts.clear()

    def hand_over(self) -> Iterator[None]:
        """List everything anew, in small steps. Whatever fails on the way, knocks are heard."""
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
            self.every = dict.fromkeys(places, "as what is expected was not taken")
            raise
        finally:
            self._busy = False
            self._late.clear()

    def _needs(self) -> Generator[None, None, dict[int, int]]:
        """By knock port, how many values there are for each counter; finds what cannot be listed."""
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
        """Choose what is listed: as many ports as possible with their windows, then as much ahead as possible."""
        settings, room, in_all = self._keeper.settings, self._size, 0
        for port in sorted(needs, key=needs.__getitem__):
            if port in self._every:
                self.every.setdefault(f"tcp/{port}", "because not all that is heard there can be listed")
            elif (room := room - needs[port] * settings.window) < 0:
                self._every.add(port)
                self.every[f"tcp/{port}"] = "as expected_size is too small" if self._size else "as it is configured"
            else:
                in_all += needs[port]
        self.ahead = min(settings.window + settings.resync, self._size // in_all) if in_all else 0

    def _values(self) -> Iterator[None]:
        """List what the profiles can say, many in one message."""
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
        """List what a profile can say after a knock of it was used up, and no more what it could say before."""
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
