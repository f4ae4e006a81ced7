"""minimal-firewall.sh with nftables, iptables-nft and iptables-legacy, in network namespaces of its own."""

# kkfw-c-PID (the client)                        kkfw-s-PID (the server: minimal-firewall.sh runs here)
#
#   eth0  10.77.0.1/24  ------ one veth pair ------  eth0  10.77.0.2/24
#         fd77::1/64                                       fd77::2/64
#         fe80::...                                        fe80::...
#
#                                                  KEPT    TCP and UDP, open to all by --keep
#                                                  CLOSED  TCP and UDP, without --keep

from __future__ import annotations

import ctypes
import os
import pty
import re
import select
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "minimal-firewall.sh"
TOOLS = ("ip", "nft", "iptables-nft", "ip6tables-nft", "sysctl", "setsid", "unshare", "flock")
BACKENDS = ("nftables", "iptables-nft", "iptables-legacy")
CLIENT, SERVER = ("10.77.0.1", "fd77::1"), ("10.77.0.2", "fd77::2")
KEPT, CLOSED = 8001, 8002
KEEP = ("--keep", str(KEPT), "--keep", f"{KEPT}/udp")
SILENCE = 0.3  # how long an answer that must not come is waited for
LIMIT = 8.0  # how long anything that must come is waited for
T = TypeVar("T")

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or any(shutil.which(tool) is None for tool in TOOLS),
    reason=f"needs root and {', '.join(TOOLS)}",
)


def inside(namespace: str, function: Callable[[], T]) -> T:
    """Calls the function in a thread that has entered the namespace; the sockets it opens stay there."""

    def enter_and_call() -> T:
        descriptor = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(descriptor, 0x40000000) != 0:  # CLONE_NEWNET
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(descriptor)
        return function()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(enter_and_call).result(timeout=2 * LIMIT)


def run(*command: str, text: str = "") -> None:
    subprocess.run(command, input=text, text=True, check=True, timeout=LIMIT)


