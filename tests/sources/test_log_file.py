"""A log file is followed through every way of rotating it: no line lost, none read twice, none read half."""

import os
import select
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from knockknock import sources
from knockknock.errors import SourceError
from knockknock.server.config import Config
from knockknock.sources import log_file

from ..helpers import NOBODY

LINE = (
    "Nov 20 18:33:57 host kernel: [    1.000000] knockknock IN=eth0 OUT= MAC= SRC=192.0.2.7 DST=192.0.2.1 LEN=60"
    " TOS=0x00 PREC=0x00 TTL=64 ID=1 DF PROTO=TCP SPT=4000 DPT=4242 SEQ={} ACK=0 WINDOW=1024 RES=0x00 SYN URGP=0 \n"
)


class Log:
    """A syslog daemon with one file, that keeps it open until it is told to open it again."""

    def __init__(self, path: Path) -> None:
        self.path, self.count = path, 0
        self.reopen()

    def reopen(self) -> None:
        self.file = self.path.open("a", buffering=1)

    def write(self, lines: int = 1) -> None:
        for _ in range(lines):
            self.count += 1
            self.file.write(LINE.format(self.count))


@pytest.fixture
def log(tmp_path: Path) -> Log:
    one = Log(tmp_path / "kern.log")
    one.path.chmod(0o644)
    one.file.write("something that was there before\n")
    return one


@pytest.fixture
def source(log: Log) -> log_file.KernLog:
    return log_file.open_source(str(log.path))


def heard(source: log_file.KernLog) -> list[int]:
    return [packet.sequence for packet in source.read() if packet]


def rename(log: Log, number: int) -> None:
    """logrotate's create: the writer goes on writing to the renamed file until its reopen."""
    log.path.rename(log.path.with_suffix(f".{number}"))
    log.path.touch(0o644)


def rename_without_successor(log: Log, number: int) -> None:
    log.path.rename(log.path.with_suffix(f".{number}"))


def delete(log: Log, _number: int) -> None:
    log.path.unlink()


@pytest.mark.parametrize("rotate", [rename, rename_without_successor, delete])
@pytest.mark.parametrize("read_between", [0, 1, 2, 3])
def test_rotation(log: Log, source: log_file.KernLog, rotate: Callable[[Log, int], None], read_between: int) -> None:
    """Three rotations; read_between: bits that say after which steps the reader comes to read."""
    found = []
    for number in range(3):
        log.write(2)
        if read_between & 1:
            found += heard(source)
        rotate(log, number)
        log.write(3)  # to the old file
        if read_between & 2:
            found += heard(source)
        log.reopen()
        log.write(1)
        found += heard(source)  # a file that came and went before anybody looked cannot be found again
    assert found == list(range(1, log.count + 1))


def test_two_rotations_while_the_successor_is_empty(log: Log, source: log_file.KernLog) -> None:
    log.write()
    rename(log, 1)
    assert heard(source) == [1]
    rename(log, 2)
    assert heard(source) == []
    log.write()  # still to the first
    assert heard(source) == [2]
    log.reopen()
    log.write()
    assert heard(source) == [3]


@pytest.mark.parametrize("after", [1, 50])
def test_copytruncate(log: Log, source: log_file.KernLog, after: int) -> None:
    """Truncated, and shorter or already longer than it was when the reader comes."""
    log.write(10)
    assert heard(source) == list(range(1, 11))
    shutil.copy(log.path, log.path.with_suffix(".1"))
    os.truncate(log.path, 0)
    log.write(after)
    assert heard(source) == list(range(11, 11 + after))


def test_half_a_line(log: Log, source: log_file.KernLog) -> None:
    line = LINE.format(1)
    log.file.write(line[:100])
    log.file.flush()
    assert heard(source) == []
    log.file.write(line[100:])
    log.file.flush()
    assert heard(source) == [1]


def test_begins_at_the_end_and_passes_over_a_half_line(tmp_path: Path) -> None:
    log = Log(tmp_path / "kern.log")
    log.write(5)
    half = LINE.format(99)
    log.file.write(half[:80])
    log.file.flush()
    source = log_file.open_source(str(log.path))
    log.file.write(half[80:] + LINE.format(100))
    log.file.flush()
    assert heard(source) == [100]


def test_late_creation(tmp_path: Path) -> None:
    source = log_file.open_source(str(tmp_path / "kern.log"))
    assert heard(source) == []
    Log(tmp_path / "kern.log").write(2)
    assert heard(source) == [1, 2]


