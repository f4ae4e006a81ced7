"""Datagrams in batches, from real sockets."""

import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knockknock.sources.datagrams import BATCH, Datagrams

SIZE = 64


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, Datagrams]]:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        yield one, Datagrams(other, SIZE)


def read(datagrams: Datagrams) -> list[bytes]:
    return [bytes(datagrams.buffer[at * SIZE :][:size]) for at, size in enumerate(datagrams.receive())]


@given(st.lists(st.lists(st.binary(max_size=SIZE), max_size=BATCH), max_size=5))
def test_all_come_in_order_and_whole(batches: list[list[bytes]]) -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        datagrams = Datagrams(other, SIZE)
        for batch in batches:
            for data in batch:
                one.send(data)
            assert read(datagrams) == batch
        assert read(datagrams) == []


def test_more_than_a_batch(pair: tuple[socket.socket, Datagrams]) -> None:
    one, datagrams = pair
    sent = [b"%d" % number for number in range(2 * BATCH + 5)]
    for data in sent:
        one.send(data)
    assert [read(datagrams) for _ in range(4)] == [sent[:BATCH], sent[BATCH:-5], sent[-5:], []]


def test_the_rest_of_a_longer_one_is_lost(pair: tuple[socket.socket, Datagrams]) -> None:
    one, datagrams = pair
    for data in (b"a" * (SIZE + 1), b"b"):
        one.send(data)
    assert read(datagrams) == [b"a" * SIZE, b"b"]


def test_an_error_is_told() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        datagrams = Datagrams(one, SIZE)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
            gone.bind(("127.0.0.1", 0))
            place = gone.getsockname()
        one.connect(place)
        one.send(b"anybody there?")
        with pytest.raises(ConnectionRefusedError):
            datagrams.receive()
        assert datagrams.receive() == []
    with pytest.raises(OSError, match="Bad file descriptor"):
        datagrams.receive()
