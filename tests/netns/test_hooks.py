"""Programs that are run when a door opens or shuts: their user, environment, time and number."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from knockknock.root.record import Grant, Order
from knockknock.server import event_text as facts_of
from knockknock.server.hook_runner import PATH
from knockknock.server.hooks import AT_ONCE, RECORD, Happened, Hooks, pack

from .lab import DELAY, ROOT, Lab, until

HOST, CLIENT = "10.77.0.1", "10.77.0.2"
OPENED = Happened("laptop", Grant(Order.OPEN_ONCE, socket.inet_aton(CLIENT), 6, 22, 15))


@pytest.fixture
def place(lab: Lab) -> Path:
    """A directory that hooks may write to."""
    directory = lab.directory / "hooks"
    directory.mkdir()
    directory.chmod(0o777)
    return directory


def hook(place: Path, name: str, *lines: str) -> str:
    """A program."""
    path = place / name
    path.write_text("\n".join(("#!/bin/sh", *lines)) + "\n")
    path.chmod(0o755)
    return str(path)


def facts(path: Path) -> dict[str, str]:
    until(path.exists)
    return dict(line.split("=", 1) for line in path.read_text().splitlines())


SHELLS_OWN = {"PWD", "_", "SHLVL", "OLDPWD"}


def test_facts_in_the_environment_and_nothing_else(lab: Lab, place: Path, daemon_user: Any) -> None:
    lab.mint("laptop", "--ports", "tcp/22,udp/53")
    write = [f"env > {place}/$KNOCKKNOCK_EVENT.new; id -u > {place}/who; id -G >> {place}/who; nice > {place}/nice"]
    write.append(f"mv {place}/$KNOCKKNOCK_EVENT.new {place}/$KNOCKKNOCK_EVENT-$KNOCKKNOCK_PORT-$KNOCKKNOCK_REASON")
    program = hook(place, "hook", *write)
    lab.configure(on_open=program, on_close=program, sandbox="required", source="nflog")
    daemon = lab.daemon()
    lab.knock(HOST)
    door = {"KNOCKKNOCK_PROFILE": "laptop", "KNOCKKNOCK_SOURCE": CLIENT, "PATH": PATH}
    ssh = {"KNOCKKNOCK_PROTOCOL": "tcp", "KNOCKKNOCK_PORT": "22"}
    told = {"KNOCKKNOCK_EVENT": "open", "KNOCKKNOCK_SECONDS": str(DELAY), "KNOCKKNOCK_USE": "one"}
    found = {key: value for key, value in facts(place / "open-22-").items() if key not in SHELLS_OWN}
    assert found == door | ssh | told
    assert (place / "who").read_text().split() == [str(daemon_user.pw_uid), str(daemon_user.pw_gid)]
    assert (place / "nice").read_text() == "0\n", "the daemon runs before others, and its hooks do not"
    found = {key: value for key, value in facts(place / "close-22-ended").items() if key not in SHELLS_OWN}
    assert found == door | ssh | {"KNOCKKNOCK_EVENT": "close", "KNOCKKNOCK_REASON": "ended"}
    lab.knock(HOST, ports=("53/udp",))
    lab.knock(HOST, "--close", ports=("53/udp",))
    assert facts(place / "close-53-asked")["KNOCKKNOCK_PROTOCOL"] == "udp"
    assert daemon.stop() == 0


def test_no_hook_no_process(lab: Lab) -> None:
    daemon = lab.daemon()
    pid = daemon.process.pid
    assert len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()) == 1


@pytest.mark.parametrize("key", ["on_open", "on_close"])
def test_a_hook_that_is_no_program(lab: Lab, place: Path, key: str) -> None:
    (place / "text").write_text("#!/bin/sh\n")
    before = lab.ruleset()
    lab.configure(**{key: f"{place}/text"})
    for options in ((), ("--check",)):
        words = [*lab.program("knockknock-daemon"), "--config", f"{lab.directory}/etc/config", *options]
        done = lab.run("server", *words, check=False)
        assert done.returncode == 1
        last = done.stderr.splitlines()[-1]
        assert last == f"knockknock-daemon: {key}: {place}/text is not a program that can be executed"
    assert lab.ruleset() == before


def test_one_that_fails_is_named(lab: Lab, place: Path) -> None:
    lab.mint("laptop")
    lab.configure(on_open=hook(place, "fails", "echo it says why >&2", "exit 3"), source="nflog")
    daemon = lab.daemon()
    lab.knock(HOST)
    daemon.says("it says why")
    daemon.says(f"knockknock: hook {place}/fails ended with status 3")
    assert daemon.stop() == 0


def test_an_alarm_wakes_a_hook(lab: Lab, place: Path) -> None:
    """SIGALRM is blocked when the runner starts; a shell would unblock it by itself, Perl does not."""
    lab.mint("laptop")
    program = place / "waits"
    program.write_text("#!/usr/bin/perl\nalarm 1;\nsleep 60;\n")
    program.chmod(0o755)
    lab.configure(on_open=str(program), source="nflog")
    daemon = lab.daemon()
    lab.knock(HOST)
    daemon.says(f"knockknock: hook {program} ended with status -{signal.SIGALRM:d}")
    assert daemon.stop() == 0


@pytest.fixture
def runner(daemon_user: Any, tmp_path: Path, lab: Lab, place: Path) -> Iterator[Any]:
    """Function that starts the runner by itself, with a time limit; it returns our end of the pair and the process."""
    started: list[subprocess.Popen[str]] = []

    def start(program: str, seconds: float) -> tuple[socket.socket, subprocess.Popen[str]]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        code = (
            f"import sys; sys.path[:0] = [{str(ROOT)!r}]; from knockknock.server import hook_runner; "
            f"hook_runner.SECONDS = {seconds}; hook_runner.main()"
        )
        words = [sys.executable, "-I", "-c", code, str(daemon_user.pw_uid), str(daemon_user.pw_gid)]
        with theirs:
            done = subprocess.Popen([*words, program, ""], stdin=theirs.fileno(), stderr=subprocess.PIPE, text=True)
        started.append(done)
        return ours, done

    yield start
    for one in started:
        one.kill()
        one.wait()


def test_killed_after_its_time_with_all_that_it_started(runner: Any, place: Path) -> None:
    program = hook(
        place, "sleeps", f"sleep 60 & echo $! > {place}/child.new", f"mv {place}/child.new {place}/child", "wait"
    )
    pair, process = runner(program, 0.5)
    pair.send(pack(OPENED))
    until((place / "child").exists)
    child = int((place / "child").read_text())
    until(lambda: not Path(f"/proc/{child}").exists() or "Z (zombie)" in Path(f"/proc/{child}/status").read_text())
    pair.close()
    assert process.wait(10) == 0
    assert f"hook {program} was killed after 0.5 s" in process.stderr.read()


def test_a_flood_does_not_start_more(runner: Any, place: Path) -> None:
    program = hook(place, "slow", f"touch {place}/run-$$", "sleep 0.4", f"rm {place}/run-$$")
    pair, process = runner(program, 10)
    pair.setblocking(False)
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while sent < 100_000:
            pair.send(pack(OPENED))
            sent += 1
    assert 10 < sent < 1000, "the kernel bounds what waits"
    most, end = 0, time.monotonic() + 2
    while time.monotonic() < end:
        most = max(most, len(list(place.glob("run-*"))))
        time.sleep(0.01)
    assert most == AT_ONCE
    process.kill()


def test_the_daemon_says_what_it_leaves_out(lab: Lab, place: Path, daemon_user: Any) -> None:
    """A runner that does not read: what has no room in the kernel is left out, and nobody waits."""
    hooks = Hooks(hook(place, "hook", ":"), "", daemon_user.pw_uid, daemon_user.pw_gid, quiet=True)
    os.kill(hooks.process.pid, signal.SIGSTOP)
    told = facts_of.obeyed(*OPENED[:2])
    said = next(filter(None, (hooks.tell(told) for _ in range(10_000))))
    assert said == "1 run(s) of hooks left out: doors open faster than hooks end: make the hooks faster"
    assert hooks.tell(facts_of.ended(told)) == "", "there is no on_close"
    os.kill(hooks.process.pid, signal.SIGKILL)
    hooks.process.wait()
    assert hooks.tell(told) == "the process that runs hooks is gone: restart the daemon"
    hooks.stop()


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


HOSTILE = {
    "noise": os.urandom(RECORD.size),
    "too short": pack(OPENED)[:-1],
    "too long": pack(OPENED) + b"\0",
    "a path for a name": pack(OPENED).replace(b"laptop", b"../etc"),
    "a command for a name": pack(OPENED).replace(b"laptop", b"a;id;b"),
    "something behind the name": pack(OPENED)[:60] + b"x" + pack(OPENED)[61:],
    "a reload": pack(OPENED)[:65] + b"\4" + bytes(23),
    "a status": pack(OPENED)[:65] + b"\5" + bytes(23),
    "an opening that has ended": b"\1" + pack(OPENED)[1:],
    "neither true nor false": b"\2" + pack(OPENED)[1:],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_anything_but_sane_facts_ends_the_runner(runner: Any, place: Path, name: str) -> None:
    pair, process = runner(hook(place, "hook", f"touch {place}/ran"), 10)
    pair.send(HOSTILE[name])
    assert process.wait(10) == 1
    assert "hooks are run no more" in process.stderr.read()
    assert not (place / "ran").exists()


def test_the_runner_is_an_ordinary_user_for_good(lab: Lab, place: Path, daemon_user: Any) -> None:
    lab.configure(on_open=hook(place, "hook", ":"))
    daemon = lab.daemon()
    (runner,) = [pid for pid in children(daemon.process.pid) if pid != daemon.watch]
    until(lambda: f"Uid:\t{daemon_user.pw_uid}\t" in Path(f"/proc/{runner}/status").read_text())
    until(lambda: "NoNewPrivs:\t1" in Path(f"/proc/{runner}/status").read_text())
    held = Path(f"/proc/{runner}/status").read_text()
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert f"{name}:\t0000000000000000" in held
    sockets = 0
    for link in Path(f"/proc/{runner}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it may still import modules
            sockets += os.readlink(link).startswith("socket:")
    assert sockets == 1, "its end of the pair, and nobody else's"
