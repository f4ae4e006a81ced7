"""Recognises one-time passwords, and obeys each once. Pure."""

import hmac
from collections.abc import Iterable

from ..events import Accepted, Event, Quiet, Reason, Refused, granted, together
from ..packet import Packet
from ..request import UDP, Verb
from . import Settings, otp
from .otp import MAX_USED, TOLERANCE, Memory, Profile

TRIED_PER_SECOND = 50_000
"""HMACs a second at most, of 6 for each profile at the knock port; what comes after that is not looked at."""
TOLD_PER_SECOND = 10
"""Refused packets a second that are told of one by one."""


class OtpListener:
    """Decides on datagrams (schemes.Listener)."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._profiles: dict[str, Profile] = {}
        self._memory: dict[str, Memory] = {}
        self._ports: dict[int, dict[str, Profile]] = {}
        self._minute = 0
        self._second, self._tried, self._told, self._quiet = 0.0, 0, 0, 0

    def add(self, profile: Profile, memory: Memory | None) -> None:
        """Hear a profile from now on, in the place of one of its name.

        memory: of that one what is known here, if its secrets are the same.
        """
        before, known = self._profiles.get(profile.name), self._memory.get(profile.name)
        if before:
            self.remove(profile.name)
            memory = known if memory is None or before.secrets() == profile.secrets() else memory
        self._profiles[profile.name] = profile
        self._memory[profile.name] = memory or Memory(0)
        self._ports.setdefault(profile.knock_port, {})[profile.name] = profile

    def remove(self, name: str) -> None:
        """Hear a profile no more. Raises KeyError if there is none of that name."""
        profile = self._profiles.pop(name)
        del self._memory[name], self._ports[profile.knock_port][name]
        if not self._ports[profile.knock_port]:
            del self._ports[profile.knock_port]

    def move(self, clock: int) -> None:
        """clock: seconds since 1970."""
        self._minute = clock // 60

    def next(self, _name: str) -> None:
        """A password is in the payload, of which the kernel's sets know nothing."""

    def hear(self, packet: Packet, now: float) -> Event | None:
        """The event of one packet; None: there is nothing to do or to say. now: seconds on any monotonic clock."""
        at_port = self._ports.get(packet.port)
        if not at_port or packet.protocol != UDP:
            return None
        if now - self._second >= 1:
            self._second, self._tried, self._told = now, 0, 0
        found = None
        if (digest := otp.read_payload(packet.payload)) and self._tried < TRIED_PER_SECOND:
            found = self._find(packet.source, digest, at_port.values())
        event = self._obey(packet, *found) if found else Refused(Reason.UNKNOWN, packet)
        return self._told_of(event) if isinstance(event, Refused) else event

    def _told_of(self, event: Refused) -> Refused | Quiet | None:
        """A refusal, unless there were many in this second; those are counted, and told of in one."""
        self._told += 1
        if self._told > TOLD_PER_SECOND:
            self._quiet += 1
            return None
        if not self._quiet:
            return event
        quiet, self._quiet = Quiet(self._quiet + 1), 0
        return quiet

    def _find(self, source: bytes, digest: bytes, profiles: Iterable[Profile]) -> tuple[Profile, Verb, int] | None:
        """Find the profile of an HMAC, its request, and its Unix minute."""
        for ahead in (0, *(way * minutes for minutes in range(1, TOLERANCE + 1) for way in (-1, 1))):
            minute = self._minute + ahead
            covered = {layout: otp.message(layout, source, minute) for layout in otp.LAYOUTS if 0 <= minute < 1 << 32}
            for profile in profiles:
                if text := covered.get(profile.otp_layout):
                    self._tried += 2
                    for verb, secret in profile.secrets():
                        if hmac.compare_digest(hmac.digest(secret, text, "sha256"), digest):
                            return profile, verb, minute
        return None

    def _obey(self, packet: Packet, profile: Profile, verb: Verb, minute: int) -> Event | None:
        """Use a datagram up, for all that the profile may open; a used one, or one too many, is refused."""
        memory, use = self._memory[profile.name], (verb, minute, packet.source)
        requests = profile.requests(verb)
        if minute < memory.floor or use in memory.used:
            return Refused(Reason.REPLAY, packet, profile.name, None, requests[0])
        floor = max(memory.floor, self._minute - TOLERANCE)
        used = frozenset(one for one in memory.used if one[1] >= floor)
        if len(used) >= MAX_USED:
            return Refused(Reason.NOT_PERMITTED, packet, profile.name, None, requests[0])
        self._memory[profile.name] = memory = Memory(floor, used | {use})
        text = otp.write_memory(memory)
        made = [(request, granted(self.settings, request, packet.source, profile)) for request in requests]
        return together([Accepted(profile.name, None, *one, text) for one in made])
