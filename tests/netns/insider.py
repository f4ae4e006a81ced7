"""The daemon, with a stranger's code in it: run instead of bin/knockknock-daemon, with two words of its own first.

usage: SCENARIO FACTS [arguments of knockknock-daemon]

FACTS is a JSON file of what a scenario needs to know; `report` in it is where each attempt's result is written: "done",
or the name of what it met. The code runs where the first packet would be parsed, right after the daemon has said that
it listens. What it needs is imported before, because a real intruder brings his own.
"""

import ctypes
import errno
import fcntl
import json
import mmap
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pyseccomp

from knockknock.cli import daemon as command
from knockknock.errors import KnockError
from knockknock.root import record
from knockknock.root.record import Grant, Order
from knockknock.server import daemon, syslog

LIBC = ctypes.CDLL(None, use_errno=True)
PTRACE_SEIZE, F_SETSIG = 0x4206, 10
Attempt = Callable[[], object]


def call(name: str, *arguments: Any) -> Attempt:
    """A system call by its name, whether the C library has a function for it or not."""
    number = pyseccomp.resolve_syscall(pyseccomp.system_arch(), name)

    def attempt() -> None:
        if LIBC.syscall(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)) < 0:
            raise OSError(ctypes.get_errno(), name)

    return attempt


def write(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT))


def attempts(facts: dict[str, Any], taken: daemon.Daemon) -> dict[str, Attempt]:
    """Attempts that an intruder would make, by the names that the test knows them by."""
    victim, out = facts["victim"], facts["elsewhere"]
    iovec = (ctypes.c_uint64 * 2)(id(facts), 8)
    return {
        "job: read the configuration": lambda: Path(facts["config"]).read_bytes(),
        "job: read a key": lambda: Path(facts["key"]).read_bytes(),
        "job: write a counter": lambda: write(f"{facts['state']}/mine"),
        "job: replace a counter": lambda: os.rename(f"{facts['state']}/mine", f"{facts['state']}/other"),
        "job: remove a file of its own": lambda: os.unlink(f"{facts['state']}/other"),
        "root: setuid": lambda: os.setuid(0),
        "root: setresuid": lambda: os.setresuid(0, 0, 0),
        "root: setgroups": lambda: os.setgroups([0]),
        "root: capset": call("capset", b"\x22\x05\x08\x20\0\0\0\0", bytes([255] * 24)),
        "execute: start": lambda: os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0),
        "execute: become": lambda: os.execv("/nonexistent", ["true"]),
        "execute: from memory": call("memfd_create", b"x", 0),
        "execute: new code": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC),
        "execute: fork": fork,
        "socket: inet": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM).detach(),
        "socket: inet6 datagram": lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).detach(),
        "socket: unix": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).detach(),
        "socket: netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).detach(),
        "socket: pair": lambda: [end.detach() for end in socket.socketpair()],
        "socket: io_uring": call("io_uring_setup", 1, bytes(120)),
        "socket: listen on one that is there": lambda: socket.socket(fileno=os.dup(taken._helper.fileno())).listen(),
        "socket: listen on the control socket anew": lambda: cast(socket.socket, taken._dispatcher._listener).listen(),
        "socket: accept at one that is there": call("accept4", taken._helper.fileno(), 0, 0, 0),
        "socket: connect one that is there": lambda: connect_anew(taken._helper.fileno()),
        "socket: pass a descriptor": call("sendmsg", taken._helper.fileno(), 0, 0),
        "read: a file of anybody's": lambda: Path(f"{out}/readable").read_bytes(),
        "read: list a directory": lambda: os.listdir(out),
        "read: the list of users": lambda: Path("/etc/passwd").read_bytes(),
        "read: its own memory map": lambda: Path("/proc/self/maps").read_bytes(),
        "read: a handle": call("open_by_handle_at", 0, bytes(16), 0),
        "write: where anybody may": lambda: write(f"{out}/new"),
        "write: over a file": lambda: write(f"{out}/writable"),
        "write: truncate": lambda: os.truncate(f"{out}/writable", 0),
        "write: remove": lambda: os.unlink(f"{out}/removable"),
        "write: link": lambda: os.symlink("/", f"{facts['state']}/link"),
        "write: make a directory": lambda: os.mkdir(f"{facts['state']}/directory"),
        "write: its own mode": lambda: os.chmod(f"{facts['state']}/laptop", 0o666),
        "write: the configuration": lambda: os.close(os.open(facts["config"], os.O_WRONLY)),
        "others: signal": lambda: os.kill(victim, 0),
        "others: signal the helper's parent group": lambda: os.killpg(0, 0),
        "others: signal through a descriptor": lambda: signal.pidfd_send_signal(os.pidfd_open(victim), 0),
        "others: signal by asynchronous input": lambda: own_signal(taken._source.fileno(), victim),
        "others: trace": call("ptrace", PTRACE_SEIZE, victim, 0, 0),
        "others: read memory": call("process_vm_readv", victim, iovec, 1, iovec, 1, 0),
        "others: look at memory": lambda: os.close(os.open(f"/proc/{victim}/mem", os.O_RDONLY)),
        "others: limits": lambda: resource.prlimit(victim, resource.RLIMIT_CORE, (0, 0)),
        "itself: be dumped": call("prctl", 4, 1, 0, 0, 0),
        "itself: swap": call("munlockall"),
        # Those that would change what the others meet come last.
        "write: move out of the state": lambda: os.rename(f"{facts['state']}/laptop", f"{out}/laptop"),
        "root: namespace of its own": call("unshare", 0x10000000),
    }


