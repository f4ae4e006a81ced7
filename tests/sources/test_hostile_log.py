"""A log that somebody fills to harm its reader: memory stays bounded, and the knock behind it is heard."""

import fcntl
import os
import sys
import termios
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from knockknock.errors import SourceError
from knockknock.sources import kmsg, log_file
from knockknock.sources.kernel_line import MAX_LINE
from knockknock.sources.log_file import KernLog

from .test_log_file import LINE

MOST = 4 << 20
"""Bytes that reading may take at any moment, whatever is in the file: a few times what is read at once."""
MEGABYTE = 1 << 20
KNOCK = LINE.format(1).encode()
BODY = KNOCK.rstrip(b"\n")


def in_pieces(piece: bytes, total: int) -> Iterator[bytes]:
    """A piece again and again, up to some bytes."""
    for _ in range(total // len(piece)):
        yield piece


HOSTILE: dict[str, Callable[[], Iterator[bytes]]] = {
    "a line of 10 MB": lambda: in_pieces(b"x" * 1000, 10 * MEGABYTE),
    "10 MB of NUL": lambda: in_pieces(bytes(1000), 10 * MEGABYTE),
    "10 MB that is not UTF-8": lambda: in_pieces(b"\xff\xfe\xc3\x28\xed\xa0\x80" * 100, 10 * MEGABYTE),
    "a million lines without their ends": lambda: in_pieces(BODY * 100, 1_000_000 * len(BODY)),
    "a million empty lines": lambda: in_pieces(b"\n" * 1000, 1_000_000),
    "a million lines of two bytes": lambda: in_pieces(b"\xc3(\n" * 1000, 3_000_000),
    "lines one byte too long": lambda: in_pieces(BODY.ljust(MAX_LINE + 1, b" ") + b"\n", 10 * MEGABYTE),
    "knocks with a NUL inside": lambda: in_pieces(BODY[:80] + b"\0" + BODY[80:] + b"\n", 10 * MEGABYTE),
    "lines that end like a Mac's": lambda: in_pieces(BODY + b"\r", 10 * MEGABYTE),
    "a front that never ends": lambda: in_pieces(b"Nov 20 18:33:57 host kernel: " * 40, 10 * MEGABYTE),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    one = tmp_path / "kern.log"
    one.write_bytes(b"something that was there before\n")
    one.chmod(0o644)
    return one


def fill(path: Path, pieces: Iterator[bytes]) -> None:
    with path.open("ab") as file:
        file.writelines(pieces)


def peak(source: KernLog) -> tuple[list[int], int]:
    """The sequence numbers of the packets that a source reads, and the most bytes that Python had for it."""
    tracemalloc.start()
    try:
        found = [packet.sequence for packet in source.read() if packet]
        return found, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("pieces", HOSTILE.values(), ids=HOSTILE)
def test_memory_is_bounded_and_the_next_knock_is_heard(path: Path, pieces: Callable[[], Iterator[bytes]]) -> None:
    source = log_file.open_source(str(path))
    fill(path, pieces())
    found, most = peak(source)
    assert found == []
    assert most < MOST
    fill(path, iter([b"\n", KNOCK]))
    found, most = peak(source)
    assert found == [1]
    assert most < MOST


def test_nothing_is_kept_of_a_line_that_grows(path: Path) -> None:
    """10 MB in 1000 writes, each read at once: what stays allocated does not follow the line."""
    source = log_file.open_source(str(path))
    tracemalloc.start()
    try:
        for _ in range(1000):
            fill(path, iter([b"x" * 10_000]))
            assert not any(source.read())
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < MEGABYTE
    assert most < MOST


def test_resident_memory_after_a_hundred_megabytes(path: Path) -> None:
    """Memory that tracemalloc cannot see, such as buffers of the C library, does not grow either."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    source = log_file.open_source(str(path))
    before = resident()
    for _ in range(10):
        fill(path, in_pieces(bytes(range(256)) * 100, 10 * MEGABYTE))
        assert not any(source.read())
        os.truncate(path, 0)
    assert resident() - before < 16 * MEGABYTE


RECORDS = {
    "NUL": bytes(2000),
    "not UTF-8": b"\xff\xfe" * 1000,
    "another facility": b"14,1,1,-;" + BODY,
    "a newline in the message": b"6,1,1,-;x\n" + BODY,
    "a second header": b"6,1,1,-;6,1,1,-;" + BODY,
}


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_ring(record: bytes) -> None:
    """Records as no kernel writes them; a pipe in packet mode ends each read where a write ended, as the ring does."""
    out, into = os.pipe2(os.O_DIRECT | os.O_NONBLOCK)
    source = kmsg.Kmsg("/dev/kmsg", out)
    os.write(into, record)
    os.write(into, b"6,2,2,-;" + KNOCK[KNOCK.index(b"knockknock ") :])
    assert [packet.sequence for packet in source.read() if packet] == [1]
    os.close(into)
    os.close(out)


def test_ring_is_drained_first_and_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a packet is being worked on the ring fills up behind us: so what it holds is taken before."""
    monkeypatch.setattr(kmsg, "HELD", 8)
    monkeypatch.setattr(kmsg, "PORTION", 2)
    out, into = os.pipe2(os.O_DIRECT | os.O_NONBLOCK)

    def say(first: int, end: int) -> None:
        for number in range(first, end):
            os.write(into, b"6,1,1,-;" + LINE.format(number).encode()[KNOCK.index(b"knockknock ") :])

    def left() -> int:
        return int.from_bytes(fcntl.ioctl(out, termios.FIONREAD, bytes(4)), sys.byteorder)

    coming = kmsg.Kmsg("/dev/kmsg", out).read()
    say(1, 6)
    heard = [next(coming)]
    assert left() == 0
    say(6, 16)
    heard += [next(coming), next(coming)]
    assert left() > 0  # 8 wait already
    heard += list(coming)
    assert [packet.sequence for packet in heard if packet] == list(range(1, 16))
    os.close(into)
    os.close(out)


@pytest.mark.parametrize("priority", ["", "<0>", "<6>", "<4>6,1,1,-;"])
def test_what_user_space_writes_to_the_ring_is_not_heard(priority: str) -> None:
    """The kernel gives it the facility "user", whatever it says of itself (printk.c, devkmsg_write)."""
    line = LINE.format(4_000_000_001).replace("DPT=4242", "DPT=4279")
    written = f"{priority}{line[line.index('knockknock ') :].rstrip()} ".encode()
    for _ in range(5):
        try:
            source, witness = kmsg.open_source("/dev/kmsg"), kmsg.open_source("/dev/kmsg")
            Path("/dev/kmsg").write_bytes(written)
        except (OSError, SourceError):
            pytest.skip("needs root and /dev/kmsg")
        heard = [packet.sequence for packet in source.read() if packet]
        arrived = any(b"SEQ=4000000001 " in record for record in records(witness.fileno()))
        for one in (source, witness):
            os.close(one.fileno())
        assert 4_000_000_001 not in heard
        if arrived and not source.complaint():
            return
    pytest.skip("somebody else floods the kernel's log")


def records(ring: int) -> Iterator[bytes]:
    """Yield the records in the ring from here on."""
    while True:
        try:
            yield os.read(ring, kmsg.RECORD)
        except BrokenPipeError:
            continue
        except BlockingIOError:
            return