def test_line_without_end_takes_no_memory(log: Log, source: log_file.KernLog) -> None:
    for _ in range(64):
        log.file.write("x" * (1 << 20))
        log.file.flush()
        assert heard(source) == []
    log.file.write("\n")
    log.write()
    assert heard(source) == [1]


def test_file_that_only_root_may_read(log: Log) -> None:
    log.path.chmod(0o600)
    with pytest.raises(SourceError, match="can be read by root alone, so not after its next rotation"):
        log_file.open_source(str(log.path))


def test_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be followed"):
        log_file.open_source(str(tmp_path / "nosuch" / "kern.log"))


def test_descriptor_is_readable_only_after_a_write(log: Log, source: log_file.KernLog) -> None:
    import select

    assert not select.select([source], [], [], 0.05)[0]
    log.write()
    assert select.select([source], [], [], 1)[0]
    heard(source)
    assert not select.select([source], [], [], 0.05)[0]


def test_logrotate_itself(log: Log, source: log_file.KernLog, tmp_path: Path) -> None:
    """Debian's own program, with its default way."""
    log.write(3)
    config = tmp_path / "conf"
    config.write_text(f"{log.path} {{\n  su root root\n  rotate 4\n  create 0644\n}}\n")
    config.chmod(0o644)
    tmp_path.chmod(0o755)
    subprocess.run(["logrotate", "-f", "-s", str(tmp_path / "status"), str(config)], check=True)
    log.write(2)
    log.reopen()
    log.write(2)
    assert heard(source) == list(range(1, 8))


@pytest.mark.parametrize("hops", [1, 2])
def test_a_link_whose_target_is_rotated(tmp_path: Path, hops: int) -> None:
    """Rotations where the file really is: nothing changes in the link's own directory."""
    for name in ("real", "between", "link"):
        (tmp_path / name).mkdir()
    one = Log(tmp_path / "real" / "kern.log")
    one.path.chmod(0o644)
    (tmp_path / "between" / "kern.log").symlink_to("../real/kern.log")
    (tmp_path / "link" / "kern.log").symlink_to(tmp_path / ("real" if hops == 1 else "between") / "kern.log")
    source = log_file.open_source(str(tmp_path / "link" / "kern.log"))
    for number in range(3):
        one.write()
        assert heard(source) == [2 * number + 1]
        rename(one, number)
        one.reopen()
        one.write()
        assert select.select([source], [], [], 2)[0], "somebody who sleeps is woken"
        assert heard(source) == [2 * number + 2]


