"""Sources of the daemon: the file of a real rsyslogd, with rotation in the middle, and the kernel's ring."""

import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from knockknock.server.deafness import LATE

from .lab import Lab, until

pytestmark = pytest.mark.kernel_log
HOST = "10.77.0.1"
TEMPLATES = {"classic": "RSYSLOG_TraditionalFileFormat", "iso": "RSYSLOG_FileFormat"}


class Syslog:
    """An rsyslogd of our own, which writes the kernel's messages to a file."""

    def __init__(self, lab: Lab, template: str) -> None:
        directory = lab.directory / "log"
        directory.mkdir()
        self.path = directory / "kern.log"
        config = lab.directory / "rsyslog.conf"
        config.write_text(
            'module(load="imkmsg")\n'
            f'global(workDirectory="{directory}")\n'
            f'kern.* action(type="omfile" file="{self.path}" template="{template}"'
            ' fileOwner="root" fileGroup="adm" fileCreateMode="0640")\n'
        )
        self.process = lab.start("server", "rsyslogd", "-n", "-f", str(config), "-i", str(directory / "pid"))
        until(self.path.exists)
        lab.configure(source="file", log_file=str(self.path))

    def rotate(self) -> None:
        """As Debian's logrotate does: rename, create, tell."""
        self.path.rename(self.path.with_suffix(".1"))
        fd = os.open(self.path, os.O_CREAT | os.O_WRONLY, 0o640)
        os.fchown(fd, 0, os.stat(self.path.with_suffix(".1")).st_gid)
        os.close(fd)
        self.process.send_signal(signal.SIGHUP)

    def copytruncate(self) -> None:
        shutil.copy(self.path, self.path.with_suffix(".1"))
        os.truncate(self.path, 0)

    def delete(self) -> None:
        self.path.unlink()
        self.process.send_signal(signal.SIGHUP)


@pytest.fixture(params=list(TEMPLATES))
def syslog(lab: Lab, request: pytest.FixtureRequest) -> Syslog:
    lab.mint("laptop")
    lab.listen(22)
    return Syslog(lab, TEMPLATES[request.param])


def checked(lab: Lab) -> subprocess.CompletedProcess[str]:
    words = [*lab.program("knockknock-daemon"), "--config", lab.configure(), "--check"]
    return lab.run("server", *words, check=False)


@pytest.mark.parametrize("source", ["kmsg", "nflog"])
def test_check_sends_a_packet_and_leaves_no_trace(lab: Lab, source: str) -> None:
    lab.mint("laptop")
    lab.configure(source=source)
    before = lab.ruleset()
    done = checked(lab)
    assert (done.returncode, done.stderr) == (0, "")
    assert "a packet to 127.0.0.1 was logged by the kernel, and heard from " in done.stdout
    assert lab.ruleset() == before
    daemon = lab.daemon()
    running = checked(lab)
    assert running.returncode == 0
    assert ("was logged by the kernel, and heard" in running.stdout) is (source == "kmsg")
    assert daemon.stop() == 0


def test_check_where_no_packet_gets_through(lab: Lab) -> None:
    lab.configure(source="kmsg")
    lab.mint("laptop")
    lab.run("server", "ip", "link", "set", "lo", "down")
    done = checked(lab)
    assert (done.returncode, done.stderr) == (0, "")
    assert "a packet to 127.0.0.1 did not reach the firewall, so it is not known whether" in done.stdout


def test_check_of_a_file_that_would_be_deaf(lab: Lab, quiet: Path) -> None:
    done = checked(lab)
    assert done.returncode == 1
    assert f"a packet was logged, but nothing of it came in {quiet} within 3 s: its syslog daemon must" in done.stderr
    stop = threading.Event()

    def write() -> None:
        while not stop.wait(0.05):
            with quiet.open("a") as log:
                log.write("in the evening: knockknock IN=lo OUT= SRC=127.0.0.1\n")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        done = checked(lab)
    finally:
        stop.set()
        writer.join()
    assert done.returncode == 1
    assert f'its line is not understood in {quiet}: it begins "in the evening: "' in done.stderr


@pytest.fixture
def quiet(lab: Lab) -> Path:
    """A log file that nobody but the test writes to, while the kernel logs elsewhere."""
    lab.mint("laptop")
    path = lab.directory / "kern.log"
    path.write_text("")
    path.chmod(0o644)
    lab.configure(source="file", log_file=str(path))
    return path


def test_a_directory_that_is_another_ends_a_daemon_in_its_sandbox(lab: Lab, quiet: Path) -> None:
    """It may not read there; systemd starts it again, and it may."""
    link = lab.directory / "log"
    for name in ("old", "new"):
        (lab.directory / name).mkdir()
        shutil.copy2(quiet, lab.directory / name)
    link.symlink_to("old")
    lab.configure(source="file", log_file=str(link / "kern.log"), sandbox="required")
    daemon = lab.daemon()
    (lab.directory / "next").symlink_to("new")
    (lab.directory / "next").rename(link)
    daemon.says("kern.log is in another directory now, which the sandbox does not let it read")
    assert daemon.process.wait(10) == 1
    lab.daemon()


def status(lab: Lab) -> str:
    words = [*lab.program("knockknock-daemon"), "--config", f"{lab.directory}/etc/config", "--status"]
    return lab.run("server", *words).stdout


