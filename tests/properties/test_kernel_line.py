"""The log line parser: total, exact, linear."""

import re
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knockknock.core.packet import Packet
from knockknock.sources.kernel_line import MAX_LINE, parse

from .strategies import kernel_lines

GOOD = (
    b"knockknock IN=eth0 OUT= MAC=02:00:00:00:00:01:02:00:00:00:00:07:08:00 SRC=192.0.2.7 DST=192.0.2.1 LEN=60 "
    b"TOS=0x00 PREC=0x00 TTL=64 ID=1 DF PROTO=TCP SPT=40000 DPT=4242 SEQ=1 ACK=0 WINDOW=1 RES=0x00 SYN URGP=0 "
)


def sane(packet: Packet) -> bool:
    """Return True if every number is within its field."""
    return (
        len(packet.source) in (4, 16)
        and 0 <= packet.ident <= (0xFFFF if len(packet.source) == 4 else 0xFFFFF)
        and all(0 <= number <= 0xFFFF for number in (packet.source_port, packet.port, packet.window))
        and all(0 <= number <= 0xFFFFFFFF for number in (packet.sequence, packet.acknowledgment, packet.timestamp or 0))
    )


@given(kernel_lines())
def test_what_the_kernel_writes_is_read(sample: tuple[bytes, Packet]) -> None:
    line, packet = sample
    assert parse(line) == packet


@given(st.binary(max_size=3000))
def test_any_bytes(data: bytes) -> None:
    assert parse(data) is None


@given(kernel_lines(), st.data())
def test_changed_lines_never_raise(sample: tuple[bytes, Packet], data: st.DataObject) -> None:
    line = sample[0]
    begin, end = sorted((data.draw(st.integers(0, len(line))), data.draw(st.integers(0, len(line)))))
    other = data.draw(st.binary(max_size=8) | st.just(line[begin : begin + 40]) | st.just(b"99999999999"))
    packet = parse(line[:begin] + other + line[end:])
    assert packet is None or sane(packet)


@given(kernel_lines(), st.binary(min_size=1, max_size=20).filter(lambda more: more != b"\n"))
def test_nothing_may_follow(sample: tuple[bytes, Packet], more: bytes) -> None:
    """But one newline: test_the_end_of_a_line."""
    line = sample[0].rstrip(b" ") + b" "
    assert parse(line + more) is None or more.startswith((b"OPT (", b"UID=", b"MARK="))


@given(kernel_lines(), st.binary(min_size=1, max_size=20))
def test_nothing_may_stand_before_the_front(sample: tuple[bytes, Packet], more: bytes) -> None:
    """But a priority, and what could belong to the month's or the weekday's name."""
    line, packet = sample
    found = parse(more + b" " + line)
    word = re.fullmatch(rb"<?[0-7]?>?[ ]?[A-Za-z0-9.'\x80-\xff-]*|\[[A-Za-z0-9.'\x80-\xff-]*", more)
    assert found is None or (found == packet and (word or line.startswith(b"knockknock ")))


MESSAGES = [
    "Nov 26 08:14:14 host {}",
    "Nov 26 08:14:14 host sshd[412]: Invalid user {}",
    "Nov 26 08:14:14 host sshd[412]: {}",
    "Nov 26 08:14:14 host nginx: {}",
    "Nov 26 08:14:14 host daemon.info nginx: {}",
    "Nov 26 08:14:14 host user.notice {}",
    "Nov 26 08:14:14 sshd[412]: {}",
    "Nov 26 08:14:14 nginx: {}",
    "Nov 26 08:14:14 kernel: [  412.345678] {}",
    "Nov 26 08:14:14 [nginx] {}",
    "Thu Nov 26 08:14:14 2026 daemon.info nginx: {}",
    "Thu Nov 26 08:14:14 2026 daemon.info sshd[412]: {}",
    "Thu Nov 26 08:14:14 2026 user.notice {}",
    "2026-11-26T08:14:14.693976+01:00 host sshd[412]: {}",
    "2026-11-26T08:14:14.693976+01:00 host nginx 412 - - {}",
    "2026-11-26T08:14:14.693976+01:00 host nginx - - - {}",
    "<14>1 2026-11-26T08:14:14.693976+01:00 host nginx - - - {}",
    "<14>Nov 26 08:14:14 host nginx: {}",
    "Nov 26 08:14:14 relay 2026-11-26T08:14:14.693976+01:00 other nginx: {}",
    "2026-11-26T08:14:14.693976+01:00 other nginx: {}",
    "[  412.345678] TCP: {}",
    "[  412.345678] other-prefix IN=eth0 OUT= {}",
    "[Thu Nov 26 08:14:14 2026] [error] [client 192.0.2.9] {}",
    '192.0.2.9 - - [26/Nov/2026:08:14:14 +0000] "GET /{}',
    "12,555,412345678,-;{}",
]
"""Messages of other programs as syslog daemons write them, each with a text that a remote party chooses."""


