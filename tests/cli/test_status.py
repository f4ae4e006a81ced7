"""--status and --events as a user meets them, with any program as the daemon."""

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from knockknock.cli.status import expected, lines, page, plain, span, table
from knockknock.errors import KnockError

from ..helpers import ROOT, command

SAID: dict[str, Any] = {
    "running": True,
    "version": "1.0.0",
    "pid": 4711,
    "seconds": 7870,
    "source": "/dev/kmsg",
    "deaf": "",
    "expected": {"profiles": 2, "ahead": 1020, "passed_over": 7},
    "every_syn": [],
    "firewall": "nftables: the chain inet guard input filters input",
    "problem": "",
    "open": [
        {"source": "192.0.2.7", "protocol": "tcp", "port": 22, "seconds": 12, "use": "one"},
        {"source": "2001:db8::7", "protocol": "udp", "port": 51820, "seconds": 3600, "use": "any"},
    ],
    "open_in_all": 2,
    "knocks": {"accepted": 12, "failed": 1, "refused": {"replay": 3, "not permitted": 0, "unknown": 41}},
    "profiles": [
        {
            "name": "laptop",
            "knock_port": "tcp/4242",
            "format": "compact",
            "ports": ["tcp/22", "udp/51820"],
            "ports_in_all": 2,
            "next_counter": 0,
            "last_use": None,
        }
    ],
    "profiles_in_all": 1,
}
PAGE = """\
running   version 1.0.0, process 4711, for 2 h 11 min
source    /dev/kmsg
expected  1020 knocks ahead of 2 profile(s), 7 other SYNs passed over
firewall  nftables: the chain inet guard input filters input
knocks    12 accepted, 1 of them not obeyed
refused   3 replay, 41 unknown

OPEN FOR     PORT       STILL   CONNECTIONS
192.0.2.7    tcp/22     12 s    one
2001:db8::7  udp/51820  3600 s  any

PROFILE  KNOCK PORT  FORMAT   NEXT  LAST USE  MAY OPEN
laptop   tcp/4242    compact  0     never     tcp/22,udp/51820"""


def test_page() -> None:
    assert page(SAID, one=False) == PAGE
    assert page(SAID, one=True) == PAGE.split("\n\n")[1]


def test_what_is_left_out_is_said() -> None:
    text = page(SAID | {"open_in_all": 1002, "profiles_in_all": 5}, one=False)
    assert "any\nand 1000 more\n" in text
    assert text.endswith("\nand 4 more")


def test_a_deaf_daemon_says_so() -> None:
    assert "source    /dev/kmsg\n          deaf: none came\nexpected " in page(
        SAID | {"deaf": "deaf: none came"}, one=False
    )


def test_ports_of_which_every_syn_is_logged() -> None:
    listed = {"profiles": 0, "ahead": 0, "passed_over": 0}
    assert expected(listed, ["tcp/4242", "tcp/5"]) == "every SYN to tcp/4242, tcp/5 is logged"
    assert expected(listed | {"profiles": 1, "ahead": 20}, ["tcp/5"]) == (
        "20 knocks ahead of 1 profile(s), 0 other SYNs passed over; every SYN to tcp/5 is logged"
    )


def test_doors_that_are_not_known() -> None:
    text = page(SAID | {"open": [], "problem": "nftables refused: No such file"}, one=True)
    assert text == "what is open is not known: nftables refused: No such file"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"), (7260, "2 h 1 min"), (90000, "1 d 1 h")],
)
def test_span(seconds: int, text: str) -> None:
    assert span(seconds) == text


def test_what_a_daemon_says_does_nothing_to_a_terminal() -> None:
    assert plain("\x1b[2Jlap\rtop\n\u202e") == "?[2Jlap?top??"
    hostile = json.loads(json.dumps(SAID).replace("laptop", "\\u001b]0;laptop").replace("/dev/kmsg", "\\u009b2J"))
    assert page(hostile, one=False).replace("\n", "").isprintable()
    assert table(("A", "B"), [("\x1b", 1)]) == "A  B\n?  1"


