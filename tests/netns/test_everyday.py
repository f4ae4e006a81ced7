"""The client in daily use: ssh through it, programs that it starts, hosts with several addresses, lost knocks."""

import contextlib
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from knockknock.client.connect import Dialer, Trial

from .lab import KNOCK_PORT, Lab, inside, until

HOST, HOST6 = "10.77.0.1", "fd77:0::1"
KNOCKKNOCK = [sys.executable, str(Path(__file__).parents[2] / "bin" / "knockknock")]


def lose_knocks(lab: Lab, number: int) -> None:
    """Let the first knocks get lost on the way to the server."""
    rule = f"tcp dport {KNOCK_PORT} limit rate 1/hour burst {number} packets drop"
    table = f"table ip lossy {{\nchain pre {{\ntype filter hook prerouting priority -300\n{rule}\n}}\n}}\n"
    lab.run("server", "nft", "-f", "-", text=table)


def knocks(lab: Lab, host: str = HOST) -> int:
    """Number of knocks that the client has taken counters for."""
    return int((lab.home / ".knockknock" / host / "counter").read_text())


@pytest.fixture
def sshd(lab: Lab) -> list[str]:
    """A real sshd on the server; the ssh command that logs in there from the client, without host and command."""
    proxy = " ".join(KNOCKKNOCK)
    return [*lab.sshd(), "-o", "LogLevel=ERROR", "-o", f"ProxyCommand={proxy} -p %p --stdio %h"]


@contextlib.contextmanager
def echo(lab: Lab, port: int) -> Iterator[list[bytes]]:
    """A service on the server that answers with what it got once it has all of it; what each connection sent."""
    listener = lab.listen(port)
    heard: list[bytes] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = listener.accept()[0]
                with connection, connection.makefile("rb") as file:
                    data = file.read()
                    heard.append(data)
                    connection.sendall(data)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield heard
    listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def test_ssh_through_it(lab: Lab, sshd: list[str]) -> None:
    """Login after login, each with one knock, and no connection but that of ssh."""
    lab.mint("laptop")
    daemon = lab.daemon()
    for number in (1, 2):
        done = lab.run("client", *sshd, f"root@{HOST}", "echo", "hello from", "$SSH_CONNECTION")
        assert done.stdout.startswith("hello from 10.77.0.2"), done.stderr
        assert knocks(lab) == number
    daemon.says_times("laptop: open tcp/22 for 10.77.0.2", 2)
    assert not lab.connects(HOST)


def test_mosh_as_readme_has_it(lab: Lab) -> None:
    """mosh gives ssh a ProxyCommand of its own, so both doors are opened before it starts; its line runs unchanged."""
    page = (Path(__file__).parents[2] / "docs" / "laptop.md").read_text()
    (line,) = re.findall(r"`(knockknock [^`]* -- mosh [^`]*)`", page)
    (ports,) = set(re.findall(r"\|ports = ([^|]*)\|", page))
    lab.mint("laptop", "--ports", ports, hosts=("server.example",))
    names, programs, done = (lab.directory / name for name in ("hosts", "programs", "done"))
    names.write_text(f"{HOST} server.example\n")
    programs.mkdir()
    ssh = [str(shutil.which("ssh")), *lab.sshd()[1:]]
    for name, words in (("knockknock", lab.program("knockknock")), ("ssh", ssh)):
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        (programs / name).chmod(0o755)
    lab.configure(delay="15")
    daemon = lab.daemon()
    typed = f"while sleep 0.2; do echo 'touch {done}; exit'; done"  # by somebody who has not seen yet that it began
    terminal = f"script --quiet --return --command 'stty rows 24 cols 80; {' '.join(line.split())}' /dev/null"
    mosh = lab.start(
        "client",
        *("unshare", "--mount", "sh", "-ec", f"mount --bind {names} /etc/hosts; {typed} | {terminal}"),
        env=lab.environment(PATH=f"{programs}:{os.environ['PATH']}", LANG="C.UTF-8", TERM="xterm"),
        stdout=subprocess.PIPE,
    )
    said, _ = mosh.communicate(timeout=30)
    assert mosh.returncode == 0, said
    assert done.exists(), "what was typed reached the server"
    for port in ("tcp/22", "udp/60003"):
        daemon.says_times(f"open {port} for 10.77.0.2", 1)