def fork() -> None:
    if child := os.fork():
        os.waitpid(child, 0)
    else:
        os._exit(0)


def connect_anew(fd: int) -> None:
    address = socket.AF_UNIX.to_bytes(2, sys.byteorder) + b"/run/nosuch"
    if LIBC.connect(fd, address, len(address)):
        raise OSError(ctypes.get_errno(), "connect")


def own_signal(fd: int, victim: int) -> None:
    """Have the kernel send a signal when a descriptor becomes readable."""
    fcntl.fcntl(fd, fcntl.F_SETOWN, victim)
    fcntl.fcntl(fd, F_SETSIG, 0)


def try_all(facts: dict[str, Any], taken: daemon.Daemon) -> Callable[[], dict[str, str]]:
    """Everything that one could try and go on."""
    prepared = attempts(facts, taken)

    def run() -> dict[str, str]:
        results = {}
        for name, attempt in prepared.items():
            try:
                attempt()
                results[name] = "done"
            except OSError as error:
                results[name] = errno.errorcode[error.errno or 0]
        return results

    return run


def open_doors(facts: dict[str, Any], taken: daemon.Daemon) -> Callable[[], dict[str, str]]:
    """As many doors as the helper gives, with reloads in between; then one order beyond the policy, if there is one."""

    def ask(order: Grant) -> str:
        try:
            taken._helper.obey(order)
        except KnockError as error:
            return str(error)
        return "done"

    def run() -> dict[str, str]:
        results = {}
        for number in range(facts["doors"]):
            address = bytes([192, 0, 2, number + 1])
            results[f"{number}"] = ask(Grant(Order.OPEN, address, 6, 22, facts["seconds"]))
            results[f"reload {number}"] = ask(record.RELOAD)
        if "beyond" in facts:
            results["beyond"] = ask(Grant(Order.OPEN, b"\xc0\0\2\x63", *facts["beyond"]))
        return results

    return run


def take_over(scenario: str, facts: dict[str, Any]) -> None:
    """Put the stranger's code behind the daemon's last step before its loop."""
    report = os.open(facts["report"], os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    run = daemon.Daemon.run

    def instead(self: daemon.Daemon, ready: Callable[[], None]) -> None:
        hostile = {"try": try_all, "doors": open_doors}[scenario](facts, self)

        def listening() -> None:
            ready()
            os.write(report, json.dumps(hostile()).encode() + b"\n")

        run(self, listening)

    daemon.Daemon.run = instead  # type: ignore[method-assign]  # that is the point


def main() -> None:
    """Start the daemon."""
    scenario, facts = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    sys.argv[1:3] = []
    for name in facts.get("hide", ()):
        sys.modules[name] = None  # type: ignore[assignment]  # import then says that there is none
    if "syslog" in facts:
        syslog.Handler.__init__.__defaults__ = (facts["syslog"],)  # there is one /dev/log for the whole machine
    if scenario != "nothing":
        take_over(scenario, facts)
    command.main()