def family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@dataclass
class Network:
    """The client and the server, with minimal-firewall.sh on one backend."""

    client: str
    server: str
    backend: str
    tmp: Path
    sockets: list[socket.socket] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self.tmp / 'bin'}:{os.environ['PATH']}",
            "MINIMAL_FIREWALL_RUN": str(self.tmp / "run"),
        }

    def attempt(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ip", "netns", "exec", self.server, *command],
            env=self.environment | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=2 * LIMIT,
        )

    def on_server(self, *command: str) -> str:
        """Run the command on the server, where it must succeed; return what it prints."""
        done = self.attempt(*command)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def firewall(self, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
        backend = () if {"--confirm", "--remove"} & {*options} else (f"--{self.backend.split('-')[0]}",)
        return self.attempt(str(SCRIPT), *backend, *options, **variables)

    def apply(self, *options: str) -> None:
        done = self.firewall(*options)
        assert done.returncode == 0, done.stderr

    def refusal(self, *options: str, status: int = 1) -> str:
        """The one sentence with which the script refuses the options; the rules stay as they are."""
        before = self.rules()
        done = self.firewall(*options)
        assert done.returncode == status, done.stderr
        assert done.stdout == ""
        lines = [line for line in done.stderr.splitlines() if not line.startswith("Warning:")]
        assert len(lines) == 1, lines
        assert self.rules() == before
        return lines[0]

    def rules(self) -> str:
        """All rules of the server, without counters, the times of saving, and tables that do nothing."""
        if self.backend == "nftables":
            return self.on_server("nft", "list", "ruleset")
        saved = self.on_server("iptables-save") + self.on_server("ip6tables-save")
        saved = re.sub(r"^#.*\n| \[\d+:\d+\]", "", saved, flags=re.MULTILINE)
        return re.sub(r"\*filter\n(:\w+ ACCEPT\n)+COMMIT\n", "", saved)

    def wait_for_rules(self, expected: str) -> None:
        end = time.monotonic() + LIMIT
        while self.rules() != expected:
            assert time.monotonic() < end, f"expected:\n{expected}\nbut there is:\n{self.rules()}"
            time.sleep(0.1)

    def place_rules_of_others(self) -> None:
        """Rules that refuse nothing, of the kind that stand on a host before."""
        if self.backend == "nftables":
            chain = "add chain inet others c { type filter hook input priority 1; }"
            self.on_server("nft", f"add table inet others; {chain}")
            return
        for command in ("iptables", "ip6tables"):
            for rule in ("-N OTHERS", "-A OTHERS -p tcp -j RETURN", "-A INPUT -j OTHERS", "-P FORWARD DROP"):
                self.on_server(command, *rule.split())

    def open_closed_port(self) -> None:
        """Open the port CLOSED as knockknock does for somebody who knocked, here for everybody."""
        label = f"add rule inet knocks c tcp dport {CLOSED} ct label set 75"
        chain = "add chain inet knocks c { type filter hook prerouting priority -199; }"
        self.on_server("nft", f"add table inet knocks; {chain}; {label}")
        if self.backend == "nftables":
            self.on_server("nft", 'insert rule inet minimal_firewall input ct label 75 accept comment "knockknock"')
            return
        rule = "-I INPUT -m connlabel --label 75 -m comment --comment knockknock -j ACCEPT"
        for command in ("iptables", "ip6tables"):
            self.on_server(command, *rule.split())

    def bound(self, namespace: str, kind: socket.SocketKind, address: str, port: int = 0) -> socket.socket:
        """A socket in the namespace, bound to the address and port; it listens if it is TCP with a port."""

        def bind() -> socket.socket:
            made = socket.socket(family(address), kind)
            self.sockets.append(made)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.settimeout(LIMIT)
            made.bind(socket.getaddrinfo(address, port, type=kind)[0][4])
            if kind == socket.SOCK_STREAM and port:
                made.listen()
            return made

        return inside(namespace, bind)

    def listener(self, address: str, port: int) -> socket.socket:
        return self.bound(self.server, socket.SOCK_STREAM, address, port)

    def caller(self, address: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
        """A socket on the client that can reach this address of the server."""
        return self.bound(self.client, kind, CLIENT[SERVER.index(address)])

    def connected(self, address: str, port: int) -> tuple[socket.socket, socket.socket]:
        """Both ends of a new TCP connection, the client's first."""
        listener, caller = self.listener(address, port), self.caller(address)
        caller.connect((address, port))
        accepted, _ = listener.accept()
        self.sockets.append(accepted)
        accepted.settimeout(LIMIT)
        return caller, accepted

    def tcp(self, address: str, port: int, wait: float = LIMIT) -> str:
        """Return the server's answer to a connection from the client: open, refused or silent."""
        caller = self.caller(address)
        caller.settimeout(wait)
        with self.listener(address, port):
            try:
                caller.connect((address, port))
            except ConnectionRefusedError:
                return "refused"
            except TimeoutError:
                return "silent"
            return "open"

    def udp(self, address: str, port: int, wait: float = LIMIT) -> str:
        """Return the server's answer to a datagram from the client: open, refused, silent or garbled."""
        caller = self.caller(address, socket.SOCK_DGRAM)
        caller.connect((address, port))
        with self.bound(self.server, socket.SOCK_DGRAM, address, port) as service:
            caller.send(b"anybody there?")
            ready, _, _ = select.select([caller, service], [], [], wait)
            if service in ready:
                service.sendto(b"yes", service.recvfrom(100)[1])
            elif caller not in ready:
                return "silent"
            try:
                return "open" if caller.recv(100) == b"yes" else "garbled"
            except ConnectionRefusedError:
                return "refused"

    def pings(self, address: str) -> bool:
        v6 = family(address) == socket.AF_INET6

        def send() -> bool:
            protocol = socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP
            with socket.socket(family(address), socket.SOCK_DGRAM, protocol) as echo:
                echo.settimeout(LIMIT)
                echo.connect((address, 0))
                echo.send(struct.pack("!BBHHH", 128 if v6 else 8, 0, 0, 0, 1))
                return echo.recv(100)[:1] == (b"\x81" if v6 else b"\x00")

        return inside(self.client, send)


def converse(client: socket.socket, server: socket.socket) -> bool:
    """Return True if both ends still hear each other. The server begins, as sshd does when the script prints."""
    server.sendall(b"The firewall stands")
    if client.recv(100) != b"The firewall stands":
        return False
    client.sendall(b"thank you")
    heard = b""
    while not heard.endswith(b"thank you"):
        more = server.recv(100)
        if not more:
            return False
        heard += more
    return True


@pytest.fixture
def network(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Network]:
    """The namespaces; with nftables, or with the backend that the test is parametrised with."""
    backend = getattr(request, "param", "nftables")
    made = Network(f"kkfw-c-{os.getpid()}", f"kkfw-s-{os.getpid()}", backend, tmp_path)
    (tmp_path / "bin").mkdir()
    if backend != "nftables":
        for name in ("iptables", "ip6tables"):
            for action in ("", "-save", "-restore"):
                found = shutil.which(f"{name}-{backend.split('-')[1]}{action}")
                if found is None:
                    pytest.fail(f"{backend} is not installed")
                (tmp_path / "bin" / f"{name}{action}").symlink_to(found)
    ends = ((made.client, CLIENT), (made.server, SERVER))
    try:
        for namespace, _ in ends:
            run("ip", "netns", "add", namespace)
            # No waiting for duplicate addresses; and a ping can be sent from a datagram socket.
            settings = ("all.accept_dad=0", "default.accept_dad=0")
            run(
                *("ip", "netns", "exec", namespace, "sysctl", "-qw", "net.ipv4.ping_group_range=0 0"),
                *(f"net.ipv6.conf.{setting}" for setting in settings),
            )
        # With the same index at both ends the kernel may take a second to see that the link is up.
        pair = f"eth0 index 10 netns {made.client} type veth peer name eth0 index 11 netns {made.server}"
        run("ip", "link", "add", *pair.split())
        for namespace, (v4, v6) in ends:
            addresses = f"addr add {v4}/24 dev eth0\naddr add {v6}/64 dev eth0\n"
            run("ip", "-n", namespace, "-batch", "-", text=addresses + "link set lo up\nlink set eth0 up\n")
        if backend == "iptables-legacy" and made.attempt("iptables", "-S").returncode != 0:
            pytest.skip("the kernel has no iptables-legacy")
        yield made
    finally:
        for opened in made.sockets:
            opened.close()
        for namespace, _ in ends:
            subprocess.run(["ip", "netns", "del", namespace], check=False, timeout=LIMIT)


every_backend = pytest.mark.parametrize("network", BACKENDS, indirect=True)


@every_backend
def test_only_kept_ports_and_ping_answer(network: Network) -> None:
    network.apply(*KEEP)
    with ThreadPoolExecutor(4) as pool:  # all at once, since silence takes its time
        ways = [(way, address) for way in (network.tcp, network.udp) for address in SERVER]
        answers = list(pool.map(lambda call: call[0](call[1], CLOSED, SILENCE), ways))
    assert answers == ["silent"] * 4
    for address in SERVER:
        assert network.tcp(address, KEPT) == "open"
        assert network.udp(address, KEPT) == "open"
        assert network.pings(address)


@every_backend
def test_reject_answers_at_once(network: Network) -> None:
    network.apply("--reject", *KEEP)
    for address in SERVER:
        assert network.tcp(address, CLOSED) == "refused"
        assert network.udp(address, CLOSED) == "refused"
        assert network.tcp(address, KEPT) == "open"
        assert network.udp(address, KEPT) == "open"


@every_backend
def test_loopback_and_connections_from_the_server_are_free(network: Network) -> None:
    network.apply()
    for ours, theirs in zip(SERVER, CLIENT, strict=True):
        for namespace, target in ((network.server, ours), (network.client, theirs)):
            with network.bound(namespace, socket.SOCK_STREAM, target, CLOSED):
                network.bound(network.server, socket.SOCK_STREAM, ours).connect((target, CLOSED))


@every_backend
def test_connections_survive(network: Network) -> None:
    pairs = [network.connected(address, CLOSED) for address in SERVER]
    network.apply("--reject")
    for client, _ in pairs:
        client.sendall(b"too early")  # conntrack has not seen this connection: no answer, and no reset
    time.sleep(0.05)
    for client, server in pairs:
        assert converse(client, server)
    network.apply()
    for client, server in pairs:
        assert converse(client, server)


@every_backend
def test_dhcpv6_answers_come_from_the_link_only(network: Network) -> None:
    network.apply()
    links = [
        re.findall(r"inet6 (fe80::\S+)/", subprocess.check_output(["ip", "-n", name, "addr"], text=True))[0]
        for name in (network.client, network.server)
    ]
    service = network.bound(network.server, socket.SOCK_DGRAM, "::", 546)
    network.bound(network.client, socket.SOCK_DGRAM, "fd77::1").sendto(b"far", ("fd77::2", 546))
    scope = inside(network.client, lambda: socket.if_nametoindex("eth0"))
    near = inside(network.client, lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
    network.sockets.append(near)
    near.bind((links[0], 0, 0, scope))
    near.sendto(b"near", (links[1], 546, 0, scope))
    assert service.recv(100) == b"near"


@every_backend
def test_running_it_again_is_the_same_as_once_with_the_new_options(network: Network) -> None:
    network.place_rules_of_others()
    network.apply("--reject", *KEEP)
    once = network.rules()
    network.apply("--reject", *KEEP)
    assert network.rules() == once
    network.apply()
    assert network.rules() != once
    assert network.tcp(SERVER[0], KEPT, SILENCE) == "silent"
    network.apply("--reject", *KEEP)
    assert network.rules() == once


@every_backend
def test_what_knockknock_adds_stays_in_force(network: Network) -> None:
    network.apply()
    network.open_closed_port()
    with_knocks = network.rules()
    assert network.tcp(SERVER[0], CLOSED) == "open"
    network.apply("--reject", *KEEP)
    assert network.tcp(SERVER[0], CLOSED) == "open"
    assert network.tcp(SERVER[1], CLOSED) == "open"
    network.apply()
    assert network.rules() == with_knocks


def test_the_rule_of_knockknock_keeps_its_handle(network: Network) -> None:
    network.apply()
    network.open_closed_port()
    chain = ("nft", "-a", "list", "chain", "inet", "minimal_firewall", "input")
    head = network.on_server(*chain).splitlines()[3]
    assert 'comment "knockknock"' in head
    network.apply("--reject")
    assert network.on_server(*chain).splitlines()[3] == head


@every_backend
def test_try_puts_the_old_rules_back_by_itself(network: Network) -> None:
    network.apply("--reject", *KEEP)
    network.open_closed_port()
    old = network.rules()
    network.apply("--try", "1")
    assert network.rules() != old
    network.wait_for_rules(old)
    assert "nothing waits" in network.refusal("--confirm")


def test_confirmed_rules_stay(network: Network) -> None:
    network.apply("--try", "1")
    tried = network.rules()
    assert network.firewall("--confirm").returncode == 0
    time.sleep(1.5)
    assert network.rules() == tried


def test_a_second_try_goes_back_to_the_rules_before_the_first(network: Network) -> None:
    network.apply()
    old = network.rules()
    network.apply("--try", "1", *KEEP)
    network.apply("--try", "1", "--reject")
    network.wait_for_rules(old)


def test_running_it_without_try_ends_a_try(network: Network) -> None:
    network.apply("--try", "5")
    network.apply("--reject")
    rejecting = network.rules()
    assert "nothing waits" in network.refusal("--confirm")
    assert network.rules() == rejecting


def on_terminal(network: Network, *options: str) -> tuple[subprocess.Popen[bytes], int]:
    """The script on a terminal of its own, when it has begun to wait for Enter."""
    terminal, slave = pty.openpty()
    shell = subprocess.Popen(
        # As on a login, whatever ignores hangups here (nohup).
        [
            "setsid",
            "--ctty",
            "env",
            "--default-signal=HUP",
            "ip",
            "netns",
            "exec",
            network.server,
            str(SCRIPT),
            *options,
        ],
        env=network.environment,
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    seen = b""
    while b"Enter here" not in seen:
        assert select.select([terminal], [], [], LIMIT)[0], seen
        seen += os.read(terminal, 1000)
    return shell, terminal


def test_enter_confirms(network: Network) -> None:
    shell, terminal = on_terminal(network, "--try", "5")
    tried = network.rules()
    os.write(terminal, b"\n")
    assert shell.wait(LIMIT) == 0
    os.close(terminal)
    assert "nothing waits" in network.refusal("--confirm")
    assert network.rules() == tried != ""


@pytest.mark.parametrize("typed", [b"\x04", b""], ids=["end of file", "hangup"])
def test_a_login_that_ends_confirms_nothing(network: Network, typed: bytes) -> None:
    shell, terminal = on_terminal(network, "--try", "1")
    assert network.rules() != ""
    if typed:
        os.write(terminal, typed)
        assert shell.wait(LIMIT) != 0
    os.close(terminal)
    assert shell.wait(LIMIT) != 0
    network.wait_for_rules("")


@every_backend
def test_remove_takes_exactly_its_own_away(network: Network) -> None:
    network.place_rules_of_others()
    before = network.rules()
    network.apply("--reject", *KEEP)
    network.apply()
    assert network.firewall("--remove").returncode == 0
    assert network.rules() == before
    assert network.firewall("--remove").returncode == 0
    assert network.rules() == before


@pytest.mark.parametrize("network", BACKENDS[1:], indirect=True)
def test_remove_restores_the_policy_that_was(network: Network) -> None:
    for command in ("iptables", "ip6tables"):
        network.on_server(command, "-P", "INPUT", "DROP")
    before = network.rules()
    assert "the INPUT chain of iptables already refuses input" in network.refusal()
    network.apply("--force")
    network.apply("--reject")
    assert network.firewall("--remove").returncode == 0
    assert network.rules() == before


@pytest.mark.parametrize("network", BACKENDS[1:], indirect=True)
@pytest.mark.parametrize("standing", [False, True])
def test_ipv4_is_put_back_if_ipv6_fails(network: Network, standing: bool) -> None:
    network.place_rules_of_others()
    if standing:
        network.apply(*KEEP)
    before = network.rules()
    broken = network.tmp / "bin" / "ip6tables-restore"
    broken.unlink()
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    assert "were refused" in network.refusal("--reject")
    assert network.rules() == before


FOREIGN_CHAIN = "nft add table ip x; add chain ip x y { type filter hook input priority 0; policy drop; }"


@pytest.mark.parametrize(
    ("network", "command", "named"),
    [
        ("nftables", "nft add table inet firewalld", "firewalld"),
        ("nftables", FOREIGN_CHAIN, "ip x y"),
        ("nftables", "iptables-nft -P INPUT DROP", "INPUT chain of iptables"),
        ("nftables", "ip6tables-nft -A INPUT -p udp -j REJECT", "INPUT chain of ip6tables"),
        ("iptables-nft", "iptables-nft -A INPUT -s 10.77.0.9 -j DROP", "INPUT chain of iptables"),
        ("iptables-legacy", "ip6tables-legacy -P INPUT DROP", "INPUT chain of ip6tables"),
        ("iptables-legacy", FOREIGN_CHAIN, "ip x y"),
    ],
    indirect=["network"],
)
def test_refuses_next_to_another_firewall(network: Network, command: str, named: str) -> None:
    network.on_server(*command.split(" ", 1 if command.startswith("nft") else -1))
    before = network.rules()
    sentence = network.refusal()
    assert named in sentence
    assert "--force" in sentence
    network.apply("--force")
    network.apply("--reject")
    assert network.firewall("--remove").returncode == 0
    assert network.rules() == before


def test_refuses_next_to_ufw(network: Network) -> None:
    ufw = network.tmp / "bin" / "ufw"
    ufw.write_text("#!/bin/sh\necho 'Status: active'\n")
    ufw.chmod(0o755)
    assert "ufw disable" in network.refusal()
    ufw.write_text("#!/bin/sh\necho 'Status: inactive'\n")
    network.apply()


def test_one_backend_at_a_time(network: Network) -> None:
    network.apply()
    done = network.attempt(str(SCRIPT), "--iptables")
    assert done.returncode == 1
    assert "--remove" in done.stderr
    assert network.firewall("--remove").returncode == 0
    assert network.attempt(str(SCRIPT), "--iptables").returncode == 0
    again = network.attempt(str(SCRIPT))
    assert again.returncode == 0, "without an option it goes on with what it stands in"
    assert "with iptables" in again.stdout


@every_backend
def test_dry_run_shows_and_changes_nothing(network: Network) -> None:
    network.place_rules_of_others()
    before = network.rules()
    shown = network.firewall("--dry-run", "--try", "1", *KEEP)
    assert shown.returncode == 0, shown.stderr
    assert f"dport {KEPT}" in shown.stdout
    assert network.rules() == before
    assert not (network.tmp / "run").exists()


def test_warns_of_ssh_logins_that_will_need_a_knock(network: Network) -> None:
    session = "10.77.0.1 50000 10.77.0.2 2222"
    warned = network.firewall(SSH_CONNECTION=session).stderr
    assert warned.count("\n") == 1
    assert "--keep 2222" in warned
    assert "--try" in warned
    assert "2222" in network.firewall("--keep", "2222/udp", SSH_CONNECTION=session).stderr
    assert network.firewall("--keep", "2222", SSH_CONNECTION=session).stderr == ""
    # As under sudo, which clears the variable.
    cleared = ("sh", "-c", f"env -u SSH_CONNECTION {SCRIPT} --dry-run; true")
    assert "--keep 2222" in network.attempt(*cleared, SSH_CONNECTION=session).stderr


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--keep"], "--keep"),
        (["--keep", "0"], "--keep '0'"),
        (["--keep", "65536"], "--keep '65536'"),
        (["--keep", "99999999999999999999"], "--keep '99999999999999999999'"),
        (["--keep", "http"], "--keep 'http'"),
        (["--keep", "53/sctp"], "--keep '53/sctp'"),
        (["--keep", ""], "--keep ''"),
        (["--try"], "--try"),
        (["--try", "0"], "--try '0'"),
        (["--try", "1m"], "--try '1m'"),
        (["--try", "86401"], "--try '86401'"),
        (["--rejcet"], "'--rejcet'"),
        (["80"], "'80'"),
        (["--nftables", "--iptables"], "--nftables and --iptables"),
        (["--confirm", "--remove"], "--confirm and --remove"),
        (["--confirm", "--dry-run"], "--confirm"),
        (["--remove", "--keep", "80"], "--remove"),
    ],
)
def test_mistakes_are_named_with_the_way_out(options: list[str], named: str) -> None:
    done = subprocess.run(
        ["unshare", "--net", SCRIPT, *options], capture_output=True, text=True, check=False, timeout=LIMIT
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert named in done.stderr
    assert re.fullmatch(r"minimal-firewall\.sh: [^\n]+(: | as in )[^\n]+\.\n", done.stderr)


def test_needs_root() -> None:
    with SCRIPT.open() as source:
        done = subprocess.run(
            ["sh", "-s"], stdin=source, user=65534, capture_output=True, text=True, check=False, timeout=LIMIT
        )
    assert done.returncode == 1
    assert done.stderr == "minimal-firewall.sh: this needs root: run it again with sudo.\n"


def test_help_is_the_head_of_the_file() -> None:
    shown = subprocess.check_output([SCRIPT, "--help"], text=True, timeout=LIMIT)
    for option in re.findall(r"^    (--\w[\w-]*)", SCRIPT.read_text(), re.MULTILINE):
        assert option in shown
    assert "set -u" not in shown


def test_shellcheck_is_content() -> None:
    if shutil.which("shellcheck") is None:
        pytest.fail("shellcheck is not installed")
    done = subprocess.run(["shellcheck", SCRIPT], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stdout