def answering(directory: Path, answer: bytes, times: int = 1) -> tuple[str, Callable[[], bytes]]:
    """The path of a configuration with somebody at its control socket who answers once; what he was asked."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(directory / "control"))
    listener.listen()
    asked: list[bytes] = []

    def serve() -> None:
        client, _ = listener.accept()
        with client, listener:
            asked.append(client.recv(100))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # who asked has heard enough
                for _ in range(times):
                    client.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    path = directory / "config"
    path.write_text(f"[main]\ncontrol = {directory}/control\n")

    def heard() -> bytes:
        thread.join(10)
        return asked[0]

    return str(path), heard


@pytest.mark.parametrize(
    "answer",
    [b"hello\n", b"[]\n", b"1\n", b"{}\n", b'{"running": true}\n', b"\xff\n", b'{"running": true, "open": 1}\n'],
)
def test_who_answers_is_no_daemon(tmp_path: Path, answer: bytes) -> None:
    config, heard = answering(tmp_path, answer)
    done = command("knockknock-daemon", "--config", config, "--status", home=tmp_path)
    assert heard() == b"status\n"
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"knockknock-daemon: what answers at {tmp_path}/control is no knockknock-daemon")
    assert "Traceback" not in done.stderr


DEEP = b'{"running": true, "open": ' + b"[" * 1_000_000 + b"\n"
MANY = b'{"running": true, "open": [' + b"{}," * 1_300_000 + b"{}]}\n"
WIDE = json.dumps(SAID | {"profiles": [{**SAID["profiles"][0], "name": "x" * 100_000}] * 42}).encode()[: 4 << 20]


@pytest.mark.parametrize(
    ("answer", "times"),
    [(b"x" * (1 << 20), 700), (b'{"a":', 1 << 20), (DEEP, 1), (WIDE + b"\n", 1), (MANY, 1)],
    ids=["no end", "small pieces", "deep", "wide", "many"],
)
@pytest.mark.parametrize("option", ["--status", "--events"])
def test_an_answer_costs_who_asks_little(tmp_path: Path, answer: bytes, times: int, option: str) -> None:
    """Whoever answers, and whatever he sends."""
    config, heard = answering(tmp_path, answer, times)
    words = [
        "prlimit",
        "--as=300000000",
        sys.executable,
        str(ROOT / "bin/knockknock-daemon"),
        "--config",
        config,
        option,
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert heard() == f"{option[2:]}\n".encode()
    if answer is not MANY or option == "--status":
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"knockknock-daemon: what answers at {tmp_path}/control is no knockknock-daemon")
    assert "Traceback" not in done.stderr


def test_a_table_of_a_stranger_is_bounded() -> None:
    rows = [("x" * 1_000_000, 1)] + [("", 1)] * 100_000
    assert len(table(("A", "B"), rows)) < 3_000_000


def test_one_that_dribbles_is_not_waited_for_without_end(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "control"))
    listener.listen()

    def serve() -> None:
        client, _ = listener.accept()
        with client, listener, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(1000):
                client.sendall(b" ")
                time.sleep(0.01)

    thread = threading.Thread(target=serve)
    thread.start()
    with pytest.raises(KnockError, match="does not answer"):
        next(lines(f"{tmp_path}/control", "status", 0.3))
    thread.join(10)


def test_one_source_is_asked_for(tmp_path: Path) -> None:
    config, heard = answering(tmp_path, json.dumps(SAID).encode() + b"\n")
    words = ["--config", config, "status", "--json", "--source", "2001:DB8:0::7"]
    done = command("knockknock-daemon", *words, home=tmp_path)
    assert heard() == b"status 2001:db8::7\n"
    assert (done.returncode, json.loads(done.stdout), done.stderr) == (0, SAID, "")


@pytest.mark.parametrize(
    "words",
    [
        ["--json"],
        ["--source", "192.0.2.7"],
        ["--status", "--source", "somebody"],
        ["--status", "--source", "fe80::1%eth0"],
        ["--status", "--events"],
        ["--events", "--json"],
        ["--status", "--check"],
        ["--status", "--daemonize"],
        ["status", "--events"],
        ["status", "events"],
        ["nonsense"],
    ],
)
def test_usage(tmp_path: Path, words: list[str]) -> None:
    done = command("knockknock-daemon", *words, home=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "knockknock-daemon: error: " in done.stderr


@pytest.mark.parametrize("option", ["--status", "--events"])
def test_nobody_to_ask(tmp_path: Path, option: str) -> None:
    (tmp_path / "config").write_text("[main]\ncontrol = off\n")
    done = command("knockknock-daemon", "--config", f"{tmp_path}/config", option, home=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "knockknock-daemon: the configuration says control = off, so nobody can be asked\n"


def test_no_events_without_a_daemon(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(f"[main]\ncontrol = {tmp_path}/control\n")
    done = command("knockknock-daemon", "--config", f"{tmp_path}/config", "--events", home=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"knockknock-daemon: no daemon listens at {tmp_path}/control\n"