@pytest.mark.parametrize("number", [20, 50])
def test_many_logins_at_the_same_time(lab: Lab, sshd: list[str], number: int) -> None:
    """By one profile: as many doors as knocks, up to 16 at a moment, so 20 are in as soon as without knocks."""
    lab.mint("laptop", many=True)
    daemon = lab.daemon()

    def log_in(ssh: list[str]) -> float:
        begin = time.monotonic()
        with ThreadPoolExecutor(number) as pool:
            done = list(pool.map(lambda _: lab.run("client", *ssh, HOST, "true", check=False), range(number)))
        said = [one.stderr for one in done]
        assert [one.returncode for one in done] == [0] * number, said
        # Root's own shell on the server may say something as it starts; knockknock and ssh do not.
        assert not any(re.search("knockknock|ssh|onnection", one) for one in said), said
        return time.monotonic() - begin

    seconds = log_in(sshd)
    if number == 20:
        assert daemon.stop() == 0
        lab.run("server", "nft", "insert", "rule", "inet", "guard", "input", "tcp", "dport", "22", "accept")
        assert seconds - log_in([word for word in sshd if "ProxyCommand" not in word][:-1]) < 2


def test_a_file_through_ssh(lab: Lab, sshd: list[str]) -> None:
    """Many bytes both ways, and the end of standard input reaches the other side."""
    lab.mint("laptop")
    lab.daemon()
    done = lab.run("client", *sshd, f"root@{HOST}", "cat", text="x" * 3_000_000)
    assert done.stdout == "x" * 3_000_000


def test_half_closes(lab: Lab) -> None:
    """The server answers only after our side has ended; its answer still arrives whole."""
    lab.mint("laptop", "--ports", "tcp/2222")
    lab.daemon()
    with echo(lab, 2222) as heard:
        text = "".join(f"line {number}\n" for number in range(200_000))
        done = lab.run("client", *KNOCKKNOCK, "-p", "2222", "--stdio", HOST, text=text)
        assert done.stdout == text
        assert heard == [text.encode()], "there was another connection than ours"


def test_the_port_alone_is_enough(lab: Lab) -> None:
    """ProxyCommand knockknock --stdio %h %p, for hosts with several ports."""
    lab.mint("laptop", "--ports", "tcp/2222")
    lab.daemon()
    with echo(lab, 2222):
        assert lab.run("client", *KNOCKKNOCK, "--stdio", HOST, "2222", text="hello").stdout == "hello"


def test_the_first_that_is_established_is_taken(lab: Lab) -> None:
    """The door is for the one whose handshake is complete first, also if an older one is established a moment later."""
    lab.run("server", "nft", "flush ruleset")
    lab.listen(22)
    dialer = Dialer([], 22, 10, lambda _: "10.77.0.2")
    trial = Trial((socket.AF_INET, HOST), "10.77.0.2", 0, iter(()))
    with inside(lab.ns("client")):
        dialer._attempt(trial)  # the neighbours know each other from here on
        until(lambda: dialer._answered(0.1))
        held = "table ip held { chain in { type filter hook prerouting priority -300; tcp dport 22 drop; }; }"
        lab.run("server", "nft", held)
        dialer._attempt(trial)
        (older,) = dialer._pending.values()
        lab.run("server", "nft", "delete table ip held")
        dialer._attempt(trial)
        newer = next(one for one in dialer._pending.values() if one is not older)
        established = b"\1"  # TCP_ESTABLISHED (include/net/tcp_states.h); after a second
        until(lambda: older.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == established)
    assert dialer._answered(0) is newer


