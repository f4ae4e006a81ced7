"""An attacker without keys who sees every knock, holds back what he likes, and sends what he makes of it.

Against the gatekeeper with several profiles at one knock port. The model is the list of knocks that were made: whatever
is accepted must be one of them, unchanged where it carries, not used before, and for the request that its maker meant.
"""

from typing import NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from knockknock.core.events import Accepted, Refused
from knockknock.core.packet import Packet
from knockknock.core.request import Request
from knockknock.schemes.syn import seal
from knockknock.schemes.syn.profile import FORMATS, Profile

from ..helpers import KNOCK_PORT, keeper_of, knock, seen, stamped
from .strategies import addresses, packets, profiles, requests, u16, u32

WINDOW = 20


class Made(NamedTuple):
    """One knock that an owner of keys made."""

    profile: Profile
    counter: int
    request: Request
    packet: Packet

    def sealed(self) -> bytes:
        data = seal.carried(self.profile.format, self.packet)
        assert data
        return data


class Attacker(RuleBasedStateMachine):
    """Actions that he can take with packets, one rule each."""

    @initialize(ones=st.lists(profiles(), min_size=1, max_size=4, unique_by=lambda one: one.name))
    def server(self, ones: list[Profile]) -> None:
        # Keys of their own, as minted ones have: hypothesis likes to draw the same ones twice.
        self.profiles = [one._replace(mac_key=bytes([at]) + one.mac_key[1:]) for at, one in enumerate(ones)]
        self.next = {one.name: 0 for one in ones}
        """The clients' counters."""
        self.keeper = keeper_of(self.profiles, dict(self.next), 15, WINDOW, True)
        self.made: list[Made] = []
        self.heard: dict[str, int] = {one.name: -1 for one in ones}
        """The last counter that opened something."""
        self.now = 0.0

    def send(self, packet: Packet) -> None:
        """Give the server a packet, and hold its verdict against the knocks that were made."""
        self.now += 60
        event = self.keeper.hear(packet, self.now)
        if isinstance(event, Refused):
            return
        assert isinstance(event, Accepted)
        one = next(made for made in self.made if (made.profile.name, made.counter) == (event.profile, event.counter))
        assert seal.carried(one.profile.format, packet) == one.sealed()
        assert event.counter is not None
        assert event.counter > self.heard[event.profile]
        assert event.request == one.request
        assert one.profile.permits(event.request)
        assert (event.grant.address, event.grant.protocol, event.grant.port) == (packet.source, *one.request[1:])
        if one.profile.bind_source:
            assert packet.source == one.packet.source
        self.heard[event.profile] = event.counter

    def _any(self, data: st.DataObject) -> Made:
        return data.draw(st.sampled_from(self.made))

    @rule(data=st.data(), source=addresses, arrives=st.booleans())
    def client_knocks(self, data: st.DataObject, source: bytes, arrives: bool) -> None:
        one = data.draw(st.sampled_from(self.profiles))
        request = data.draw(requests(one))
        counter = self.next[one.name]
        self.next[one.name] += 1
        self.made.append(Made(one, counter, request, knock(one, counter, request, source)))
        if arrives:
            before = self.heard[one.name]
            self.send(self.made[-1].packet)
            assert (self.heard[one.name] == counter) is (counter < before + 1 + WINDOW), "a client's own knock"

    @rule(packet=packets(KNOCK_PORT))
    def random(self, packet: Packet) -> None:
        self.send(packet)

    @precondition(lambda self: self.made)
    @rule(data=st.data(), source=st.none() | addresses)
    def replayed_or_out_of_order(self, data: st.DataObject, source: bytes | None) -> None:
        packet = self._any(data).packet
        self.send(packet._replace(source=source or packet.source))

    @precondition(lambda self: self.made)
    @rule(data=st.data(), field=st.sampled_from(["ident", "sequence", "acknowledgment", "window"]), value=u16 | u32)
    def one_field_changed(self, data: st.DataObject, field: str, value: int) -> None:
        limit = 0xFFFF if field in ("ident", "window") else 0xFFFFFFFF
        self.send(self._any(data).packet._replace(**{field: value & limit}))  # type: ignore[arg-type]  # four ints

    @precondition(lambda self: self.made)
    @rule(data=st.data(), timestamp=st.none() | u32)
    def timestamp_changed(self, data: st.DataObject, timestamp: int | None) -> None:
        self.send(self._any(data).packet._replace(options=b"" if timestamp is None else stamped(timestamp)))

    @precondition(lambda self: self.made)
    @rule(data=st.data(), changes=st.lists(st.tuples(st.integers(0, 11), st.integers(1, 255)), min_size=1, max_size=4))
    def bytes_changed(self, data: st.DataObject, changes: list[tuple[int, int]]) -> None:
        one = self._any(data)
        sealed = bytearray(one.sealed())
        for at, mask in changes:
            sealed[at % len(sealed)] ^= mask
        self._carry(bytes(sealed), one.profile.format, one.packet.source)

    @precondition(lambda self: self.made)
    @rule(data=st.data(), port=st.integers(1, 65535))
    def port_flipped(self, data: st.DataObject, port: int) -> None:
        """He knows what was asked, and turns the port into another: the mask is a one-time pad."""
        one = self._any(data)
        sealed = one.sealed()
        head = int.from_bytes(sealed[:2], "big") ^ one.request.port ^ port
        self._carry(head.to_bytes(2, "big") + sealed[2:], one.profile.format, one.packet.source)

    @precondition(lambda self: self.made)
    @rule(data=st.data(), cut=st.integers(0, 12))
    def two_spliced(self, data: st.DataObject, cut: int) -> None:
        """Of any two knocks, of one profile or of two."""
        one, other = self._any(data), self._any(data)
        sealed = one.sealed()[:cut] + other.sealed()[cut:]
        self._carry(sealed, one.profile.format, one.packet.source)

    @precondition(lambda self: len(self.made) > 1)
    @rule(data=st.data())
    def masks_combined(self, data: st.DataObject) -> None:
        """Three knocks XORed: a known port and tag under what would be another's mask, if masks came again."""
        ones = [self._any(data).sealed() for _ in range(3)]
        mixed = bytes(a ^ b ^ c for a, b, c in zip(*ones, strict=False))
        self._carry(mixed, self._any(data).profile.format, self._any(data).packet.source)

    @precondition(lambda self: self.made)
    @rule(data=st.data(), format=st.sampled_from(sorted(FORMATS)), fill=st.binary(min_size=4, max_size=4))
    def carried_as_another_format(self, data: st.DataObject, format: str, fill: bytes) -> None:
        one = self._any(data)
        self._carry(one.sealed() + fill, format, one.packet.source)

    def _carry(self, sealed: bytes, format: str, source: bytes) -> None:
        size = {"compact": 8, "classic": 12, "stealth": 10}[format]
        self.send(seen(seal.carry(format, sealed[:size].ljust(size, b"\0")), source))


Attacker.TestCase.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
test_attacker = Attacker.TestCase