def test_a_link_that_leads_elsewhere_from_now_on(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    old, new = (Log(tmp_path / name / "kern.log") for name in ("old", "new"))
    for one in (old, new):
        one.path.chmod(0o644)
    link = tmp_path / "kern.log"
    link.symlink_to(old.path)
    source = log_file.open_source(str(link))
    (tmp_path / "next").symlink_to(new.path)
    (tmp_path / "next").rename(link)
    assert heard(source) == []
    new.write()
    assert heard(source) == [1]
    rename(new, 1)
    new.reopen()
    new.write()
    assert select.select([source], [], [], 2)[0]
    assert heard(source) == [2]


def readable(path: Path) -> Log:
    path.parent.mkdir()
    one = Log(path)
    path.chmod(0o644)
    return one


def test_a_link_that_leads_nowhere_is_said_and_ends_nothing(tmp_path: Path) -> None:
    old = readable(tmp_path / "old" / "kern.log")
    link = tmp_path / "kern.log"
    link.symlink_to(old.path)
    source = log_file.open_source(str(link))
    (tmp_path / "next").symlink_to(tmp_path / "new" / "kern.log")
    (tmp_path / "next").rename(link)
    old.write()
    assert heard(source) == [1]
    assert source.complaint() == f"{link} cannot be followed: {tmp_path}/new is not there"
    readable(tmp_path / "new" / "kern.log").write()
    assert select.select([source], [], [], 2)[0]
    assert heard(source) == [1]
    assert source.complaint() == ""


def point_elsewhere(place: Path) -> None:
    (place / "next").symlink_to("new")
    (place / "next").rename(place / "log")


def move_away(place: Path) -> None:
    (place / "old").rename(place / "older")
    (place / "new").rename(place / "old")


def remove(place: Path) -> None:
    shutil.rmtree(place / "old")
    (place / "new").rename(place / "old")


@pytest.mark.parametrize("change", [point_elsewhere, move_away, remove])
@pytest.mark.parametrize("below", ["", "host"])
def test_a_directory_on_the_way_is_another_from_now_on(
    tmp_path: Path, change: Callable[[Path], None], below: str
) -> None:
    """Somebody who sleeps is woken, also by a later rotation there."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / below).mkdir(exist_ok=True)
        (tmp_path / name / below / "kern.log").touch(0o644)
    (tmp_path / "log").symlink_to("old")
    path = tmp_path / "log" / below / "kern.log"
    source = log_file.open_source(str(path))
    change(tmp_path)
    assert select.select([source], [], [], 2)[0]
    assert heard(source) == []
    one = Log(path)
    one.write()
    assert select.select([source], [], [], 2)[0]
    assert heard(source) == [1]
    rename(one, 1)
    one.reopen()
    one.write()
    assert select.select([source], [], [], 2)[0]
    assert heard(source) == [2]
    assert heard(source) == []
    assert not select.select([source], [], [], 0)[0], "and then sleeps on"


def test_a_directory_that_the_sandbox_shuts_out_ends_it(
    log: Log, source: log_file.KernLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its mode the new file may be read, so waiting would not help; a start, which systemd makes, does."""
    log.path.rename(log.path.with_suffix(".1"))
    log.path.touch(0o644)

    def refused(*_: object) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(SourceError, match="which the sandbox does not let it read: restart the daemon"):
        heard(source)


def test_a_file_that_becomes_ours_between_two_looks(
    log: Log, source: log_file.KernLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its maker gives it to our group just after it could not be opened: that is not the sandbox."""
    real, failures = os.open, [PermissionError()]

    def slow(path: str, *rest: int) -> int:
        if failures and path == str(log.path):
            raise failures.pop()
        return real(path, *rest)

    rename(log, 1)
    monkeypatch.setattr(os, "open", slow)
    heard(source)
    log.reopen()
    log.write()
    assert heard(source) == [1]
    assert not failures


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_file_that_is_mounted_by_itself_is_said(log: Log, tmp_path: Path) -> None:
    place = tmp_path / "inside" / "kern.log"
    place.parent.mkdir()
    place.touch()
    subprocess.run(["mount", "--bind", str(log.path), str(place)], check=True)
    try:
        complaint = log_file.open_source(str(place)).complaint()
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
    assert "is mounted by itself" in complaint
    assert log_file.open_source(str(log.path)).complaint() == ""


def test_auto_passes_by_a_file_of_before_the_boot(log: Log) -> None:
    config = Config(source="auto", log_file=str(log.path))
    assert sources.choose(config)[0] == "file"
    os.utime(log.path, (1, 1))
    assert sources.choose(config)[0] == "kmsg"
    assert sources.choose(config._replace(source="file"))[0] == "file"
    found = sources.open_source(config)
    assert found.path == f"/dev/kmsg ({log.path} was not written to since this machine's boot)"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("owner", [0, NOBODY])
def test_auto_passes_by_a_file_that_its_writer_has_left(log: Log, owner: int) -> None:
    """A syslog daemon that was removed, or told to write elsewhere, since the boot."""
    os.chown(log.path, owner, 0)
    config = Config(source="auto", log_file=str(log.path))
    assert sources.choose(config)[0] == "file"
    with log.path.open() as somebody:
        log.file.close()
        assert sources.open_source(config).path == f"/dev/kmsg (no program has {log.path} open to write to it)"
        assert somebody.readable()
    assert os.geteuid() == 0
    log.reopen()
    assert sources.open_source(config).path == str(log.path)


def test_a_container_without_the_ring_is_told_the_way_out(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    there = os.path.exists
    monkeypatch.setattr(os.path, "exists", lambda path: path != "/dev/kmsg" and there(path))
    config = Config(source="auto", log_file=str(log.path))
    log.file.close()
    assert sources.choose(config)[0] == "file", "it may be between two rotations"
    os.utime(log.path, (1, 1))
    kmsg = config._replace(source="kmsg")
    for one, absent in (
        (config, f", and {log.path} was not written to since this machine's boot"),
        (config._replace(log_file="/nowhere"), ", and there is no /nowhere"),
        (kmsg, ""),
    ):
        with pytest.raises(SourceError) as raised:
            sources.choose(one)
        assert str(raised.value) == f"there is no /dev/kmsg here, as in many containers{absent}: set source = nflog"
