"""The parser of the packet logger's messages: total, exact, without a memory that matters."""

from hypothesis import given
from hypothesis import strategies as st

from knockknock.core.packet import Packet
from knockknock.sources.nflog_packet import Parser

from .strategies import nflog_messages
from .test_kernel_line import sane

GROUP = 19275
messages = nflog_messages(GROUP)


def parse(data: bytes) -> list[Packet]:
    return list(Parser(GROUP).packets(data, 0, len(data)))


@given(messages)
def test_what_the_kernel_sends_is_read(sample: tuple[bytes, Packet]) -> None:
    assert parse(sample[0]) == [sample[1]]


@given(nflog_messages(GROUP + 1))
def test_another_group_is_not_ours(sample: tuple[bytes, Packet]) -> None:
    assert parse(sample[0]) == []


@given(st.binary(max_size=3000))
def test_any_bytes(data: bytes) -> None:
    assert parse(data) == []


@given(messages)
def test_every_beginning_of_a_message(sample: tuple[bytes, Packet]) -> None:
    """Cut off in the datagram; and cut off by its own length, with older bytes behind it."""
    message = sample[0]
    for end in range(len(message) - 3):  # the last three may be padding
        assert not Parser(GROUP).packets(message, 0, end)
        assert parse(end.to_bytes(4, "little") + message[4:]) == []


@given(messages)
def test_every_length_of_the_packet(sample: tuple[bytes, Packet]) -> None:
    """A packet that was not copied whole gives all that is asked of it but the payload, or nothing."""
    message, packet = sample
    marks = [at for at in range(0, len(message), 4) if message[at + 2 : at + 4] == b"\x09\0"]
    sizes = {at: int.from_bytes(message[at : at + 2], "little") for at in marks}
    # The attribute ends where the message does; what looks like it in the payload comes later.
    at = min(at for at, size in sizes.items() if at + size + -size % 4 >= len(message))
    size = sizes[at]
    for cut in range(size):
        for one in parse(message[:at] + cut.to_bytes(2, "little") + message[at + 2 :]):
            assert one._replace(payload=b"") == packet._replace(payload=b"")
            assert packet.payload.startswith(one.payload)


@given(messages, st.data())
def test_changed_messages_never_raise(sample: tuple[bytes, Packet], data: st.DataObject) -> None:
    message = sample[0]
    begin, end = sorted((data.draw(st.integers(0, len(message))), data.draw(st.integers(0, len(message)))))
    other = data.draw(st.binary(max_size=8) | st.just(message[begin : begin + 40]))
    assert all(sane(packet) for packet in parse(message[:begin] + other + message[end:]))


@given(st.lists(messages, max_size=5), st.data())
def test_what_came_before_does_not_matter(samples: list[tuple[bytes, Packet]], data: st.DataObject) -> None:
    """One parser and one buffer for all messages, changed ones among them, as a parser and a buffer for each."""
    parser, buffer = Parser(GROUP), bytearray(4096)
    for message, _ in samples * 2:
        at = data.draw(st.integers(0, len(message) - 1))
        changed = bytearray(message)
        changed[at] = data.draw(st.integers(0, 255))
        for one in (message, bytes(changed), message):
            buffer[: len(one)] = one
            assert list(parser.packets(buffer, 0, len(one))) == parse(one)


@given(st.lists(messages, max_size=4))
def test_many_in_one_datagram(samples: list[tuple[bytes, Packet]]) -> None:
    datagram = b"".join(message + bytes(-len(message) % 4) for message, _ in samples)
    assert parse(datagram) == [packet for _, packet in samples]