@pytest.mark.parametrize("lost", [1, 2])
def test_a_lost_knock(lab: Lab, lost: int) -> None:
    """It is knocked again, and the connection comes about."""
    lab.mint("laptop", "--ports", "tcp/2222")
    daemon = lab.daemon()
    lose_knocks(lab, lost)
    with echo(lab, 2222) as heard:
        assert lab.run("client", *KNOCKKNOCK, "-p", "2222", "--stdio", HOST, text="hello").stdout == "hello"
    assert heard == [b"hello"]
    assert knocks(lab) == lost + 1
    daemon.says_times("laptop: open tcp/2222", 1)


def test_a_slow_door(lab: Lab) -> None:
    """The daemon is busy for a moment: one of the attempts after that gets in, and no knock is wasted on waiting."""
    lab.mint("laptop", "--ports", "tcp/2222")
    daemon = lab.daemon()
    daemon.process.send_signal(19)
    waker = threading.Timer(0.6, daemon.process.send_signal, [18])
    waker.start()
    with echo(lab, 2222):
        assert lab.run("client", *KNOCKKNOCK, "-p", "2222", "--stdio", HOST, text="hello").stdout == "hello"
    waker.join()
    assert knocks(lab) == 1


def test_a_firewall_that_rejects(lab: Lab) -> None:
    """A reset before the door is open is no reason to give up."""
    lab.run(
        "server",
        "nft",
        "add",
        "rule",
        "inet",
        "guard",
        "input",
        "tcp",
        "dport",
        "2222",
        "reject",
        "with",
        "tcp",
        "reset",
    )
    lab.mint("laptop", "--ports", "tcp/2222")
    daemon = lab.daemon()
    daemon.process.send_signal(19)
    waker = threading.Timer(0.3, daemon.process.send_signal, [18])
    waker.start()
    with echo(lab, 2222) as heard:
        assert lab.run("client", *KNOCKKNOCK, "-p", "2222", "--stdio", HOST, text="hello").stdout == "hello"
        assert heard == [b"hello"]
    waker.join()


def test_nothing_opens(lab: Lab) -> None:
    """It gives up in time and says what it tried, and what for."""
    lab.mint("laptop", "--bind-source")
    begin = time.monotonic()
    done = lab.run("client", *KNOCKKNOCK, "-p", "22", "--stdio", "--timeout", "1.5", HOST, check=False)
    assert time.monotonic() - begin < 10
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("knockknock: port 22 did not open in 1.5 s: 2 knocks to 10.77.0.1 from 10.77.0.2; ")
    assert (
        "attempts to connect, no answer; the profile binds the source: if there is NAT in between, say --source"
        in done.stderr
    )
    assert len(done.stderr.splitlines()) == 1


def test_nothing_listens(lab: Lab) -> None:
    """The door opens and the service is not there: the answers are told."""
    lab.mint("laptop")
    lab.daemon()
    done = lab.run("client", *KNOCKKNOCK, "-p", "22", "--stdio", "--timeout", "0.5", HOST, check=False)
    assert done.returncode == 1
    assert "'Connection refused'" in done.stderr


