"""Requests of the source nflog to the kernel, and what it makes of the kernel's errors."""

import errno
import socket
from pathlib import Path
from typing import cast

import pytest

from knockknock.errors import SourceError
from knockknock.root import ruleset
from knockknock.server.config import Config
from knockknock.sources import choose, nflog, nflog_packet
from knockknock.sources.datagrams import BATCH, Datagrams
from knockknock.sources.nflog import NfLog, bind_request

from .test_nflog_packet import SAMPLES

MESSAGE = bytes.fromhex(SAMPLES[0]["hex"])


class Recorded:
    """Datagrams of a socket (sources.datagrams) of which every batch, or error, is known beforehand."""

    def __init__(self, *what: list[bytes] | int) -> None:
        self._what, self.buffer = list(what), bytearray(BATCH * nflog.BUFFER)

    def receive(self) -> list[int]:
        item = self._what.pop(0) if self._what else []
        if isinstance(item, int):
            raise OSError(item, "an error")
        for number, data in enumerate(item):
            self.buffer[number * nflog.BUFFER : number * nflog.BUFFER + len(data)] = data
        return [len(data) for data in item]


def source(*what: list[bytes] | int) -> NfLog:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        made = NfLog("NFLOG group 19275", 19275, one)
    made._datagrams = cast(Datagrams, Recorded(*what))
    return made


def test_overrun_is_counted_and_read_over() -> None:
    full = [b""] * BATCH
    one = source(full, errno.ENOBUFS, [MESSAGE], errno.ENOBUFS, [MESSAGE] * 2)
    assert len(list(filter(None, one.read()))) == 1
    assert one.complaint() == "the buffer of NFLOG group 19275 was full 1 time(s): knocks may have been lost"
    assert one.complaint() == ""
    assert len(list(one.read())) == 2
    assert "1 time(s)" in one.complaint()


def test_what_is_no_packet_gives_control_back_too() -> None:
    one = source([b"x" * 20, MESSAGE, b"", MESSAGE[:30], MESSAGE])
    assert [bool(packet) for packet in one.read()] == [False, True, False, False, True]


def test_a_full_batch_is_not_the_last() -> None:
    one = source([MESSAGE] * BATCH, [MESSAGE] * BATCH, [MESSAGE], [MESSAGE])
    assert len(list(one.read())) == 2 * BATCH + 1
    assert len(list(one.read())) == 1


def test_other_errors_end_it() -> None:
    with pytest.raises(SourceError, match="NFLOG group 19275 cannot be read any more: an error"):
        list(source(errno.EBADF).read())


@pytest.mark.skipif("sys.byteorder != 'little'", reason="the known bytes are a little-endian machine's")
def test_bind_request() -> None:
    """Laid out by hand after the kernel's header: nlmsghdr, nfgenmsg, and an attribute a line."""
    assert bind_request(0x4B4B).hex(" ", -4) == (
        "48000000 01040500 01000000 00000000 00004b4b "
        "05000100 01000000 "
        "0a000200 00000200 02000000 "
        "08000300 00000200 "
        "08000400 00000001 "
        "08000500 00000001 "
        "06000600 00000000"
    )


def test_what_is_said_twice_is_the_same() -> None:
    """Root's side and ours import nothing from each other."""
    assert ruleset.PREFIX == nflog_packet.PREFIX
    assert ruleset.COPY == nflog.COPY


def test_group_is_chosen() -> None:
    assert choose(Config(source="nflog", nflog_group=7)) == ("nflog", "7", "")


@pytest.mark.parametrize("name", ["file", "kmsg", "auto"])
def test_other_sources_have_no_group(name: str) -> None:
    assert choose(Config(source=name))[0] in ("file", "kmsg")


def test_rule_of_nftables() -> None:
    assert ruleset.told(7) == 'log prefix "knockknock " group 7 snaplen 512 queue-threshold 1'
    assert ruleset.told(0) == 'log prefix "knockknock " level debug flags tcp sequence,options'


def test_no_owner_where_nothing_is_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = tmp_path / "nfnetlink_log"
    monkeypatch.setattr(nflog, "_BOUND", str(listing))
    assert nflog._owner("19275") == ""
    listing.write_text("    7   7019     0 2   512      1  1\n19275   8123     0 2   512      1  1\n")
    assert (nflog._owner("19275"), nflog._owner("7"), nflog._owner("1")) == ("8123", "7019", "")
