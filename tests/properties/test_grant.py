"""The record that crosses the privilege line: what is packed is what is unpacked, and nothing else is."""

import contextlib
import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from knockknock.errors import GrantError
from knockknock.root.record import RECORD, RELOAD, Grant, Order, pack, pack_doors, unpack
from knockknock.root.record_limits import Limits
from knockknock.server.privsep import unpack_doors

from .strategies import addresses, ports


@st.composite
def grants(draw: st.DrawFn) -> Grant:
    """Any sane grant."""
    order = draw(st.sampled_from(list(Order)))
    if order is Order.STATUS:
        return Grant(order, draw(st.one_of(st.just(b""), addresses)), 0, 0, 0)
    if order in (Order.RELOAD, Order.LOGGED):
        return RELOAD._replace(order=order)
    if order is Order.BLOCK:
        return Grant(order, draw(addresses), 0, 0, 0)
    seconds = 0 if order is Order.CLOSE else draw(st.integers(1, 65535))
    return Grant(order, draw(addresses), draw(st.sampled_from([6, 17])), draw(ports), seconds)


def only_itself(record: bytes) -> None:
    """A record is refused, or is the one record of its grant."""
    try:
        grant = unpack(record)
    except GrantError:
        return
    assert pack(grant) == record
    assert type(grant.order) is Order


@given(grants())
def test_round_trip(grant: Grant) -> None:
    assert len(pack(grant)) == RECORD.size
    assert unpack(pack(grant)) == grant


@given(st.lists(grants()))
def test_round_trip_of_doors(some: list[Grant]) -> None:
    doors = [grant for grant in some if grant.order in (Order.OPEN, Order.OPEN_ONCE)]
    assert unpack_doors(pack_doors(doors)) == (len(doors), doors)


@given(grants(), grants())
def test_no_two_grants_have_one_record(one: Grant, other: Grant) -> None:
    assert (pack(one) == pack(other)) is (one == other)


@given(st.binary(max_size=40) | st.binary(min_size=24, max_size=24))
def test_any_bytes(record: bytes) -> None:
    only_itself(record)


@given(grants(), st.integers(0, 8 * RECORD.size - 1))
def test_one_bit_changed(grant: Grant, bit: int) -> None:
    changed = int.from_bytes(pack(grant), "big") ^ 1 << bit
    only_itself(changed.to_bytes(RECORD.size, "big"))


@given(
    st.builds(
        bytes.__add__,
        st.tuples(*[st.integers(0, 7)] * 2, st.sampled_from([0, 1, 6, 17]), st.integers(0, 1)).map(bytes),
        st.binary(min_size=4, max_size=4) | st.sampled_from([bytes(4), b"\0\x16\0\x0f", b"\0\x16\0\0", b"\0\0\0\x0f"]),
    ),
    st.sampled_from([bytes(16), b"\xc0\0\x02\x07" + bytes(12), bytes(15) + b"\x01"])
    | st.binary(min_size=16, max_size=16),
)
def test_nearly_records(head: bytes, address: bytes) -> None:
    only_itself(head + address)


STARTS = [
    b"",
    bytes(4),
    bytes(10) + b"\xff\xff",
    bytes(15),
    b"\xff\2",
    b"\x7f",
    b"\xdf",
    b"\xe0",
    b"\xf0",
    b"\xff" * 12,
]


@given(st.sampled_from(STARTS), st.sampled_from([4, 16]), st.binary(min_size=16, max_size=16))
def test_doors_are_for_unicast_addresses_alone(start: bytes, size: int, rest: bytes) -> None:
    address = (start + rest)[:size]
    ip = ipaddress.ip_address(address)
    bad = ip.is_multicast or ip.is_loopback or ip.is_unspecified
    bad |= address[0] in (0, *range(240, 256)) if size == 4 else address.startswith(bytes(10) + b"\xff\xff")
    with contextlib.suppress(GrantError):
        Limits(b"", 1, 64, 0, 0, ((6, 22, 22, 60),)).check(Grant(Order.OPEN, address, 6, 22, 15))
        assert not bad, ip
        return
    assert bad, ip
