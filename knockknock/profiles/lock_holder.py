"""Finds the process that holds a lock (flock) on a file, by /proc/locks."""

import contextlib
import os


def holder(fd: int) -> int:
    """Return the id of the process that holds the lock (flock) on an open file; 0 if /proc does not tell one."""
    try:
        status = os.fstat(fd)
        with open("/proc/locks") as file:
            locks = [line.split() for line in file]
    except OSError:
        return 0
    # 1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF; the device is not always that of fstat (btrfs, overlayfs).
    found = {words[4] for words in locks if words[1] == "FLOCK" and words[5].endswith(f":{status.st_ino}")}
    holders = [int(pid) for pid in found if int(pid) > 0 and _has_open(pid, status)]
    return holders[0] if len(holders) == 1 else 0


def _has_open(pid: str, status: os.stat_result) -> bool:
    """Return True if a process has a file open; a file on another disk may have the same inode number."""
    with contextlib.suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(f"/proc/{pid}/fd/{fd}"), status):
                    return True
    return False
