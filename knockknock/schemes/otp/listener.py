"""Recognises one-time passwords, and accepts each only once. Pure."""

import hmac
from collections.abc import Iterable

from ...core.events import Accepted, Event, Quiet, Reason, Refused, granted, together
from ...core.packet import Packet
from ...core.profile import Settings
from ...core.request import UDP, Verb
from . import profile as otp
from .profile import MAX_USED, TOLERANCE, Memory, Profile

TRIED_PER_SECOND = 50_000
"""HMACs a second, 6 for each profile at the knock port, after which datagrams are refused unexamined."""
TOLD_PER_SECOND = 10
"""Refused packets a second that are reported one by one."""


class OtpListener:
    """Decides on datagrams (protocols.Listener)."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._profiles: dict[str, Profile] = {}
        self._memory: dict[str, Memory] = {}
        self._ports: dict[int, dict[str, Profile]] = {}
        self._minute = 0
        self._second, self._tried, self._told, self._quiet = 0.0, 0, 0, 0

    def add(self, profile: Profile, memory: Memory | None) -> None:
        """Add a profile, or replace the one of its name.

        The memory of a replaced profile stays if `memory` is None, or if the secrets are the same.
        """
        before, known = self._profiles.get(profile.name), self._memory.get(profile.name)
        if before:
            self.remove(profile.name)
            memory = known if memory is None or before.secrets() == profile.secrets() else memory
        self._profiles[profile.name] = profile
        self._memory[profile.name] = memory or Memory(0)
        self._ports.setdefault(profile.knock_port, {})[profile.name] = profile

    def remove(self, name: str) -> None:
        """Remove a profile. Raises KeyError if there is none of that name."""
        profile = self._profiles.pop(name)
        del self._memory[name], self._ports[profile.knock_port][name]
        if not self._ports[profile.knock_port]:
            del self._ports[profile.knock_port]

    def move(self, clock: int) -> None:
        """Set the time of day, in seconds since 1970."""
        self._minute = clock // 60

    def next(self, _name: str) -> None:
        """Return None: passwords are in the payload, which the kernel's sets do not match."""

    def hear(self, packet: Packet, now: float) -> Event | None:
        """Return the event of one packet, None if there is none. now: seconds on any monotonic clock."""
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
        """Return a refusal to report; None after many in this second, which a later Quiet counts."""
        self._told += 1
        if self._told > TOLD_PER_SECOND:
            self._quiet += 1
            return None
        if not self._quiet:
            return event
        quiet, self._quiet = Quiet(self._quiet + 1), 0
        return quiet

    def _find(self, source: bytes, digest: bytes, profiles: Iterable[Profile]) -> tuple[Profile, Verb, int] | None:
        """Return the profile, the verb and the Unix minute of an HMAC, or None."""
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
        """Use a datagram up, for all ports of the profile. Refuse a used one, and one beyond MAX_USED."""
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


def new_listener(settings: Settings, _expected: int) -> OtpListener:
    """Return a listener of one-time passwords (schemes.new_listener)."""
    return OtpListener(settings)
