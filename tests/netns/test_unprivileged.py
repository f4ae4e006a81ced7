"""Knocking without root: by sudo, by systemd's socket, by a capability; and what none of them gives away."""

import contextlib
import fcntl
import os
import re
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from knockknock.client.send_client import TOO_FAST
from knockknock.client.syn_template import kernel_syn, unsent
from knockknock.core import headers
from knockknock.core.headers import Carried

from ..helpers import NOBODY, ROOT, VIEW
from .lab import KNOCK_PORT, Lab, inside, until

HOST = "10.77.0.1"
GROUP = 4711
STRANGER = 1
"""A user who is not in the group."""
SCRIPT = """#!{python}
import os, sys; sys.path[:0] = {path!r}
from knockknock.cli.knockknock import main; main()
"""
"""What pip makes of the command's entry point."""


def python() -> str:
    """A Python of this version that anybody may execute: ours may be in a home that is closed."""
    for path in (str(VIEW["python"]), "/usr/bin/python{}.{}".format(*sys.version_info)):
        words = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "env", path, "-c", ""]
        if subprocess.run(words, capture_output=True, check=False).returncode == 0:
            return path
    raise AssertionError("there is no Python of this version that anybody may execute")


def install(lab: Lab, interpreter: str) -> str:
    """Put the command where our files say that it is; its path on this machine."""
    script = lab.directory / "machine" / "bin" / "knockknock"
    modules = [str(VIEW["root"]), *(path for path in sys.path if path.endswith("site-packages"))]
    script.write_text(SCRIPT.format(python=interpreter, path=modules))
    script.chmod(0o755)
    return str(script)


def belong(lab: Lab, user: int) -> None:
    """Let the client's profiles belong to a user."""
    for path in (lab.home, *lab.home.rglob("*")):
        os.chown(path, user, user)


@pytest.fixture
def laptop(lab: Lab, nobody: int) -> Lab:
    """A lab whose client's profile belongs to an ordinary user, with the command installed where our files say."""
    lab.mint("laptop")
    belong(lab, nobody)
    tree = lab.directory / "machine"
    for name in ("bin", "sudoers.d", "run", "hidden"):
        (tree / name).mkdir(parents=True)
        (tree / name).chmod(0o755)
    install(lab, python())
    users = Path("/etc/passwd").read_text().splitlines()
    others = [line for line in users if not line.startswith("nobody:")]
    (tree / "passwd").write_text("\n".join([*others, f"nobody:x:{NOBODY}:{NOBODY}::{lab.home}:/bin/sh", ""]))
    (tree / "group").write_text(Path("/etc/group").read_text() + f"knock:x:{GROUP}:nobody\n")
    (tree / "group").chmod(0o644)
    return lab


