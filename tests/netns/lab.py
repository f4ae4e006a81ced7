"""Real kernels' worth of hosts, in network namespaces.

        client                      server                       other
    ┌────────────┐  veth   ┌─────────────────────────┐  veth  ┌────────────┐
    │ 10.77.0.2  ├─────────┤ 10.77.0.1     10.77.1.1 ├────────┤ 10.77.1.2  │
    │ fd77:0::2  │         │ fd77:0::1     fd77:1::1 │        │ fd77:1::2  │
    └────────────┘         └─────────────────────────┘        └────────────┘

The server refuses all input but what is established; the daemon runs on it. Nobody else is reached.
"""

import contextlib
import ctypes
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from knockknock.root.privileges import program

ROOT = Path(__file__).parents[2]
KNOCK_PORT = 4242
EXPECTED = re.compile(r"\s*(elements = \{ )?\d+ \. \d+ \. \d+( \. \d+)?[ ,}]*$")
"""A line of nft's with elements of the sets of what knocks can bear."""
DELAY = 2
"""Seconds that a door stays open in these tests."""
KERNEL_LOG = False
"""Whether the test that runs now is marked kernel_log; set by conftest.py."""
FIREWALLS = ("nftables", "iptables-nft", "iptables-legacy", "protect")
"""What refuses input: the server's own firewall, or knockknock alone."""
NFT_BASE = """
table inet guard {
    chain input {
        type filter hook input priority filter; policy drop;
        ct state established,related accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } accept
    }
}
"""
_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_COUNT = itertools.count()


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Run the body, in this thread, in a network namespace."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        assert _LIBC.setns(there, _CLONE_NEWNET) == 0
        yield
    finally:
        assert _LIBC.setns(here, _CLONE_NEWNET) == 0
        os.close(here)
        os.close(there)


def until(condition: Callable[[], object], seconds: float = 5) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


