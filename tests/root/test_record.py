"""The record that crosses the privilege line: what it looks like, and what is not one."""

import pytest

from knockknock.errors import GrantError
from knockknock.root.record import EXPECTED, MOST_DOORS, RECORD, RELOAD, Grant, Order, pack, pack_doors, unpack
from knockknock.server.privsep import LONGEST, unpack_doors

from ..helpers import SOURCE, SOURCE6

# Written out by hand: order, family, protocol, zero, port, seconds, address.
RECORDS = [
    (Grant(Order.OPEN_ONCE, SOURCE, 6, 22, 15), "01 04 06 00 0016 000f c0000207 000000000000000000000000"),
    (Grant(Order.OPEN, SOURCE, 17, 51820, 3600), "02 04 11 00 ca6c 0e10 c0000207 000000000000000000000000"),
    (Grant(Order.CLOSE, SOURCE6, 6, 65535, 0), "03 06 06 00 ffff 0000 20010db8000000000000000000000007"),
    (Grant(Order.OPEN, bytes(16), 6, 1, 65535), "02 06 06 00 0001 ffff 00000000000000000000000000000000"),
    (Grant(Order.STATUS, b"", 0, 0, 0), "05 00 00 00 0000 0000 00000000 000000000000000000000000"),
    (Grant(Order.STATUS, SOURCE, 0, 0, 0), "05 04 00 00 0000 0000 c0000207 000000000000000000000000"),
    (Grant(Order.BLOCK, SOURCE, 0, 0, 0), "06 04 00 00 0000 0000 c0000207 000000000000000000000000"),
    (Grant(Order.LOGGED, b"", 0, 0, 0), "07 00 00 00 0000 0000 00000000 000000000000000000000000"),
    (RELOAD, "04 00 00 00 0000 0000 00000000000000000000000000000000"),
]


@pytest.mark.parametrize(("grant", "record"), RECORDS)
def test_record(grant: Grant, record: str) -> None:
    assert pack(grant) == bytes.fromhex(record)
    assert unpack(bytes.fromhex(record)) == grant
    assert type(unpack(bytes.fromhex(record)).order) is Order


def test_no_record_begins_like_values() -> None:
    assert not EXPECTED.keys() & set(Order)


def test_a_record_has_24_bytes() -> None:
    assert RECORD.size == 24
    good = pack(RECORDS[0][0])
    for size in range(2 * len(good)):
        if size != len(good):
            with pytest.raises(GrantError):
                unpack((good * 2)[:size])


NO_GRANTS = [
    ("no order", "00 04 06 00 0016 000f c0000207 000000000000000000000000"),
    ("shut out nobody", "06 00 00 00 0000 0000 00000000 000000000000000000000000"),
    ("shut out from a port", "06 04 06 00 0016 0000 c0000207 000000000000000000000000"),
    ("shut out for a time", "06 04 00 00 0000 000f c0000207 000000000000000000000000"),
    ("an order too many", "08 04 06 00 0016 000f c0000207 000000000000000000000000"),
    ("no such order", "ff 04 06 00 0016 000f c0000207 000000000000000000000000"),
    ("no such family", "01 05 06 00 0016 000f c0000207 000000000000000000000000"),
    ("open without family", "01 00 06 00 0016 000f 00000000 000000000000000000000000"),
    ("no protocol", "01 04 00 00 0016 000f c0000207 000000000000000000000000"),
    ("ICMP", "01 04 01 00 0016 000f c0000207 000000000000000000000000"),
    ("the zero is not zero", "01 04 06 01 0016 000f c0000207 000000000000000000000000"),
    ("port 0", "01 04 06 00 0000 000f c0000207 000000000000000000000000"),
    ("open for no time", "01 04 06 00 0016 0000 c0000207 000000000000000000000000"),
    ("open for no time, many", "02 04 06 00 0016 0000 c0000207 000000000000000000000000"),
    ("close with seconds", "03 04 06 00 0016 0001 c0000207 000000000000000000000000"),
    ("IPv4 with a bit behind", "01 04 06 00 0016 000f c0000207 000000000000000000000001"),
    ("IPv4 with a bit right behind", "01 04 06 00 0016 000f c0000207 800000000000000000000000"),
    ("reload with a family", "04 04 00 00 0000 0000 00000000 000000000000000000000000"),
    ("reload with an address", "04 00 00 00 0000 0000 c0000207 000000000000000000000000"),
    ("reload with a port", "04 00 00 00 0016 0000 00000000 000000000000000000000000"),
    ("reload with a protocol", "04 00 06 00 0000 0000 00000000 000000000000000000000000"),
    ("reload with seconds", "04 00 00 00 0000 0001 00000000 000000000000000000000000"),
    ("a count of an address", "07 04 00 00 0000 0000 c0000207 000000000000000000000000"),
    ("a count of a port", "07 00 00 00 0016 0000 00000000 000000000000000000000000"),
    ("a status with a port", "05 04 00 00 0016 0000 c0000207 000000000000000000000000"),
    ("a status with a protocol", "05 04 06 00 0000 0000 c0000207 000000000000000000000000"),
    ("a status with seconds", "05 00 00 00 0000 0001 00000000 000000000000000000000000"),
    ("a status with an address of no family", "05 00 00 00 0000 0000 c0000207 000000000000000000000000"),
    ("a reload of a door", "04 04 06 00 0016 0000 c0000207 000000000000000000000000"),
]


@pytest.mark.parametrize("record", [record for _, record in NO_GRANTS], ids=[name for name, _ in NO_GRANTS])
def test_no_grant(record: str) -> None:
    with pytest.raises(GrantError, match=r"\w+ \w+"):
        unpack(bytes.fromhex(record))


DOORS = [RECORDS[0][0], RECORDS[1][0], Grant(Order.OPEN, SOURCE6, 6, 443, 1)]
FOREIGN = [Grant(Order.OPEN, SOURCE, 6, 22, 0), Grant(Order.OPEN_ONCE, SOURCE6, 132, 0, 65535)]
"""What nothing of ours puts into a set: without an end, of another protocol, for port 0."""


def test_doors_that_are_open() -> None:
    assert pack_doors(DOORS[:1]) == bytes.fromhex("00000001" + RECORDS[0][1])
    assert unpack_doors(pack_doors(DOORS)) == (3, DOORS)
    assert unpack_doors(pack_doors([])) == (0, [])


def test_what_somebody_else_has_put_in_is_listed() -> None:
    assert unpack_doors(pack_doors(FOREIGN)) == (2, FOREIGN)
    for one in FOREIGN:
        with pytest.raises(GrantError):
            unpack(pack(one))


def test_more_doors_than_the_answer_has_room_for() -> None:
    many = [Grant(Order.OPEN, SOURCE, 6, port, 9) for port in range(1, MOST_DOORS + 5)]
    assert unpack_doors(pack_doors(many)) == (MOST_DOORS + 4, many[:MOST_DOORS])
    assert 1 + len(pack_doors(many)) == LONGEST


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        bytes(3),
        (1).to_bytes(4, "big"),
        bytes(4) + pack(DOORS[0]),
        pack_doors(DOORS)[:-1],
        pack_doors(DOORS) + b"\0",
        (1).to_bytes(4, "big") + pack(RELOAD),
        (1).to_bytes(4, "big") + pack(RECORDS[2][0]),
    ],
)
def test_no_list_of_doors(answer: bytes) -> None:
    with pytest.raises(GrantError, match=r"\w+ \w+"):
        unpack_doors(answer)