@given(
    kernel_lines(), st.sampled_from(MESSAGES), st.integers(0, 80), st.sampled_from(["", " ", "kernel: ", "x kernel: "])
)
def test_a_text_of_somebody_else_is_no_line(
    sample: tuple[bytes, Packet], message: str, begin: int, before: str
) -> None:
    """A knock's line or any end of one, as a user name, a path or a message, makes no program's line the kernel's."""
    line = sample[0]
    text = before.encode() + line[min(begin, line.index(b"knockknock ")) :]
    front, _, _ = message.partition("{}")
    found = parse(front.encode() + text)
    if found is not None:
        # The kernel's own words behind the kernel's own name are the kernel's, and so is a text behind a date alone.
        assert front.endswith(("kernel: [  412.345678] ", "08:14:14 host "))


@given(kernel_lines(), kernel_lines(), st.sampled_from([b"", b" ", b"\n", b"\r\n", b"\0", b"["]))
def test_two_lines_are_none(one: tuple[bytes, Packet], other: tuple[bytes, Packet], between: bytes) -> None:
    assert parse(one[0] + between + other[0]) is None


@given(kernel_lines(), st.text("\n\r \0", min_size=1, max_size=3).map(str.encode))
def test_the_end_of_a_line(sample: tuple[bytes, Packet], end: bytes) -> None:
    """One newline belongs to it, as in what is read of /dev/kmsg; and the space that the kernel puts before it."""
    line, packet = sample
    expected = packet if (end in (b"\n", b" ", b" \n") and not line.endswith(b" ")) or end == b"\n" else None
    assert parse(line + end) == expected


@given(kernel_lines())
def test_every_beginning_of_a_line(sample: tuple[bytes, Packet]) -> None:
    """Lines that a syslog daemon has not written to their end."""
    line = sample[0]
    for end in range(line.index(b" URGP=") + 7):
        assert parse(line[:end]) is None
    for end in range(len(line) - 1):
        packet = parse(line[:end])
        assert packet is None or packet._replace(options=b"") == sample[1]._replace(options=b"")


HOSTILE: dict[str, Callable[[int], bytes]] = {
    "spaces": lambda size: b" " * size,
    "one letter": lambda size: b"k" * size,
    "the prefix": lambda size: b"knockknock " * (size // 11),
    "host names": lambda size: b"Nov 20 19:00:00 " + b"h kernel: " * (size // 10),
    "a host name": lambda size: b"Nov 20 19:00:00 " + b"h" * size,
    "brackets": lambda size: b"[" * size,
    "stamps": lambda size: b"[    0.000001] " * (size // 15),
    "kmsg fields": lambda size: b"7,1,1,-" + b",a" * (size // 2) + b";",
    "an interface": lambda size: b"knockknock IN=" + b"e" * size,
    "physical ports": lambda size: b"knockknock IN=e OUT= " + b"PHYSIN=e " * (size // 9),
    "a hardware address": lambda size: b"knockknock IN=e OUT= MAC=" + b"02:" * (size // 3),
    "a number": lambda size: GOOD.replace(b"SEQ=1", b"SEQ=" + b"1" * size),
    "zeros": lambda size: GOOD.replace(b"SEQ=1", b"SEQ=" + b"0" * size),
    "IP options": lambda size: GOOD.replace(b"DF ", b"DF OPT (" + b"00" * (size // 2) + b") "),
    "TCP options": lambda size: GOOD + b"OPT (" + b"01" * (size // 2) + b") ",
    "extension headers": lambda size: (
        b"knockknock IN=e OUT= SRC=" + b"0000:" * 7 + b"0000 DST=" + b"0000:" * 7 + b"0000 LEN=1 TC=0 HOPLIMIT=1 "
        b"FLOWLBL=1 " + b"OPT ( ) " * (size // 8)
    ),
    "a good line and spaces": lambda size: GOOD + b" " * size,
    "good lines": lambda size: GOOD * (size // len(GOOD) + 2),
}


def seconds(line: bytes, times: int) -> float:
    """The shortest time of some that a line takes; not below what a clock can tell."""

    def once() -> float:
        start = time.perf_counter()
        for _ in range(times):
            parse(line)
        return (time.perf_counter() - start) / times

    return max(min(once() for _ in range(7)), 1e-6)


@pytest.mark.parametrize("shape", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize(("size", "times"), [(MAX_LINE // 12, 30), (100_000, 3)], ids=["short", "1 MB"])
def test_linear_time(shape: Callable[[int], bytes], size: int, times: int) -> None:
    """Ten times the line takes some ten times as long; a hundred times would be quadratic."""
    assert parse(shape(size)) is None
    assert parse(shape(10 * size)) is None
    assert seconds(shape(10 * size), times) < 30 * seconds(shape(size), times)


@given(st.sampled_from(sorted(HOSTILE)), st.integers(0, 3 * MAX_LINE))
def test_hostile_lines_of_any_length(shape: str, size: int) -> None:
    packet = parse(HOSTILE[shape](size))
    assert packet is None or sane(packet)