def test_a_connection_that_breaks(lab: Lab) -> None:
    lab.mint("laptop", "--ports", "tcp/2222")
    lab.daemon()
    listener = lab.listen(2222)
    command = ["ip", "netns", "exec", lab.ns("client"), *KNOCKKNOCK, "-p", "2222", "--stdio", HOST]
    with subprocess.Popen(
        command, env=lab.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as client:
        listener.settimeout(10)
        connection = listener.accept()[0]
        time.sleep(0.5)  # it is being joined by then; a reset before that would be an answer to connect()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()
        assert client.stderr
        assert client.stdin
        assert client.wait(5) == 1, "standard input is still open, and it waits for it"
        assert "the connection broke: Connection reset by peer" in client.stderr.read()


def name(lab: Lab, host: str, *addresses: str) -> None:
    """Let a name mean some addresses, on the client: ip-netns(8) puts files of this directory over those of /etc."""
    place = Path("/etc/netns") / lab.ns("client")
    place.mkdir(parents=True, exist_ok=True)
    (place / "hosts").write_text("".join(f"{address} {host}\n" for address in addresses))
    lab.on_close(lambda: shutil.rmtree(place))


def test_a_resolver_that_does_not_answer(lab: Lab) -> None:
    """The server's firewall drops what it is asked."""
    name(lab, "server.example", HOST)
    (Path("/etc/netns") / lab.ns("client") / "resolv.conf").write_text(f"nameserver {HOST}\n")
    lab.mint("laptop", hosts=("nowhere.example",))
    begin = time.monotonic()
    words = ["-p", "22", "--stdio", "--timeout", "1", "nowhere.example"]
    done = lab.run("client", *KNOCKKNOCK, *words, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "the resolver has not answered for 1 s" in done.stderr
    assert time.monotonic() - begin < 4
    assert knocks(lab, "nowhere.example") == 0


def test_the_second_address_when_the_first_is_dead(lab: Lab) -> None:
    """Happy eyeballs: IPv6 is tried first and goes nowhere; IPv4 opens long before the timeout."""
    name(lab, "server.example", "fd77:0::99", HOST)
    lab.mint("laptop", "--ports", "tcp/2222", hosts=("server.example",))
    daemon = lab.daemon()
    with echo(lab, 2222) as heard:
        begin = time.monotonic()
        done = lab.run("client", *KNOCKKNOCK, "-p", "2222", "--stdio", "server.example", text="hello")
        assert done.stdout == "hello"
        assert heard == [b"hello"]
    assert time.monotonic() - begin < 4
    assert knocks(lab, "server.example") == 2, "one knock for each address, and none more"
    daemon.says("laptop: open tcp/2222 for 10.77.0.2")


def test_a_live_first_address_is_the_only_one_that_is_knocked_at(lab: Lab) -> None:
    name(lab, "server.example", HOST6, HOST)
    lab.mint("laptop", "--ports", "tcp/2222", hosts=("server.example",))
    daemon = lab.daemon()
    with echo(lab, 2222):
        lab.run("client", *KNOCKKNOCK, "-p", "2222", "--stdio", "server.example", text="hello")
    assert knocks(lab, "server.example") == 1
    daemon.says("open tcp/2222 for fd77::2")


def test_a_program(lab: Lab) -> None:
    """A real HTTP client against a real HTTP server: knock and request in one line."""
    (lab.directory / "index.html").write_text("behind the door\n")
    lab.start(
        "server", sys.executable, "-m", "http.server", "8080", "-d", str(lab.directory), stderr=subprocess.DEVNULL
    )
    until(lambda: lab.run("server", "ss", "-Hltn", "sport = :8080").stdout)
    lab.mint("laptop", "--ports", "tcp/8080")
    lab.daemon()
    curl = ["curl", "-sS", "--max-time", "5", f"http://{HOST}:8080/index.html"]
    assert lab.run("client", *curl[:2], "--max-time", "0.3", curl[-1], check=False).returncode == 28
    done = lab.run("client", *KNOCKKNOCK, "-p", "8080", HOST, "--", *curl)
    assert done.stdout == "behind the door\n"
    assert lab.run("client", *KNOCKKNOCK, "-p", "8080", HOST, "--", "false", check=False).returncode == 1


@pytest.mark.parametrize("redirect", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full"])
def test_a_program_behind_closed_descriptors(lab: Lab, redirect: str) -> None:
    """The knock leaves, and the program runs."""
    lab.mint("laptop")
    daemon = lab.daemon()
    made = lab.directory / "made"
    words = " ".join([*lab.program("knockknock"), "-p", "22", "10.77.0.1", "--", "touch", str(made)])
    done = lab.run("client", "sh", "-c", f"exec {words} {redirect}", check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert made.exists()
    daemon.says("open tcp/22")


def test_a_udp_service(lab: Lab) -> None:
    """Several datagrams before the first answer: they are one connection to the kernel, and all pass."""
    lab.mint("phone", "--ports", "udp/51820")
    daemon = lab.daemon()
    with inside(lab.ns("server")):
        service = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        service.bind((HOST, 51820))
    with inside(lab.ns("client")):
        peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        peer.connect((HOST, 51820))
    with service, peer:
        service.settimeout(0.5)
        peer.settimeout(5)
        peer.send(b"too early")
        with pytest.raises(TimeoutError):
            service.recv(100)
        lab.knock(HOST, ports=("51820/udp",))
        daemon.says("phone: open udp/51820 for 10.77.0.2")
        for number in range(5):
            peer.send(b"%d" % number)
        heard = []
        for _ in range(5):
            data, address = service.recvfrom(100)
            heard.append(data)
        assert heard == [b"0", b"1", b"2", b"3", b"4"]
        for data in heard:
            service.sendto(data, address)
        assert [peer.recv(100) for _ in range(5)] == heard
        with inside(lab.ns("client")):
            second = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with second:
            second.sendto(b"another", (HOST, 51820))
            with pytest.raises(TimeoutError):
                service.recv(100)


def test_close_before_use(lab: Lab, sshd: list[str]) -> None:
    """--close takes the door back: ssh without a knock of its own finds it shut."""
    lab.mint("laptop")
    daemon = lab.daemon()
    lab.knock(HOST)
    daemon.says("laptop: open tcp/22")
    lab.knock(HOST, "--close")
    daemon.says("laptop: close tcp/22")
    plain = [word for word in sshd if not word.startswith("ProxyCommand")]
    plain = plain[: plain.index("LogLevel=ERROR") + 1]
    done = lab.run("client", *plain, "-o", "ConnectTimeout=1", f"root@{HOST}", "true", check=False)
    assert done.returncode == 255


def test_settings_by_host(lab: Lab) -> None:
    """The name alone is enough: the file says the address, the profile and the ports."""
    lab.mint("laptop", "--ports", "tcp/2222")
    (lab.home / ".knockknock" / "config").write_text(
        f"Host serv*\n  HostName {HOST}\n  Ports 2222\n  Timeout 3\n  AddressFamily inet\nHost *\n  Ports 99\n"
    )
    lab.daemon()
    with echo(lab, 2222):
        assert lab.run("client", *KNOCKKNOCK, "--stdio", "server", text="hello").stdout == "hello"
    lab.listen(2222)
    lab.run("client", *KNOCKKNOCK, "server")
    assert lab.opens(HOST, 2222)


def test_behind_nat(lab: Lab) -> None:
    """A knock that binds its source is good with the address that the server sees, which only --source can know."""
    lab.run("client", "ip", "address", "add", "10.88.0.1/32", "dev", "lo")
    rule = "ip saddr 10.88.0.1 snat to 10.77.0.2"
    table = f"table ip nat {{\nchain out {{\ntype nat hook postrouting priority 100\n{rule}\n}}\n}}\n"
    lab.run("client", "nft", "-f", "-", text=table)
    lab.mint("laptop", "--ports", "tcp/2222", "--bind-source")
    lab.run("client", "ip", "route", "replace", "10.77.0.0/24", "dev", "c0", "src", "10.88.0.1")
    daemon = lab.daemon()
    with echo(lab, 2222):
        words = [*KNOCKKNOCK, "-p", "2222", "--stdio", "--timeout", "0.5"]
        done = lab.run("client", *words, HOST, check=False)
        assert done.returncode == 1
        assert "1 knock to 10.77.0.1 from 10.88.0.1;" in done.stderr
        assert "say --source" in done.stderr
        assert "open tcp/2222" not in daemon.log()
        lab.run("client", "ip", "address", "del", "10.77.0.2/24", "dev", "c0")
        lab.run("client", "ip", "route", "replace", "10.77.0.0/24", "dev", "c0", "src", "10.88.0.1")
        assert lab.run("client", *words, "--source", "10.77.0.2", HOST, text="hello", check=False).stdout == "hello"
