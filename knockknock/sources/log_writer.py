"""Tells whether any program still writes to a log file."""

import fcntl
import os
import signal


def stale(path: str) -> bool:
    """Return True if a file was not written to since the boot, when the kernel logs much."""
    try:
        with open("/proc/stat") as file:
            boot = next((int(line.split()[1]) for line in file if line.startswith("btime ")), 0)
        return os.stat(path).st_mtime < boot
    except OSError:
        return False


def gone(path: str) -> bool:
    """Return True if there is a file that no program, in any container, has open for writing.

    Only then the kernel grants its owner, or root, a read lease (fcntl(2), F_SETLEASE); it is released at once. On a
    file system without leases, such as a network file system, the file counts as written to.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return False
    root, owner = os.geteuid() == 0, os.fstat(fd).st_uid
    try:
        if root:
            os.seteuid(owner)
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)  # an open() by others would send SIGIO, which kills
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        return True
    except OSError:
        return False
    finally:
        os.close(fd)  # and the lease with it
        if root:
            os.seteuid(0)
