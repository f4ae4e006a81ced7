"""Daemon and proxy while they serve: standard descriptors that are closed or full, and signals at any moment."""

import os
import shlex
import signal
import socket
import subprocess
import time

from ..helpers import traceback_of_ours
from .lab import Lab, inside, until

HOST, PROXY = "10.77.0.1", "127.0.0.1"
MOMENTS = [number / 20 for number in range(1, 21)]
"""Seconds from the start to a signal: while modules are imported, before the loop, in it."""


def asks(lab: Lab) -> bytes:
    """Return the proxy's answer to a request for the server's ssh."""
    with inside(lab.ns("client")):
        near = socket.socket()
    with near:
        near.settimeout(10)
        near.connect((PROXY, 1080))
        near.sendall(f"CONNECT {HOST}:22 HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        return near.recv(100)


def test_closed_and_full(lab: Lab, nobody: int) -> None:
    """Both serve, and end well; no line of a log gets into a file that has the descriptor's number."""
    lab.listen(22)
    lab.mint("laptop")
    for path in (lab.home, *lab.home.rglob("*")):
        os.chown(path, nobody, nobody)
    commands = {
        "server": [*lab.program("knockknock-daemon"), "--config", lab.configure()],
        "client": [*lab.program("knockknock-proxy"), "--user", "nobody", "--profiles", f"{lab.home}/.knockknock"],
    }
    notify = lab.directory / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(notify))
        notify.chmod(0o777)
        systemd.settimeout(10)
        for redirect in ("<&- >&- 2>&-", ">/dev/full 2>/dev/full"):
            serving = [
                lab.start(
                    host,
                    *("sh", "-c", f"exec {shlex.join(words)} {redirect}"),
                    env=lab.environment(NOTIFY_SOCKET=str(notify)),
                )
                for host, words in commands.items()
            ]
            assert systemd.recv(100) == b"READY=1"
            until(lambda: lab.connects(PROXY, 1080), 10)
            assert asks(lab).startswith(b"HTTP/1.1 200 ")
            for process in serving:
                process.terminate()
            assert [process.wait(10) for process in serving] == [0, 0]
    written = [
        path.read_bytes() for path in (*lab.home.rglob("*"), *(lab.directory / "state").rglob("*")) if path.is_file()
    ]
    assert written
    assert not any(word in one for word in (b"INFO", b"open tcp/22", b"listening") for one in written)


def test_a_knock_with_closed_and_full_descriptors(lab: Lab) -> None:
    """It is sent, and the program behind it runs."""
    lab.listen(22)
    lab.mint("laptop", many=True)
    lab.daemon()
    command = shlex.join([*lab.program("knockknock"), "-p", "22", HOST])
    for number, redirect in enumerate(("<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full")):
        ran = lab.home / f"ran-{number}"
        for words in (command, f"{command} -- touch {ran}"):
            done = lab.run("client", "sh", "-c", f"exec {words} {redirect}", check=False)
            assert (done.returncode, done.stderr) == (0, ""), redirect
            assert lab.opens(HOST), redirect
        assert ran.exists()


def test_a_signal_at_any_moment(lab: Lab, nobody: int) -> None:
    """Both end, without a traceback that names a file of ours."""
    commands = {
        "server": [*lab.program("knockknock-daemon"), "--config", lab.configure()],
        "client": [*lab.program("knockknock-proxy"), "--user", "nobody"],
    }
    for number, moment in enumerate(MOMENTS):
        sent = (signal.SIGINT, signal.SIGTERM)[number % 2]
        both = [
            lab.start(host, *words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=lab.environment())
            for host, words in commands.items()
        ]
        time.sleep(moment)
        for process in both:
            process.send_signal(sent)
        for process in both:
            said, _ = process.communicate(timeout=10)
            assert not traceback_of_ours(said)
            assert process.returncode in (0, 1, 130, -sent), said  # 1 is of Python, before a line of ours
