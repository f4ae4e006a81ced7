"""No packet ends the daemon: whatever keys it was made with, whatever it asks for, wherever it says it comes from."""

import os
import pwd
from collections.abc import Iterator
from pathlib import Path
from typing import cast
from unittest.mock import Mock

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knockknock.core.packet import Packet
from knockknock.errors import FirewallError, GrantError
from knockknock.root import record
from knockknock.root.policy import Policy, Scan, limits
from knockknock.root.record import Grant, Order
from knockknock.schemes.syn import seal
from knockknock.schemes.syn.profile import Profile
from knockknock.server.config import Config
from knockknock.server.daemon import Daemon
from knockknock.server.event_dispatch import Dispatcher
from knockknock.server.privsep import Helper
from knockknock.server.signals import Signals
from knockknock.sources import Source

from ..helpers import keeper_of, knock, seen
from ..helpers import profile as make_profile
from .strategies import addresses, profiles, requests

POLICIES = st.sampled_from(
    [
        Policy((), ((6, 1, 65535), (17, 1, 65535)), 3600),
        Policy((), (), 3600),
        Policy((), ((6, 22, 22),), 1),
        Policy((), ((6, 1, 65535),), 3600, scan=Scan(3, 60, 600, 64, ("192.0.2.0/24",), False, by_daemon=True)),
    ]
)
"""What root allows, which is not always what the daemon believes."""


class Root:
    """The helper's side of the line, as far as it can refuse."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.placed = False
        self.opened = 0

    def obey(self, order: Grant) -> None:
        got = record.unpack(record.pack(order))
        try:
            limits(self._policy).check(got)
        except GrantError as error:  # as privsep.Helper says it
            raise FirewallError(str(error)) from None
        self.opened += got.order is not Order.CLOSE

    def logged(self) -> tuple[int, int]:
        return 0, 0

    def expect(self, name: str, come: list[bytes], go: list[bytes]) -> None:
        size = dict(record.EXPECTED.values())[name]
        assert all(len(one) == size for one in (*come, *go))


class Played:
    """A source of the packets that it is given."""

    GIVES: frozenset[str] = frozenset()
    path, group = "a game", None

    def __init__(self) -> None:
        self.packets: list[Packet | None] = []

    def read(self) -> Iterator[Packet | None]:
        yield from self.packets
        self.packets = []

    def drain(self) -> None:
        pass

    def complaint(self) -> str:
        return ""

    def hearing(self) -> tuple[bool, str]:
        return False, "?"


def playing(config: Config, profile: Profile, root: Root, source: Played) -> Daemon:
    """A daemon between these."""
    dispatcher = Dispatcher(config, pwd.getpwuid(os.getuid()), quiet=True)
    keeper = keeper_of([profile], {profile.name: 0}, config.delay, 20, config.single_use)
    return Daemon("", config, keeper, cast(Source, source), cast(Helper, root), dispatcher, Mock(Signals))


@st.composite
def packets(draw: st.DrawFn, profile: Profile) -> Packet:
    """A knock with good keys and a good counter, or a packet that is none, from anywhere."""
    source = draw(addresses)
    sealed = seal.seal(profile, draw(st.integers(0, 3)), draw(requests(profile)), source)
    packet = seen(seal.carry(profile.format, sealed), source, profile.knock_port)
    return draw(st.sampled_from([packet, packet._replace(sequence=1), packet._replace(port=1)]))


@given(st.data())
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_no_packet_ends_the_daemon(tmp_path: Path, data: st.DataObject) -> None:
    profile = data.draw(profiles())._replace(expires=None)
    root, source = Root(data.draw(POLICIES)), Played()
    config = Config(state=str(tmp_path), control="off", delay=data.draw(st.integers(1, 3600)), scan_guard=True)
    config = config._replace(scan_count="daemon", scan_ports=1)
    source.packets = [*data.draw(st.lists(packets(profile), min_size=1, max_size=8))]
    playing(config, profile, root, source)._listen()
    assert not source.packets, "all were heard"


def test_a_good_packet_opens(tmp_path: Path) -> None:
    """So that the test above can fail."""
    profile, root, source = make_profile(), Root(Policy((), ((6, 22, 22),), 15)), Played()
    config = Config(state=str(tmp_path), control="off")
    source.packets = [knock(profile, 0)]
    playing(config, profile, root, source)._listen()
    assert root.opened == 1