def on_laptop(
    lab: Lab, *command: str, user: int = NOBODY, text: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command as a user on the client, with files of the lab in the place of this machine's."""
    tree = lab.directory / "machine"
    mounts = [("bin", "/usr/local/bin"), ("sudoers.d", "/etc/sudoers.d"), ("group", "/etc/group"), ("run", "/run")]
    mounts.append(("passwd", "/etc/passwd"))
    script = "".join(f"mount --bind {tree / name} {place} && " for name, place in mounts)
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", f"--groups={GROUP if user == NOBODY else user}"]
    become += ["env", *(f"{key}={value}" for key, value in environment.items())]
    full = ["unshare", "--mount", "sh", "-c", f'{script} exec "$@"', "sh", *become, *command]
    return lab.run("client", *full, check=False, text=text)


KNOCK = ("/usr/local/bin/knockknock", "-p", "22", HOST)


def test_neither_way(laptop: Lab) -> None:
    """Without any of them: one sentence, and no counter is used."""
    done = on_laptop(laptop, *KNOCK)
    assert done.returncode == 1
    assert done.stderr.startswith("knockknock: you may not send a knock from here")
    assert (laptop.home / ".knockknock" / HOST / "counter").read_text() == "0\n"


def allow_sudo(lab: Lab) -> None:
    place = lab.directory / "machine" / "sudoers.d" / "knockknock"
    place.write_text((ROOT / "config" / "knockknock-send.sudoers").read_text())
    place.chmod(0o440)


def test_by_sudo(laptop: Lab) -> None:
    """The shipped rule is enough to knock, to get through to a service, and to run a program as oneself."""
    laptop.listen(22)
    daemon = laptop.daemon()
    allow_sudo(laptop)
    done = on_laptop(laptop, *KNOCK)
    assert (done.returncode, done.stderr) == (0, "")
    daemon.says("laptop: open tcp/22 for 10.77.0.2")
    done = on_laptop(laptop, *KNOCK, "--", "sh", "-c", "id -u; grep Cap /proc/self/status; ls -l /proc/self/fd; env")
    assert done.stdout.startswith(f"{NOBODY}\n"), done.stderr
    assert "CapPrm:\t0000000000000000" in done.stdout
    assert "CapAmb:\t0000000000000000" in done.stdout
    assert "socket:" not in done.stdout, "a socket of ours is left open"
    assert f"HOME={laptop.home}\n" in done.stdout


def test_connecting_by_sudo(laptop: Lab) -> None:
    """The whole way through: the connection is the user's own, and the end of his input ends it."""
    listener = laptop.listen(22)
    laptop.daemon()
    allow_sudo(laptop)

    def answer() -> None:
        with listener.accept()[0] as connection, connection.makefile("rb") as file:
            connection.sendall(file.read())

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    done = on_laptop(laptop, *KNOCK[:-1], "--stdio", HOST, text="hello")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello", "")
    thread.join(5)


def test_sudo_gives_nothing_else(laptop: Lab) -> None:
    """Root runs the one command with the one argument, with nothing of the user's environment."""
    allow_sudo(laptop)
    place = laptop.directory / "evil"
    place.mkdir()
    (place / "sitecustomize.py").write_text(f"import os; open('{laptop.directory}/owned-' + str(os.geteuid()), 'w')")
    (place / "knockknock").mkdir()
    (place / "knockknock" / "__init__.py").write_text("raise SystemExit('owned')")
    laptop.directory.chmod(0o777)
    sudo = ("sudo", "-n")
    for words in (
        ("/usr/local/bin/knockknock",),
        ("/usr/local/bin/knockknock", "--send", "--pcap", "/etc/owned"),
        ("/usr/local/bin/knockknock", "-p", "22", HOST),
        ("-E", "/usr/local/bin/knockknock", "--send"),
        (f"PYTHONPATH={place}", "/usr/local/bin/knockknock", "--send"),
        (sys.executable, "-c", "print(1)"),
    ):
        done = on_laptop(laptop, *sudo, *words)
        assert done.returncode == 1, words
        assert done.stderr.startswith("sudo: "), done.stderr
    done = on_laptop(
        laptop,
        *sudo,
        "/usr/local/bin/knockknock",
        "--send",
        PYTHONPATH=str(place),
        PYTHONHOME="/nowhere",
        HOME=str(place),
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not list(laptop.directory.glob("owned-0"))
    done = on_laptop(laptop, *sudo, "/usr/local/bin/knockknock", "--send", user=STRANGER)
    assert done.returncode == 1


def served(lab: Lab, *tracer: str) -> None:
    """Serve as systemd does with config/knockknock-send.socket; the script systemctl beside this file stands in."""
    near = lab.directory / "machine" / "run" / "knockknock-send.sock"
    restrict = ["setpriv", "--reuid=knockknock", "--clear-groups", "--no-new-privs", "--inh-caps=-all,+net_raw"]
    restrict += ["--ambient-caps=-all,+net_raw", "--bounding-set=-all,+net_raw"]
    lab.directory.joinpath("machine", "run").chmod(0o777)
    script = str(lab.directory / "machine" / "bin" / "knockknock")
    stand_in = [sys.executable, str(Path(__file__).with_name("systemctl")), "--activate"]
    lab.start("client", *restrict, *stand_in, str(near), *tracer, script, "--send", stderr=subprocess.DEVNULL)
    until(near.exists)
    near.chmod(0o660)
    os.chown(near, 0, GROUP)


def test_by_systemd(laptop: Lab, daemon_user: object) -> None:
    """With its socket nothing of the client's runs with more rights than its user has."""
    laptop.listen(22)
    daemon = laptop.daemon()
    served(laptop)
    done = on_laptop(laptop, *KNOCK)
    assert (done.returncode, done.stderr) == (0, "")
    daemon.says("laptop: open tcp/22 for 10.77.0.2")
    belong(laptop, STRANGER)
    done = on_laptop(laptop, *KNOCK, user=STRANGER)
    assert done.returncode == 1
    assert done.stderr.startswith("knockknock: you may not send a knock from here")


def good_packet(lab: Lab, source: str = "10.77.0.2") -> bytes:
    """A knock as the client makes it, with other numbers in the fields that carry."""
    with inside(lab.ns("client")):
        like = unsent(socket.AF_INET, HOST, KNOCK_PORT, "")
        kernels = kernel_syn(socket.AF_INET, like.mtu - 40)
    ends = socket.inet_aton(source), socket.inet_aton(HOST)
    made = headers.like(kernels, like.port, like.hops, like.timestamp)
    return headers.knock(made, *ends, KNOCK_PORT, Carried(7, 8, 9, window=10))


def patched(packet: bytes, at: int, *values: int) -> bytes:
    """A packet with other bytes from somewhere on, and with right checksums."""
    data = bytearray(packet)
    data[at : at + len(values)] = bytes(values)
    (port,) = struct.unpack_from("!H", data, 22)
    fields = Carried(*struct.unpack_from("!H", data, 4), *struct.unpack_from("!II", data, 24))
    return headers.knock(bytes(data), bytes(data[12:16]), bytes(data[16:20]), port, fields)


def ask(near: socket.socket, packet: bytes) -> bytes:
    near.sendall(packet)
    return near.recv(1000).removesuffix(b"\n")


def caller(lab: Lab) -> socket.socket:
    """A connection to the service, of root's."""
    near = socket.socket(socket.AF_UNIX)
    lab.on_close(near.close)
    near.settimeout(5)
    near.connect(str(lab.directory / "machine" / "run" / "knockknock-send.sock"))
    return near


def members(group: str) -> set[str]:
    """The system calls of one of systemd's groups."""
    words = ["systemd-analyze", "syscall-filter", "--no-pager", group]
    listed = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()[1:]
    names = {line.strip() for line in listed if line.strip() and not line.strip().startswith("#")}
    return {name for name in names if name[0] != "@"}.union(*(members(name) for name in names if name[0] == "@"))


def test_the_unit_allows_what_the_service_calls(laptop: Lab, daemon_user: object) -> None:
    """Under a real systemd a call that is not allowed kills it; here it is looked at what it calls for a knock."""
    allowed: set[str] = set()
    for line in (ROOT / "config" / "knockknock-send.service").read_text().splitlines():
        if line.startswith("SystemCallFilter="):
            words = line.partition("=")[2]
            found = set[str]().union(*(members(word) for word in words.removeprefix("~").split()))
            allowed = allowed - found if words.startswith("~") else allowed | found
    served(laptop, "strace", "-D", "-f", "-qq", "-o", str(laptop.directory / "machine" / "run" / "calls"))
    done = on_laptop(laptop, *KNOCK)
    assert (done.returncode, done.stderr) == (0, "")
    lines = (laptop.directory / "machine" / "run" / "calls").read_text().splitlines()
    # The last exec is that of the service: what comes before is the tracer's and setpriv's.
    begin = max(number for number, line in enumerate(lines) if "execve(" in line)
    called = {match[1] for line in lines[begin + 1 :] if (match := re.match(r"[0-9]+ +(\w+)\(", line))}
    assert "sendto" in called
    assert called <= allowed


def test_what_is_not_sent(laptop: Lab, daemon_user: object) -> None:
    """Packets that the client would not send are refused with a sentence, and the next one is sent all the same."""
    served(laptop)
    laptop.run("client", "sysctl", "-w", "net.ipv4.ip_nonlocal_bind=1")
    good, near = good_packet(laptop), caller(laptop)
    options = good.index(b"\x08\x0a") - 2
    for packet, says in (
        (good, b""),
        (patched(good, 12, 10, 77, 0, 9), b"10.77.0.9 is not an address of this machine"),
        (patched(good, 12, 127, 0, 0, 1), b"127.0.0.1 is not an address of this machine"),
        (patched(good, 12, 10, 77, 0, 255), b"10.77.0.255 is not an address of this machine"),
        (patched(good, 12, 255, 255, 255, 255), b"this is not from one host to another"),
        (patched(good, 16, 127, 0, 0, 1), b"a knock goes from a port above 1023 to another machine's port, which"),
        (patched(good, 16, 10, 77, 0, 255), b"there is no way to 10.77.0.255 from here"),
        (patched(good, 20, 0, 80), b"a knock goes from a port above 1023"),
        (patched(good, 22, 0, 0), b"a knock goes from a port above 1023"),
        (patched(good, 8, 1), b"this is no SYN as this machine's kernel makes them"),
        (patched(good, 8, 0), b"this is no SYN as this machine's kernel makes them"),
        (patched(good, 1, 8), b"this is no SYN as this machine's kernel makes them"),
        (patched(good, options, 1, 1), b"this is no SYN as this machine's kernel makes them"),
        (patched(good, len(good) - 1, 3), b"this is no SYN as this machine's kernel makes them"),
        (bytes(good[:33] + b"\x12" + good[34:]), b"this is no SYN without data"),
        (bytes(good[:9] + b"\x11" + good[10:]), b"this is no plain TCP packet"),
        (patched(good, 16, 224), b"this is not from one host to another"),
        (good, b""),
    ):
        assert ask(near, packet).startswith(says) if says else ask(near, packet) == b"", packet.hex()


def test_a_user_has_a_rate(laptop: Lab, daemon_user: object) -> None:
    """Whatever the number of his connections; and another user has his own."""
    served(laptop)
    good, sent = good_packet(laptop), 0
    begin = time.monotonic()
    for _ in range(4):
        near = caller(laptop)
        sent += sum(ask(near, good) == b"" for _ in range(30))
    allowed = 40 + 20 * (time.monotonic() - begin)
    assert 40 <= sent <= allowed + 1
    assert ask(caller(laptop), good) == TOO_FAST.encode()
    done = on_laptop(laptop, *KNOCK)
    assert (done.returncode, done.stderr) == (0, "")


def test_all_users_together_have_a_rate_and_a_number(laptop: Lab, daemon_user: object) -> None:
    """However many they are: 100 a second, 200 at once, 128 connections; and one who has none is served soon."""
    laptop.listen(22)
    daemon = laptop.daemon()
    served(laptop)
    (laptop.directory / "machine" / "run" / "knockknock-send.sock").chmod(0o666)
    good, kept = good_packet(laptop), []
    begin = time.monotonic()
    for user in range(1, 18):
        os.seteuid(user)
        try:
            kept.append([caller(laptop) for _ in range(8)])
        finally:
            os.seteuid(0)
    sent = sum(ask(callers[-1], good) == b"" for callers in kept for _ in range(25))
    assert 200 <= sent <= 201 + 100 * (time.monotonic() - begin)
    assert sum(bool(select.select(callers[:7], [], [], 0)[0]) for callers in kept), "somebody has made room"
    done = on_laptop(laptop, *KNOCK)
    assert (done.returncode, done.stderr) == (0, "")
    daemon.says("laptop: open tcp/22 for 10.77.0.2")


def test_more_ports_than_are_sent_at_once(laptop: Lab, daemon_user: object) -> None:
    """All of them arrive, at the rate of the sender and of the server."""
    laptop.mint("many", "--ports", "udp/2001-2045", port=KNOCK_PORT + 1)
    belong(laptop, NOBODY)
    daemon = laptop.daemon()
    ports = range(2001, 2043)
    words = [word for port in ports for word in ("-p", f"{port}/udp")]
    served(laptop)
    done = on_laptop(laptop, KNOCK[0], *words, HOST)
    assert (done.returncode, done.stderr) == (0, "")
    for port in ports:
        daemon.says(f"many: open udp/{port} for 10.77.0.2")


def test_a_rate_by_sudo_is_for_all_processes(laptop: Lab) -> None:
    """However many of them are started."""
    allow_sudo(laptop)
    good = good_packet(laptop).hex()
    script = laptop.directory / "many.py"
    script.write_text(
        "import subprocess, sys\n"
        f"data = bytes.fromhex('{good}') * 20\n"
        "words = ['sudo', '-n', '/usr/local/bin/knockknock', '--send']\n"
        "running = [subprocess.Popen(words, stdin=-1, stdout=-1) for _ in range(6)]\n"
        "print(sum(one.communicate(data)[0].split(b'\\n')[:-1].count(b'') for one in running))\n"
    )
    script.chmod(0o644)
    begin = time.monotonic()
    done = on_laptop(laptop, python(), str(script))
    assert 40 <= int(done.stdout) <= 41 + 20 * (time.monotonic() - begin), done.stderr


def test_nobody_is_held_up_by_others(laptop: Lab, daemon_user: object) -> None:
    """Connections that say nothing, or half of a packet, or that are more than a user may have, and 400 at once."""
    served(laptop)
    good = good_packet(laptop)
    half = caller(laptop)
    half.sendall(good[:10])
    begin = time.monotonic()
    kept = [half, *(caller(laptop) for _ in range(47))]
    assert caller(laptop).recv(1000) == b"48 connections of yours are open already\n"
    for _ in range(400):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as near:
            near.setblocking(False)
            near.connect(str(laptop.directory / "machine" / "run" / "knockknock-send.sock"))
    done = on_laptop(laptop, *KNOCK)
    assert (done.returncode, done.stderr) == (0, "")
    with contextlib.suppress(OSError):
        for at in range(10, 20):  # who dribbles has no more time
            half.sendall(good[at : at + 1])
            time.sleep(0.3)
    with contextlib.suppress(ConnectionResetError):
        assert half.recv(1000) == b"", "given up after two seconds"
    assert time.monotonic() - begin < 5
    assert ask(kept[1], good) == b""


@pytest.mark.parametrize("full", [False, True], ids=["silent", "its queue is full"])
def test_a_sender_that_never_answers(laptop: Lab, full: bool) -> None:
    """The client ends when its --timeout is over."""
    with listening(laptop):
        if full:
            caller(laptop)
        begin = time.monotonic()
        done = on_laptop(laptop, *KNOCK[:-1], "--stdio", "--timeout", "1", HOST)
    assert done.returncode == 1
    # The message has what was left of the second.
    says = "too many wait at /run/knockknock-send.sock already" if full else r"no answer within (1|0\.\d+) s"
    assert re.fullmatch(f"knockknock: the knock could not be handed over to be sent: {says}\n", done.stderr)
    assert 1 < time.monotonic() - begin < 4


@contextlib.contextmanager
def listening(lab: Lab) -> Iterator[socket.socket]:
    """A service of our own, which has room for one who waits."""
    path = str(lab.directory / "machine" / "run" / "knockknock-send.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        Path(path).chmod(0o666)
        yield listener


def waits_for_room(channel: Path) -> bool:
    try:
        return channel.read_text() == "unix_wait_for_peer"
    except OSError:  # it has ended
        return False


def test_a_queue_that_is_full_for_a_moment(laptop: Lab, daemon_user: object) -> None:
    """The client waits until there is room."""
    with listening(laptop) as listener:
        caller(laptop)

        def serve() -> None:
            until(lambda: any(map(waits_for_room, Path("/proc").glob("[0-9]*/wchan"))))
            listener.accept()[0].close()
            near, _ = listener.accept()
            with near:
                near.recv(1000)
                near.sendall(b"\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        done = on_laptop(laptop, *KNOCK)
        thread.join(5)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("said", [None, b"", b"the kno"], ids=["unread", "read", "answered in part"])
def test_a_sender_that_ends(laptop: Lab, said: bytes | None) -> None:
    """At whatever point: one sentence, which says where to look."""

    def serve(listener: socket.socket) -> None:
        near, _ = listener.accept()
        with near:
            select.select([near], [], [], 5)
            if said is not None:
                near.recv(1000)
                near.sendall(said)

    with listening(laptop) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        done = on_laptop(laptop, *KNOCK)
        thread.join(5)
    assert done.returncode == 1
    assert done.stderr == (
        "knockknock: the knock could not be handed over to be sent: `knockknock --send` ended before it answered; what "
        "it said is shown by sudo journalctl -u knockknock-send\n"
    )


def test_a_knock_that_holds_the_profile(laptop: Lab) -> None:
    """One that is stopped (^Z) is not waited for beyond --timeout."""
    place = laptop.home / ".knockknock" / HOST
    held = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    laptop.on_close(lambda: os.close(held))
    fcntl.flock(held, fcntl.LOCK_EX)
    begin = time.monotonic()
    done = on_laptop(laptop, *KNOCK[:-1], "--stdio", "--timeout", "0.5", HOST, user=0, SUDO_UID=str(NOBODY))
    assert done.returncode == 1
    assert done.stderr.startswith(f"knockknock: another knock holds the profile {place} and does not end: ")
    assert time.monotonic() - begin < 3
    assert (place / "counter").read_text() == "0\n"


@pytest.mark.parametrize("slow", ["asked", "sending"])
def test_a_sudo_that_hangs(laptop: Lab, slow: str) -> None:
    """All waits for it together end with --timeout."""
    fake = laptop.directory / "machine" / "hidden" / "sudo"
    hang = "exec sleep 4 2>&-"
    fake.write_text(f'#!/bin/sh\n[ "$2" = -l ] || {hang}\n{hang if slow == "asked" else "sleep 0.7"}\n')
    fake.chmod(0o755)
    path = f"{fake.parent}:{os.environ['PATH']}"
    begin = time.monotonic()
    done = on_laptop(laptop, *KNOCK[:-1], "--stdio", "--timeout", "1", HOST, PATH=path)
    assert time.monotonic() - begin < 2.5
    assert done.returncode == 1
    assert ("you may not send a knock" if slow == "asked" else "no answer within 1 s") in done.stderr


def test_by_a_capability(laptop: Lab) -> None:
    """A Python of one's own with the capability: it knocks, and a program that it starts has nothing of it."""
    laptop.listen(22)
    daemon = laptop.daemon()
    own = laptop.directory / "python"
    subprocess.run(["cp", "--dereference", python(), str(own)], check=True)
    os.chown(own, NOBODY, NOBODY)
    own.chmod(0o700)
    subprocess.run(["setcap", "cap_net_raw+ep", str(own)], check=True)
    install(laptop, str(own))
    done = on_laptop(laptop, *KNOCK, "--", "grep", "Cap", "/proc/self/status")
    assert (done.returncode, done.stderr) == (0, "")
    daemon.says("laptop: open tcp/22 for 10.77.0.2")
    assert "CapPrm:\t0000000000000000" in done.stdout


def test_ambient_capabilities_do_not_reach_the_program(laptop: Lab) -> None:
    """As with systemd-run and AmbientCapabilities=CAP_NET_RAW, which children would inherit."""
    laptop.listen(22)
    daemon = laptop.daemon()
    caps = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    caps += ["--inh-caps=-all,+net_raw", "--ambient-caps=-all,+net_raw"]
    script = str(laptop.directory / "machine" / "bin" / "knockknock")
    done = laptop.run("client", *caps, script, "-p", "22", HOST, "--", "grep", "Cap", "/proc/self/status")
    daemon.says("laptop: open tcp/22 for 10.77.0.2")
    assert "CapPrm:\t0000000000000000" in done.stdout
    assert "CapAmb:\t0000000000000000" in done.stdout


def test_with_sudo_by_hand(laptop: Lab) -> None:
    """sudo knockknock HOST -- PROGRAM: the user's profile, and the program is the user's, in the user's home."""
    laptop.listen(22)
    daemon = laptop.daemon()
    under = {"SUDO_UID": str(NOBODY), "SUDO_GID": str(NOBODY), "HOME": "/root", "USER": "root", "LOGNAME": "root"}
    shown = "id -u; id -G; env; grep Cap /proc/self/status; ls -l /proc/self/fd"
    done = on_laptop(laptop, *KNOCK, "--", "sh", "-c", shown, user=0, **under)
    daemon.says("laptop: open tcp/22 for 10.77.0.2")
    lines = done.stdout.splitlines()
    assert lines[0] == str(NOBODY), done.stderr
    assert "0" not in lines[1].split()
    for line in (f"HOME={laptop.home}", "USER=nobody", "LOGNAME=nobody", "CapPrm:\t0000000000000000"):
        assert line in lines
    assert "socket:" not in done.stdout


def test_what_root_writes(laptop: Lab) -> None:
    """Under sudo, a profile that is a link to root's files, and --pcap to one, are read and written as the user."""
    secret = laptop.directory / "secret"
    secret.mkdir(mode=0o700)
    (secret / "config").write_text("[main]\nroot's own\n")
    under = {"SUDO_UID": str(NOBODY), "SUDO_GID": str(NOBODY), "HOME": "/root"}
    done = on_laptop(laptop, *KNOCK[:-1], "--pcap", str(secret / "written"), HOST, user=0, **under)
    assert done.returncode == 1
    assert not (secret / "written").exists()
    (laptop.home / ".knockknock" / "linked").symlink_to(secret)
    (laptop.home / ".knockknock" / "config").symlink_to(secret / "config")
    done = on_laptop(laptop, *KNOCK[:-1], "linked", user=0, **under)
    assert done.returncode == 1
    assert "root's own" not in done.stderr


def test_proxy_by_systemd(laptop: Lab, daemon_user: object) -> None:
    """The proxy without any right of its own, by the same socket, for one knock after the other."""
    laptop.listen(22)
    daemon = laptop.daemon()
    served(laptop)
    command = laptop.directory / "machine" / "bin" / "knockknock-proxy"
    command.write_text((command.parent / "knockknock").read_text().replace("cli.knockknock", "cli.proxy"))
    command.chmod(0o755)
    log = laptop.directory / "proxy.log"
    run = laptop.directory / "machine" / "run"
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", f"--groups={GROUP}"]
    script = f'mount --bind {run} /run && exec "$@"'
    words = ["unshare", "--mount", "sh", "-c", script, "sh", *become, str(command)]
    with log.open("w") as file:
        laptop.start("client", *words, stderr=file, env=laptop.environment())
    until(lambda: "listening at" in log.read_text(), 10)
    for number in range(1, 4):
        with inside(laptop.ns("client")):
            caller = socket.socket()
        with caller:
            caller.settimeout(10)
            caller.connect(("127.0.0.1", 1080))
            caller.sendall(f"CONNECT {HOST}:22 HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            assert caller.recv(100).startswith(b"HTTP/1.1 200 "), log.read_text()
        until(lambda number=number: daemon.log().count("laptop: open tcp/22 for 10.77.0.2") == number)  # type: ignore[misc]  # a default is bound now


def test_proxy_does_not_count_on_sudo(laptop: Lab) -> None:
    """It could not call it later: so without systemd's socket it says at the start what it lacks."""
    allow_sudo(laptop)
    command = laptop.directory / "machine" / "bin" / "knockknock-proxy"
    command.write_text((command.parent / "knockknock").read_text().replace("cli.knockknock", "cli.proxy"))
    command.chmod(0o755)
    place = laptop.directory / "machine" / "sudoers.d" / "all"
    place.write_text("nobody ALL=(ALL) NOPASSWD: ALL\n")
    place.chmod(0o440)
    done = on_laptop(laptop, "/usr/local/bin/knockknock-proxy")
    assert done.returncode == 1
    assert done.stderr.startswith("knockknock-proxy: you may not send a knock from here")
