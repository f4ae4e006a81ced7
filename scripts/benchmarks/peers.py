"""The programs that knockknock is compared with: fwknop and knockd, as Debian has them."""

import contextlib
import os
import re
import shutil
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from .lab import ADDRESS, DOOR, ENVIRONMENT, LIBC, SERVER, Lab, family, inside, running, sh

SECONDS = 5
"""That a door stays open."""
_SPA, _SEQUENCE = 62201, (7000, 8000, 9000)
_PIDFD_GETFD = 438  # include/uapi/asm-generic/unistd.h
_PACKET, _PACKET_STATISTICS, _MEMINFO = 263, 6, 55  # linux/socket.h, linux/if_packet.h, asm-generic/socket.h


class Peer:
    """A daemon, and its client."""

    kind, port, rule = "syn", 0, ""
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
    def running(self) -> Iterator[list[int]]:
        """The process ids of a daemon that listens; what it executes meanwhile is ended with it."""
        self.lab.guard("iptables", self.rule)
        with contextlib.ExitStack() as stack:
            with inside(SERVER):
                pid = self._pid = stack.enter_context(running(self.directory / "output", *self.command()))
            time.sleep(1.5)
            if not Path(f"/proc/{pid}/exe").exists():
                raise RuntimeError(f"{self.name} did not start: {(self.directory / 'output').read_text().strip()}")
            self.captured()
            stack.callback(self._end_children, pid)
            yield [pid]

    @staticmethod
    def _end_children(pid: int) -> None:
        """knockd waits for the children in which it sleeps until a door is to be closed."""
        for one in family(pid)[1:]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)

    def losses(self) -> str:
        lost = self.captured()
        return f"{lost} packets" if lost else "none"

    def captured(self) -> int:
        """Packets that the daemon's sockets have lost since the last call, by the kernel's count.

        Its sockets are borrowed (pidfd_getfd(2)), because neither daemon tells.
        """
        lost = 0
        handle = os.pidfd_open(self._pid)
        for name in os.listdir(f"/proc/{self._pid}/fd"):
            if not os.readlink(f"/proc/{self._pid}/fd/{name}").startswith("socket:"):
                continue
            with contextlib.suppress(OSError), socket_of(handle, int(name)) as one:
                if one.family == one.family.AF_PACKET:
                    lost += struct.unpack("II", one.getsockopt(_PACKET, _PACKET_STATISTICS, 12)[:8])[1]
                elif one.type == one.type.SOCK_DGRAM and one.family == one.family.AF_INET:
                    lost += struct.unpack("9I", one.getsockopt(1, _MEMINFO, 36))[8]
        os.close(handle)
        return lost
