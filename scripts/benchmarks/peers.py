"""The programs that knockknock is compared with: fwknop and knockd, as Debian has them."""

import contextlib
import os
import re
import shutil
import signal
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from .lab import ADDRESS, DOOR, ENVIRONMENT, LIBC, SECONDS, SERVER, Lab, family, inside, running, sh

_SPA, _SEQUENCE = 62201, (7000, 8000, 9000)
_PIDFD_GETFD = 438  # include/uapi/asm-generic/unistd.h
_PACKET, _PACKET_STATISTICS, _MEMINFO = 263, 6, 55  # linux/socket.h, linux/if_packet.h, asm-generic/socket.h


class Peer:
    """A daemon, and its client."""

    kind, port, last, rule = "syn", 0, 0, ""
    """What kind of packet a knock is, and the ports of its first and last one; a rule of the firewall that it needs."""
    floods = True
    drain = 3.0
    """Seconds that it may take over what it has in its buffers when a flood ends."""

    def __init__(self, lab: Lab, name: str) -> None:
        if not shutil.which(self.program(), path=ENVIRONMENT["PATH"]):
            raise RuntimeError(f"there is no {self.program()} on this machine: scripts/prepare bench installs it")
        self.lab, self.name = lab, name
        self.directory = lab.directory / name.replace(" ", "-").replace(",", "")
        (self.directory / "run").mkdir(mode=0o700, parents=True, exist_ok=True)
        self.environment = {**ENVIRONMENT, "HOME": str(self.directory)}
        self._pid = 0

    @contextlib.contextmanager
    def running(self, guard: bool = True) -> Iterator[list[int]]:
        """The process id of a daemon that listens; what it executes is ended with it. guard: with a new firewall."""
        if guard:
            self.lab.guard("iptables", self.rule)
        with contextlib.ExitStack() as stack:
            with inside(SERVER):
                pid = self._pid = stack.enter_context(running(self.directory / "output", *self.command()))
            time.sleep(1.5)
            if not Path(f"/proc/{pid}/exe").exists():
                raise RuntimeError(f"{self.name} did not start: {(self.directory / 'output').read_text().strip()}")
            stack.callback(self._end_children, pid)
            yield [pid]

    @staticmethod
    def _end_children(pid: int) -> None:
        """knockd waits for the children in which it sleeps until a door is to be closed."""
        for one in family(pid)[1:]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)

    def losses(self) -> str:
        """Packets that the daemon's sockets have lost since its start, by the kernel's count.

        The sockets are borrowed (pidfd_getfd(2)), because neither daemon tells.
        """
        lost, handle = 0, os.pidfd_open(self._pid)
        for name in os.listdir(f"/proc/{self._pid}/fd"):
            if not os.readlink(f"/proc/{self._pid}/fd/{name}").startswith("socket:"):
                continue
            with socket.socket(fileno=LIBC.syscall(_PIDFD_GETFD, handle, int(name), 0)) as one:
                if one.family == socket.AF_PACKET:
                    lost += struct.unpack("II", one.getsockopt(_PACKET, _PACKET_STATISTICS, 12)[:8])[1]
                elif one.family == socket.AF_INET:
                    lost += struct.unpack("9I", one.getsockopt(socket.SOL_SOCKET, _MEMINFO, 36))[8]
        os.close(handle)
        return f"{lost} packets" if lost else "none"

    def program(self) -> str:
        raise NotImplementedError

    def command(self) -> list[str]:
        """The daemon's command line; its configuration is written first."""
        raise NotImplementedError

    def client(self, source: str) -> list[str]:
        """The client's command line."""
        raise NotImplementedError


class Fwknop(Peer):
    """fwknop with rijndael and HMAC keys; udp: it listens at its port, instead of capturing packets with libpcap."""

    kind, port, last = "udp", _SPA, _SPA

    def __init__(self, lab: Lab, udp: bool) -> None:
        super().__init__(lab, "fwknop, UDP server" if udp else "fwknop")
        self._udp, self._keys = udp, self.directory / "rc"
        self.rule = f"-A INPUT -p udp --dport {_SPA} -j ACCEPT" if udp else ""
        if not udp:
            self.drain = 8.0  # its ring holds some thousand packets, of which it takes 100 each 100 ms
        if not self._keys.exists():
            order = f"-A tcp/{DOOR} -a 10.77.0.2 -D {ADDRESS} --key-gen --use-hmac --save-rc-stanza -n server --rc-file"
            sh("env", f"HOME={self.directory}", "fwknop", *order.split(), str(self._keys))

    def program(self) -> str:
        return "fwknopd"

    def command(self) -> list[str]:
        keys = re.findall(r"^((?:HMAC_)?KEY_BASE64\s+\S+)", self._keys.read_text(), re.MULTILINE)
        access, settings = self.directory / "access.conf", self.directory / "fwknopd.conf"
        for file in (access, settings):
            file.touch(0o600)
        access.write_text("\n".join(["SOURCE ANY", *keys, f"FW_ACCESS_TIMEOUT {SECONDS}", ""]))
        udp = f"ENABLE_UDP_SERVER Y;\nUDPSERV_PORT {_SPA};\n" if self._udp else ""
        settings.write_text(f"PCAP_INTF s0;\nFWKNOP_RUN_DIR {self.directory}/run;\nACCESS_FILE {access};\n{udp}")
        return ["fwknopd", "-f", "-c", str(settings), "-a", str(access)]

    def client(self, source: str) -> list[str]:
        order = f"-n server --no-save-args -A tcp/{DOOR} -a {source} -D {ADDRESS} --rc-file"
        return ["fwknop", *order.split(), str(self._keys)]


class Knockd(Peer):
    """knockd with a sequence of ports. With one port each SYN there opens a door, so there is nothing to flood."""

    def __init__(self, lab: Lab, ports: int) -> None:
        super().__init__(lab, f"knockd, {ports} port{'s' if ports > 1 else ''}")
        self._ports = _SEQUENCE[:ports]
        self.port, self.last, self.floods = self._ports[0], self._ports[-1], ports > 1

    def program(self) -> str:
        return "knockd"

    def command(self) -> list[str]:
        rule = f"INPUT -s %IP% -p tcp --dport {DOOR} -j ACCEPT"
        settings = self.directory / "knockd.conf"
        settings.write_text(
            f"[options]\nlogfile = {self.directory}/log\n[open]\nsequence = {','.join(map(str, self._ports))}\n"
            f"seq_timeout = 5\ntcpflags = syn\ncmd_timeout = {SECONDS}\n"
            f"start_command = /usr/sbin/iptables -A {rule}\nstop_command = /usr/sbin/iptables -D {rule}\n"
        )
        return ["knockd", "-i", "s0", "-c", str(settings)]

    def client(self, source: str) -> list[str]:
        return ["knock", ADDRESS, *map(str, self._ports)]
