"""A stranger's code in the resident helper: appended to root/helper.py of a copy of the package.

It runs where the first record would be read, after the helper has locked itself in, and answers with what it has met:
for each attempt "done" or the name of the error, and which modules there are. What it needs is imported before, because
a real intruder brings his own.
"""

import ctypes
import errno
import json
import mmap
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

import pyseccomp

LIBC = ctypes.CDLL(None, use_errno=True)
PTRACE_SEIZE, NEW_USER = 0x4206, 0x10000000


def call(name: str, *arguments: Any) -> Callable[[], None]:
    """A system call by its name."""
    number = pyseccomp.resolve_syscall(pyseccomp.system_arch(), name)

    def attempt() -> None:
        if LIBC.syscall(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)) < 0:
            raise OSError(ctypes.get_errno(), name)

    return attempt


def fork() -> None:
    if child := os.fork():
        os.waitpid(child, 0)
    else:
        os._exit(0)


def make_directory() -> None:
    os.mkdir("/tmp/knockknock-hostile-directory")
    os.rmdir("/tmp/knockknock-hostile-directory")


def attempts(daemon: socket.socket, kernel: Any, change: Any) -> dict[str, Callable[[], object]]:
    """Return the attempts of an intruder, by their names in the test."""
    root = os.getppid()
    own_code = next(path for path in sys.path if path.startswith("/"))
    words = (ctypes.c_char_p * 2)(b"/bin/nosuch", None)
    iovec = (ctypes.c_uint64 * 2)(id(words), 8)
    return {
        "job: the firewall": lambda: kernel.change(change),
        "file: read anybody's": lambda: os.open("/etc/passwd", os.O_RDONLY),
        "file: read its own code": lambda: os.listdir(own_code),
        "file: read its own memory map": lambda: os.open("/proc/self/maps", os.O_RDONLY),
        "file: write": lambda: os.open("/tmp/knockknock-hostile", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600),
        "file: make a directory": make_directory,
        "file: remove": lambda: os.unlink("/tmp/knockknock-hostile"),
        "file: without a name": lambda: os.memfd_create("code"),
        "file: by a handle": call("open_by_handle_at", 0, bytes(16), 0),
        "execute": call("execve", b"/bin/nosuch", words, None),
        "execute: a process": fork,
        "execute: code in memory": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC).close(),
        "execute: a program of the kernel's": call("bpf", 0, 0, 0),
        "socket: to the network": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        "socket: raw": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW),
        "socket: to the routes": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE),
        "socket: to others here": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM),
        "socket: a pair": lambda: socket.socketpair(),
        "socket: to the kernel, anew": call("connect", 3, bytes(12), 12),
        "socket: receive a descriptor": call("recvmsg", daemon.fileno(), 0, 0),
        "socket: pass a descriptor": call("sendmsg", daemon.fileno(), 0, 0),
        "socket: accept": call("accept4", daemon.fileno(), 0, 0, 0),
        "others: signal": lambda: os.kill(root, 0),
        "others: signal through a descriptor": lambda: signal.pidfd_send_signal(os.pidfd_open(root), 0),
        "others: trace": call("ptrace", PTRACE_SEIZE, root, 0, 0),
        "others: read memory": call("process_vm_readv", root, iovec, 1, iovec, 1, 0),
        "others: take a descriptor": call("pidfd_getfd", 0, 0, 0),
        "root: setuid": lambda: os.setuid(0),
        "root: namespace of its own": call("unshare", NEW_USER),
        "root: mount": call("mount", b"none", b"/tmp", b"tmpfs", 0, 0),
        "root: a module": call("init_module", 0, 0, b""),
        "root: interfaces": call("ioctl", daemon.fileno(), 0x8914, bytes(40)),
        "root: io_uring": call("io_uring_setup", 1, bytes(120)),
    }


def report(daemon: socket.socket, kernel: Any, change: Any) -> bytes:
    """Try everything; the result as JSON: of each attempt, and what was loaded."""
    results = {}
    for name, attempt in attempts(daemon, kernel, change).items():
        try:
            attempt()
            results[name] = "done"
        except OSError as error:
            results[name] = errno.errorcode.get(error.errno or 0, str(error))
    return json.dumps({"results": results, "modules": LOADED}).encode()


LOADED: list[str] = []
"""The modules that the helper had before this."""
APPENDED = """

def serve(daemon, root, kernel):
    key = bytes([192, 0, 2, 66, 6, 0, 0, 0, 0, 22, 0, 0])
    daemon.send(hostile.report(daemon, kernel, add("any4", key, seconds=60)))
    daemon.recv(1)


_loaded = sorted(sys.modules)
sys.path += {places!r}
from knockknock import hostile

hostile.LOADED += _loaded
"""