class Lab:
    """The three hosts, what runs on them, and a directory for all files."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="knockknock-lab-"))
        self.directory.chmod(0o755)
        self.home = self.directory / "home"
        self.gate = self.directory / "gate"
        (self.home / ".knockknock").mkdir(parents=True, mode=0o700)
        self.settings: dict[str, str] = {
            "delay": str(DELAY),
            "source": "nflog",
            "profiles": f"{self.directory}/etc/profiles",
            "state": f"{self.directory}/state",
            "control": f"{self.directory}/run/control",
        }
        (self.directory / "etc").mkdir()
        self._stack = contextlib.ExitStack()
        self._stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self._name = f"kk{os.getpid()}-{next(_COUNT)}"
        self.processes: list[subprocess.Popen[str]] = []
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def _build(self) -> None:
        # And left so: labs in other processes need it as well.
        Path("/proc/sys/net/netfilter/nf_log_all_netns").write_text("1")
        for host in ("client", "server", "other"):
            sh("ip", "netns", "add", self.ns(host))
            self._stack.callback(sh, "ip", "netns", "del", self.ns(host))
        for number, host in enumerate(("client", "other")):
            pair = [f"c{number}", "netns", self.ns(host), "type", "veth", "peer", f"s{number}", "netns"]
            sh("ip", "link", "add", *pair, self.ns("server"))
        self._configure("server", s0="10.77.0.1/24 fd77:0::1/64", s1="10.77.1.1/24 fd77:1::1/64")
        for number, host in enumerate(("client", "other")):
            self._configure(host, **{f"c{number}": f"10.77.{number}.2/24 fd77:{number}::2/64"})
            routes = [f"route add default via {gateway}" for gateway in (f"10.77.{number}.1", f"fd77:{number}::1")]
            self.run(host, "ip", "-batch", "-", text="\n".join(routes))

    def _configure(self, host: str, **addresses: str) -> None:
        """Bring the devices of a host up, with their addresses: one process, as hundreds of labs are made."""
        lines = ["link set lo up"]
        for device, listed in addresses.items():
            lines += [f"address add {address} dev {device} nodad" for address in listed.split()]
            lines.append(f"link set {device} up")
        self.run(host, "ip", "-batch", "-", text="\n".join(lines))

    def ns(self, host: str) -> str:
        """The namespace of a host."""
        return f"{self._name}-{host}"

    def run(self, host: str, *command: str, check: bool = True, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command on a host."""
        full = ["ip", "netns", "exec", self.ns(host), *command]
        done = subprocess.run(full, input=text, text=True, capture_output=True, timeout=60, env=self.environment())
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done

    def start(self, host: str, *command: str, **options: object) -> subprocess.Popen[str]:
        """Start a program on a host; it ends with the lab."""
        full = ["ip", "netns", "exec", self.ns(host), *command]
        process = subprocess.Popen(full, text=True, stdin=subprocess.DEVNULL, **options)  # type: ignore[call-overload]  # passed on
        self.processes.append(process)
        return process  # type: ignore[no-any-return]  # from the line above

    def environment(self, **more: str) -> dict[str, str]:
        path = os.environ["PATH"] + ":/usr/sbin:/sbin"
        # A lock of legacy iptables of its own: each command closes it, which wakes whoever watches rules.
        own = {"KNOCKKNOCK_GATE": str(self.gate), "XTABLES_LOCKFILE": str(self.directory / "xtables.lock")}
        return {"PATH": path, "HOME": str(self.home), **own, **more}

    def guard(self, firewall: str) -> None:
        """Put in place what refuses everything but what is established."""
        if firewall == "protect":
            self.settings["protect"] = "tcp/1-65535, udp/1-65535"
            return
        if firewall == "nftables":
            self.run("server", "nft", "-f", "-", text=NFT_BASE)
            return
        kind = firewall.removeprefix("iptables-")
        for command in (f"iptables-{kind}", f"ip6tables-{kind}"):
            self.run(
                "server", command, "-A", "INPUT", "-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT"
            )
            if command.startswith("ip6"):
                self.run("server", command, "-A", "INPUT", "-p", "ipv6-icmp", "-j", "ACCEPT")
            self.run("server", command, "-P", "INPUT", "DROP")

    def ruleset(self) -> str:
        """All rules on the server, without counts of packets and what knocks can bear, as knocks change that."""
        parts = [self.run("server", "nft", "--stateless", "list", "ruleset").stdout]
        parts += [self.run("server", f"{name}-legacy-save").stdout for name in ("iptables", "ip6tables")]
        lines = [line for part in parts for line in part.splitlines() if not line.startswith(("#", ":"))]
        lines = [line for line in lines if not EXPECTED.match(line)]
        return "\n".join(lines)

    def configure(self, **settings: str) -> str:
        """Write the daemon's configuration; its path."""
        self.settings.update(settings)
        path = self.directory / "etc" / "config"
        path.write_text("[main]\n" + "".join(f"{key} = {value}\n" for key, value in self.settings.items()))
        return str(path)

    def tell_all(self) -> None:
        """Have the kernel tell of every SYN to a knock port, so that the daemon says of each why it opens nothing."""
        self.configure(expected_size="0")

    def program(self, name: str) -> list[str]:
        """A command of ours, as it runs from a checkout."""
        return [sys.executable, str(ROOT / "bin" / name)]

    def mint(
        self, name: str, *options: str, port: int = KNOCK_PORT, hosts: tuple[str, ...] = (), many: bool = False
    ) -> None:
        """Make a profile on the server and take it to the client, under one name for each address of the server.

        many: it opens more doors than a profile's usual share.
        """
        done = self.run(
            "server", *self.program("knockknock-genprofile"), name, str(port), "--config", self.configure(), *options
        )
        assert "Made" in done.stdout
        if many:
            with open(f"{self.settings['profiles']}/{name}/config", "a") as config:
                config.write("doors_per_minute = 60000\n")
        for host in hosts or ("10.77.0.1", "fd77:0::1"):
            self.hand_over(name, host)

    def hand_over(self, name: str, host: str) -> Path:
        """Copy a profile to the client, where it is called as the server is."""
        there = self.home / ".knockknock" / host
        shutil.rmtree(there, ignore_errors=True)
        shutil.copytree(f"{self.settings['profiles']}/{name}", there)
        return there

    def daemon(self, *, ready: bool = True) -> "Daemon":
        """Start the daemon on the server; ready: wait until it says that it listens."""
        assert KERNEL_LOG or self.settings["source"] == "nflog", (
            "all namespaces share the kernel's log: mark this test kernel_log, so that it runs beside no other of them"
        )
        return Daemon(self, ready)

    def knock(
        self, host: str, *options: str, ports: tuple[str, ...] = ("22",), check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Knock from the client."""
        asked = [word for port in ports for word in ("-p", port)]
        return self.run("client", *self.program("knockknock"), *asked, *options, host, check=check)

    def sshd(self) -> list[str]:
        """Start a real sshd on the server; the ssh command that root's login takes, without host and command."""
        keys = self.directory / "ssh"
        keys.mkdir()
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / name)], check=True)
        os.makedirs("/run/sshd", exist_ok=True)
        options = {
            "HostKey": keys / "host",
            "AuthorizedKeysFile": keys / "user.pub",
            "StrictModes": "no",
            "UsePAM": "no",
            "MaxStartups": "100",
            "PidFile": "none",
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        self.start("server", "/usr/sbin/sshd", "-D", "-f", "/dev/null", *words)
        until(lambda: self.run("server", "ss", "-Hltn", "sport = :22").stdout)
        return ["ssh", "-i", str(keys / "user"), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]

    def listen(self, port: int, host: str = "server") -> socket.socket:
        """A service on all addresses of a host; it answers without anybody who accepts."""
        with inside(self.ns(host)):
            listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("::", port))
        listener.listen(4096)
        self._stack.callback(listener.close)
        return listener

    def connects(self, address: str, port: int = 22, host: str = "client", seconds: float = 0.3) -> bool:
        """Return True if a host gets a connection to an address now."""
        with inside(self.ns(host)):
            caller = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        with caller:
            caller.settimeout(seconds)
            try:
                caller.connect((address, port))
            except OSError:
                return False
            return True

    def opens(self, address: str, port: int = 22, host: str = "client", within: float = 2) -> bool:
        """Return True if a connection succeeds before long; a refused SYN leaves nothing behind, so each try is new."""
        end = time.monotonic() + within
        while time.monotonic() < end:
            if self.connects(address, port, host, 0.05):
                return True
        return False

    def on_close(self, undo: Callable[[], object]) -> None:
        """Call something when the lab is taken down."""
        self._stack.callback(undo)

    def stop_all(self) -> None:
        """Kill all that runs."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()

    def close(self) -> None:
        self.stop_all()
        self._stack.close()


class Daemon:
    """A daemon that runs on a lab's server."""

    def __init__(self, lab: Lab, ready: bool) -> None:
        self._lab = lab
        self.log_path = lab.directory / f"daemon-{len(lab.processes)}.log"
        notify = str(lab.directory / f"notify-{len(lab.processes)}")
        environment = lab.environment(NOTIFY_SOCKET=notify)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd, self.log_path.open("w") as log:
            systemd.bind(notify)
            os.chmod(notify, 0o777)  # as systemd's own is
            systemd.settimeout(10)
            command = [*lab.program("knockknock-daemon"), "--config", lab.configure()]
            self.process = lab.start("server", *command, stdout=log, stderr=log, env=environment)
            if ready:
                try:
                    assert systemd.recv(100) == b"READY=1"
                except TimeoutError:
                    raise AssertionError(f"not ready: {self.log()}") from None

    def log(self) -> str:
        return self.log_path.read_text()

    def says(self, text: str, seconds: float = 5) -> None:
        """Wait for a text in the log."""
        try:
            until(lambda: text in self.log(), seconds)
        except AssertionError:
            raise AssertionError(f"the daemon never said '{text}': {self.log()}") from None

    def says_times(self, text: str, number: int) -> None:
        """Wait until the log has a text that often, and no more: an event is reported after its door has opened."""
        with contextlib.suppress(AssertionError):
            until(lambda: self.log().count(text) >= number)
        assert self.log().count(text) == number, self.log()

    @property
    def helper(self) -> int:
        """The process id of the root helper."""
        return children(self.watch)[0]

    @property
    def watch(self) -> int:
        """The process id of what looks after the rules."""
        return children(self.process.pid)[0]

    def switches(self) -> int:
        """Return the number of context switches of its processes so far."""
        texts = [Path(f"/proc/{pid}/status").read_text() for pid in (self.process.pid, self.watch, self.helper)]
        return sum(int(line.split()[1]) for text in texts for line in text.splitlines() if "ctxt_switches" in line)

    def at_rest(self) -> int:
        """That number, once it has not changed for a second: a moment after the start rules are looked at again."""
        known = -1
        while known != (known := self.switches()):
            time.sleep(1)
        return known

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> int:
        """Stop it as init does, and open what it still refuses then; its exit status."""
        self.process.terminate()
        status = self.process.wait(10)
        if "protect" in self._lab.settings:
            self._lab.run(
                "server", *self._lab.program("knockknock-daemon"), "--config", self._lab.configure(), "--open-gate"
            )
        return status

    def kill_all(self) -> None:
        """SIGKILL to every process of ours at once."""
        self.process.send_signal(signal.SIGSTOP)
        others = [self.watch, *children(self.watch)]  # the helper, and a set-up if there is one
        for pid in others:
            os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait(10)
        for pid in others:
            until(partial(gone, pid))


def gone(pid: int) -> bool:
    """Return True if a process has ended, even if its parent has not waited for it."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def sh(*command: str) -> None:
    """Run a command on this machine itself."""
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)


def children(pid: int) -> list[int]:
    """The processes that a process has started, the oldest first."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def start_watch(lab: Lab, package: Path, config: str) -> socket.socket:
    """Start what the daemon starts, on the server, without a daemon; the unprivileged end of its pair.

    package: the directory that our package is in. What it says first is left to be read.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    words = program("root.watch", config, lab.settings["state"], "0", package=str(package))
    with theirs:
        command = ["ip", "netns", "exec", lab.ns("server"), *words]
        lab.processes.append(subprocess.Popen(command, stdin=theirs.fileno(), text=True, env=lab.environment()))
    lab.on_close(ours.close)
    ours.settimeout(5)
    return ours