def test_lines_with_a_front_that_is_not_understood(lab: Lab, quiet: Path) -> None:
    daemon = lab.daemon()
    lab.knock(HOST)
    with quiet.open("a") as log:
        log.write("\x1b[2Jlate in the evening host kernel! knockknock IN=s0 OUT= SRC=10.77.0.2 DST=10.77.0.1 LEN=60\n")
    daemon.says(
        f"deaf at {quiet}: the firewall has logged 1 packet(s) to knock ports, but their lines are not understood"
    )
    daemon.says('one begins "?[2Jlate in the evening host kernel! "')
    assert "10.77.0.2" not in daemon.log()
    assert "deaf at" in status(lab)


def test_a_file_that_nobody_writes_to(walled: Lab) -> None:
    """--status knows it at once; the log has it when something wakes the daemon later than a line could be."""
    walled.mint("laptop")
    path = walled.directory / "kern.log"
    path.write_text("")
    path.chmod(0o644)
    walled.configure(source="file", log_file=str(path))
    daemon = walled.daemon()
    assert "deaf" not in status(walled)
    walled.knock(HOST)
    until(lambda: "none came there" in status(walled))
    assert "deaf" not in daemon.log()
    time.sleep(LATE)
    status(walled)
    daemon.says(f"deaf at {path}: the firewall has logged 1 packet(s) to knock ports, but none came there")
    assert daemon.stop() == 0


def test_rotation_in_the_middle(lab: Lab, syslog: Syslog) -> None:
    daemon = lab.daemon()
    daemon.says(f"reading {syslog.path}")
    for number, rotate in enumerate((syslog.rotate, syslog.copytruncate, syslog.delete, syslog.rotate)):
        for _ in range(2):
            lab.knock(HOST)
            assert lab.opens(HOST), f"after {number} rotations: {daemon.log()}"
        rotate()
        lab.knock(HOST)
        assert lab.opens(HOST), f"right after rotation {number}: {daemon.log()}"
    until(lambda: daemon.log().count("open tcp/22 for") == 12)
    assert "refused replay" not in daemon.log(), "a line was read twice"


def test_a_directory_that_shuts_the_daemon_out_is_said(lab: Lab, syslog: Syslog) -> None:
    """The file can be read now, by its group; after its rotation nobody could open it."""
    syslog.path.parent.chmod(0o750)
    sentence = f"may not go into {syslog.path.parent}, so {syslog.path} cannot be opened after its next rotation: chmod"
    assert sentence in checked(lab).stderr
    daemon = lab.daemon(ready=False)
    daemon.says(sentence)
    assert daemon.process.wait(10) == 1
    syslog.path.parent.chmod(0o751)
    lab.daemon().says(f"reading {syslog.path}")


def test_late_creation(lab: Lab) -> None:
    lab.mint("laptop")
    lab.listen(22)
    directory = lab.directory / "late"
    directory.mkdir()
    lab.configure(source="file", log_file=f"{directory}/kern.log")
    daemon = lab.daemon()
    config = lab.directory / "rsyslog.conf"
    config.write_text(
        f'module(load="imkmsg")\nglobal(workDirectory="{directory}")\n'
        f'kern.* action(type="omfile" file="{directory}/kern.log" fileGroup="adm" fileCreateMode="0640")\n'
    )
    lab.start("server", "rsyslogd", "-n", "-f", str(config), "-i", f"{directory}/pid")
    until(Path(f"{directory}/kern.log").exists)
    lab.knock(HOST)
    assert lab.opens(HOST), daemon.log()


def test_auto_takes_the_file_if_it_is_there(lab: Lab, syslog: Syslog) -> None:
    lab.configure(source="auto")
    lab.daemon().says(f"reading {syslog.path}")


def test_auto_takes_the_ring_if_there_is_no_file(lab: Lab) -> None:
    lab.mint("laptop")
    lab.configure(source="auto", log_file=f"{lab.directory}/nosuch.log")
    lab.daemon().says("reading /dev/kmsg")


def test_overrun_of_the_ring_is_reported_and_survived(lab: Lab) -> None:
    lab.mint("laptop")
    lab.listen(22)
    lab.configure(source="kmsg")
    daemon = lab.daemon()
    daemon.process.send_signal(signal.SIGSTOP)
    limit = Path("/proc/sys/kernel/printk_devkmsg")
    before = limit.read_text()
    limit.write_text("on\n")
    try:
        with open("/dev/kmsg", "w") as ring:
            for number in range(12000):
                ring.write(f"knockknock test fills the ring {number} {'x' * 80}\n")
                ring.flush()
    finally:
        limit.write_text(before)
    daemon.process.send_signal(signal.SIGCONT)
    daemon.says("the kernel's log ran over")
    lab.knock(HOST)
    assert lab.opens(HOST)


def test_zero_wake_ups_while_idle(lab: Lab, syslog: Syslog) -> None:
    """None of the processes runs while nothing is logged."""
    daemon = lab.daemon()

    for _ in range(5):
        before, size = daemon.at_rest(), syslog.path.stat().st_size
        time.sleep(3)
        after = daemon.switches()
        if syslog.path.stat().st_size == size:
            break  # else the kernel had something to say, which has nothing to do with us
    assert after == before
