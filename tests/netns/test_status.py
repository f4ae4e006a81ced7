"""Status of a daemon that runs, for people and for programs: doors from the kernel, events, counts."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from knockknock.server.control import CLIENTS, LISTENERS

from ..helpers import VIEW
from .lab import DELAY, KNOCK_PORT, Daemon, Lab, until

HOST = "10.77.0.1"
CLIENT = "10.77.0.2"
LONG = 60
"""Seconds that a door stays open where it must not end within the test."""


@pytest.fixture(autouse=True)
def nflog(request: pytest.FixtureRequest) -> None:
    """The kernel's log is one for all namespaces, and others knock in theirs while events are counted here."""
    for name in {"lab", "walled"} & set(request.fixturenames):
        request.getfixturevalue(name).settings["source"] = "nflog"


def ask(lab: Lab, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    words = [*lab.program("knockknock-daemon"), "--config", f"{lab.directory}/etc/config", "--status", *options]
    return lab.run("server", *words, check=check)


def status(lab: Lab, *options: str) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(ask(lab, "--json", *options, check=not options).stdout)
    return said


def test_an_open_door_counts_down_in_the_kernel_and_is_gone_when_used(walled: Lab) -> None:
    walled.mint("laptop", hosts=(HOST,))
    walled.mint("six", hosts=("fd77:0::1",))
    walled.listen(22)
    walled.configure(delay=str(LONG), single_use="yes")
    daemon = walled.daemon()
    assert status(walled)["open"] == []
    for address, source in ((HOST, CLIENT), ("fd77:0::1", "fd77::2")):
        walled.knock(address)
        daemon.says(f"open tcp/22 for {source}")
    said = status(walled)
    doors = {door["source"]: door for door in said["open"]}
    assert set(doors) == {CLIENT, "fd77::2"}
    assert doors[CLIENT] | {"seconds": 0} == {
        "source": CLIENT,
        "protocol": "tcp",
        "port": 22,
        "seconds": 0,
        "use": "one",
    }
    assert said["open_in_all"] == 2
    before = doors[CLIENT]["seconds"]
    assert LONG - 10 < before <= LONG
    time.sleep(1.1)
    assert before - 10 < status(walled, "--source", CLIENT)["open"][0]["seconds"] < before
    assert ask(walled, "--source", CLIENT).stdout.splitlines()[1].split()[:2] == [CLIENT, "tcp/22"]
    assert walled.opens(HOST)
    used = ask(walled, "--source", CLIENT, check=False)
    assert (used.returncode, used.stdout) == (1, "nothing is open\n")
    assert [door["source"] for door in status(walled)["open"]] == ["fd77::2"]
    walled.knock("fd77:0::1", "--close")
    daemon.says("close tcp/22 for fd77::2")
    assert status(walled)["open"] == []
    assert daemon.stop() == 0


FOREIGN = {
    "tcp . 22": ("tcp", 22, 0),
    'udp . 53 timeout 2d comment "mine"': ("udp", 53, 65535),
    "sctp . 9 timeout 100s": ("132", 9, 100),
    "255 . 0": ("255", 0, 0),
}
"""What an administrator may put into a set of ours by hand, and how it is listed."""


@pytest.mark.parametrize("name", ["once4_0", "open4"])
def test_elements_of_others_are_listed_too(lab: Lab, name: str) -> None:
    daemon = lab.daemon()
    elements = ", ".join(f"{CLIENT} . {element}" for element in FOREIGN)
    lab.run("server", "nft", f"add element inet knockknock {name} {{ {elements} }}")
    listed = {(door["protocol"], door["port"]): door["seconds"] for door in status(lab)["open"]}
    for protocol, port, seconds in FOREIGN.values():
        assert seconds - 10 < listed[protocol, port] <= seconds
    assert re.search(rf"^{CLIENT} +tcp/22 +for ever ", ask(lab).stdout, re.M)
    assert daemon.stop() == 0


def test_a_door_that_ends_and_one_for_any_connection(walled: Lab) -> None:
    walled.mint("desk", "--ports", "udp/53", port=KNOCK_PORT + 1, hosts=(HOST,))
    walled.configure(delay=str(DELAY), single_use="no")
    daemon = walled.daemon()
    walled.knock(HOST, ports=("53/udp",))
    daemon.says("open udp/53")
    (door,) = status(walled)["open"]
    assert (door["protocol"], door["port"], door["use"]) == ("udp", 53, "any")
    assert 1 <= door["seconds"] <= DELAY
    until(lambda: status(walled)["open"] == [], DELAY + 3)
    assert daemon.stop() == 0


def test_all_of_it_for_programs_and_for_people(lab: Lab) -> None:
    lab.tell_all()
    lab.mint("laptop")
    daemon = lab.daemon()
    before = int(time.time()) - 1
    lab.knock(HOST)
    daemon.says("open tcp/22")
    stale = lab.home / ".knockknock" / HOST / "counter"
    stale.write_text("0\n")
    lab.knock(HOST)
    daemon.says("refused replay")
    said = status(lab)
    (profile,) = said.pop("profiles")
    assert before <= profile.pop("last_use") <= time.time()
    assert profile == {
        "name": "laptop",
        "knock_port": f"tcp/{KNOCK_PORT}",
        "format": "compact",
        "ports": ["tcp/22"],
        "ports_in_all": 1,
        "next_counter": 1,
    }
    assert said.pop("open")[0]["source"] == CLIENT
    assert said["firewall"].startswith("doors are in the table inet knockknock, and accepted in ")
    assert 0 <= said.pop("seconds") < 60
    assert said | {"firewall": "", "version": ""} == {
        "running": True,
        "version": "",
        "pid": daemon.process.pid,
        "deaf": "",
        "source": "NFLOG group 19275",
        "expected": {"profiles": 0, "ahead": 0, "passed_over": 0},
        "every_syn": [f"tcp/{KNOCK_PORT}"],
        "firewall": "",
        "problem": "",
        "open_in_all": 1,
        "knocks": {
            "accepted": 1,
            "failed": 0,
            "refused": {"replay": 1, "not permitted": 0, "ahead": 0, "expired": 0, "unknown": 0, "unexamined": 0},
        },
        "profiles_in_all": 1,
    }
    page = ask(lab).stdout
    for text in ("knocks    1 accepted, 0 of them not obeyed", "refused   1 replay", f"{CLIENT}", "laptop   tcp/4242"):
        assert text in page
    assert daemon.stop() == 0
    gone = ask(lab, check=False)
    assert (gone.returncode, gone.stdout, gone.stderr) == (1, "knockknock-daemon is not running\n", "")
    assert json.loads(ask(lab, "--json", check=False).stdout) == {"running": False}


def test_never_used_is_never(lab: Lab) -> None:
    lab.mint("laptop")
    lab.daemon()
    (profile,) = status(lab)["profiles"]
    assert (profile["next_counter"], profile["last_use"]) == (0, None)
    assert "never" in ask(lab).stdout


def test_rules_that_are_gone_are_a_problem_and_no_reason_to_end(lab: Lab) -> None:
    lab.mint("laptop")
    daemon = lab.daemon()
    os.kill(daemon.watch, 19)  # so that it does not place them again before it is asked
    lab.run("server", "nft", "delete", "table", "inet", "knockknock")
    words = [*lab.program("knockknock-daemon"), "--config", f"{lab.directory}/etc/config", "--status"]
    asking = lab.start("server", *words, stdout=subprocess.PIPE)
    os.kill(daemon.watch, 18)
    page, _ = asking.communicate(timeout=10)
    assert "what is open is not known" in page or "nothing is open" in page
    assert daemon.process.poll() is None


def connect(lab: Lab) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(5)
    client.connect(lab.settings["control"])
    return client


def said_to(lab: Lab, data: bytes) -> bytes:
    with connect(lab) as client:
        client.sendall(data)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while more := client.recv(65536):
                answer += more
        return answer


HOSTILE = [
    b"\n",
    b"stop\n",
    b"status 10.0.0.1 x\n",
    b"status 10.0.0\n",
    b"status fe80::1%c0\n",
    b"STATUS\n",
    b"status\0\n",
    b"x" * 100,
    b"x" * 100000,
    bytes(range(128, 256)) + b"\n",
    b"status\nstatus\n",
    b"events now\n",
]


def test_hostile_clients(lab: Lab) -> None:
    """Whatever they say, they get nothing, and the next one is served."""
    lab.mint("laptop")
    lab.listen(22)
    lab.configure(sandbox="required")
    daemon = lab.daemon()
    for data in HOSTILE:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            assert said_to(lab, data) == b"", data
    assert json.loads(said_to(lab, b"status\n"))["running"]
    silent = [connect(lab) for _ in range(3 * CLIENTS)]
    assert json.loads(said_to(lab, b"status\n"))["running"], "who says nothing keeps nobody out"
    lab.knock(HOST)
    assert lab.opens(HOST)
    for client in silent:
        with contextlib.suppress(BrokenPipeError):  # most had to go
            client.sendall(b"status\n")  # and reads no answer
    assert json.loads(said_to(lab, b"status\n"))["running"]
    for client in silent:
        client.close()
    assert daemon.stop() == 0


def test_no_more_listeners_than_that_and_always_a_status(lab: Lab) -> None:
    lab.daemon()
    listeners = []
    for number in range(3 * CLIENTS):
        listeners.append(connect(lab))
        listeners[-1].sendall(b"events\n")
        assert listeners[-1].recv(100) == (b'{"event": "listening"}\n' if number < LISTENERS else b"")
    silent = [connect(lab) for _ in range(CLIENTS)]
    assert status(lab)["running"]
    listeners.pop(0).close()
    until(lambda: said_to(lab, b"status\n"))
    again = connect(lab)
    again.sendall(b"events\n")
    assert again.recv(100) == b'{"event": "listening"}\n'
    for one in (*listeners, *silent, again):
        one.close()


@contextlib.contextmanager
def listening(lab: Lab) -> Iterator[Any]:
    """The events from now on, one by one."""
    with connect(lab) as client, client.makefile("rb") as stream:
        client.sendall(b"events\n")
        assert json.loads(stream.readline()) == {"event": "listening"}
        yield lambda: json.loads(stream.readline())


def test_events(lab: Lab) -> None:
    lab.mint("laptop", "--ports", "tcp/22")
    lab.configure(sandbox="required", expected_size="0")
    lab.daemon()
    door = {"profile": "laptop", "source": CLIENT, "protocol": "tcp", "port": 22}
    with listening(lab) as event:
        lab.knock(HOST)
        assert event() == {"event": "accepted", **door, "verb": "open", "counter": 0}
        assert event() == {"event": "opened", **door, "seconds": DELAY, "use": "one"}
        assert event() == {"event": "closed", "reason": "ended", **door}
        lab.knock(HOST)
        assert [event()["event"] for _ in range(2)] == ["accepted", "opened"]
        lab.knock(HOST, "--close")
        assert event() == {"event": "accepted", **door, "verb": "close", "counter": 2}
        assert event() == {"event": "closed", "reason": "asked", **door}
        (lab.home / ".knockknock" / HOST / "counter").write_text("0\n")
        lab.knock(HOST)
        refused = {"event": "refused", "reason": "replay", "knock_port": KNOCK_PORT, "verb": "open"}
        assert event() == refused | door


def test_events_as_a_command(lab: Lab) -> None:
    lab.mint("laptop")
    daemon = lab.daemon()
    words = [*lab.program("knockknock-daemon"), "--config", f"{lab.directory}/etc/config", "--events"]
    command = lab.start("server", *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert command.stdout
    assert command.stderr
    assert json.loads(command.stdout.readline())["event"] == "listening"
    lab.knock(HOST)
    event = json.loads(command.stdout.readline())
    assert event["event"] == "accepted"
    assert abs(event["time"] - time.time()) < 60
    daemon.stop()
    assert command.wait(5) == 1
    assert "has ended" in command.stderr.read()


def test_a_slow_listener_is_dropped_and_nobody_waits(lab: Lab) -> None:
    lab.mint("laptop", "--ports", "tcp/22", many=True)
    lab.configure(single_use="no", doors_per_minute="60000")
    daemon = lab.daemon()
    with connect(lab) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        slow.sendall(b"events\n")
        assert b"listening" in slow.recv(100)
        fd_count = len(os.listdir(f"/proc/{daemon.process.pid}/fd"))
        code = (
            "import sys, socket; sys.path[:0] = [sys.argv[1]]\n"
            "from knockknock.server.control import Control, BACKLOG\n"
            "import os; path = sys.argv[2]\n"
            "from knockknock.server import control\n"
            "listener = control.listen(path, 0)\n"
            "c = Control(listener, lambda address: {})\n"
            "client = socket.socket(socket.AF_UNIX); client.connect(path); client.sendall(b'events\\n')\n"
            "c.serve(); c.serve(); assert c.heard\n"
            "n = 0\n"
            "while c.heard: c.tell({'event': 'x' * 1000}); n += 1; assert n < 10000\n"
            "print(n)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(Path(__file__).parents[2]), f"{lab.directory}/slow"],
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        )
        assert int(done.stdout) > 64
        lab.knock(HOST)
        daemon.says("open tcp/22")
        assert len(os.listdir(f"/proc/{daemon.process.pid}/fd")) == fd_count


def groups_of(path: str) -> tuple[int, int, int]:
    found = os.stat(path)
    return found.st_mode & 0o7777, found.st_uid, found.st_gid


def test_members_of_the_group_may_ask_and_others_not(lab: Lab, daemon_user: Any, nobody: int) -> None:
    lab.mint("laptop")
    lab.configure(control_group="games")
    lab.daemon()
    games = 60
    assert groups_of(lab.settings["control"]) == (0o660, 0, games)
    for group, may in ((games, True), (daemon_user.pw_gid, False), (nobody, False)):
        words = ["setpriv", f"--reuid={nobody}", f"--regid={group}", "--clear-groups", sys.executable, "-c"]
        code = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({lab.settings['control']!r})"
        done = subprocess.run([*words, code], capture_output=True, text=True, check=False)
        assert (done.returncode == 0) is may, done.stderr
        assert may or "PermissionError" in done.stderr
        program = [str(VIEW["python"]), str(VIEW["root"] / "bin" / "knockknock-daemon")]
        options = ["--config", f"{lab.directory}/etc/config", "--status"]
        done = subprocess.run([*words[:4], *program, *options], capture_output=True, text=True, check=False, cwd="/")
        assert (done.returncode, "running " in done.stdout) == ((0, True) if may else (1, False))
        assert may or "you may not ask at" in done.stderr


def test_by_default_the_group_is_the_daemons(lab: Lab, daemon_user: Any) -> None:
    daemon = lab.daemon()
    assert groups_of(lab.settings["control"]) == (0o660, 0, daemon_user.pw_gid)
    assert daemon.stop() == 0
    lab.daemon()
    assert status(lab)["running"], "the socket that the last one left behind is none"


@pytest.mark.parametrize("what", ["taken", "no socket", "off"])
def test_it_runs_without_a_socket(lab: Lab, what: str) -> None:
    lab.mint("laptop")
    lab.listen(22)
    place = Path(lab.settings["control"])
    place.parent.mkdir()
    if what == "off":
        lab.configure(control="off")
    elif what == "no socket":
        place.write_text("precious")
    else:
        taken = socket.socket(socket.AF_UNIX)
        taken.bind(str(place))
        taken.listen()
    daemon: Daemon = lab.daemon()
    if what != "off":
        daemon.says(
            "status cannot be asked: " + ("another knockknock-daemon listens" if what == "taken" else str(place))
        )
    if what == "no socket":
        assert place.read_text() == "precious"
    lab.knock(HOST)
    assert lab.opens(HOST)


def test_idle_means_asleep(lab: Lab) -> None:
    """Neither a listener nor metrics nor hooks wake the daemon when nothing happens."""
    textfile = lab.directory / "metrics"
    textfile.mkdir(mode=0o777)
    textfile.chmod(0o777)
    lab.configure(textfile=f"{textfile}/knockknock.prom", on_open="/bin/true", on_close="/bin/true")
    daemon = lab.daemon()
    until(lambda: (textfile / "knockknock.prom").exists())
    with listening(lab):
        time.sleep(0.3)
        before = switches(daemon.process.pid)
        time.sleep(3)
        assert switches(daemon.process.pid) == before


def switches(pid: int) -> int:
    """Number of times that a process has slept and woken up again."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("voluntary_ctxt_switches"):
            return int(line.split()[1])
    raise AssertionError


def test_syns_that_were_passed_over_are_counted(lab: Lab) -> None:
    lab.mint("laptop")
    lab.daemon()
    before = status(lab)["expected"]["passed_over"]
    for _ in range(3):
        assert not lab.connects(HOST, 4242)
    assert status(lab)["expected"]["passed_over"] >= before + 3
