"""The process that runs hooks: reads facts of a fixed size, starts one of two programs as the daemon's user.

Started by hooks as a program of its own, with one end of a SOCK_SEQPACKET pair as standard input. It is told at
its start which programs. AT_ONCE of them run at most; until one more may, it does not read, so that the kernel's buffer
is the queue. Each is killed after SECONDS. Anything but sane facts ends it, and so does the end of the pair.
"""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time

from . import facts, privsep
from .errors import GrantError, KnockError
from .grant import Order
from .hooks import AT_ONCE, RECORD, SECONDS, Happened, unpack

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def environment(happened: Happened) -> dict[str, str]:
    """All that a hook finds in its environment."""
    closed = happened.grant.order is Order.CLOSE
    told: facts.Facts = {
        "event": "close" if closed else "open",
        "profile": happened.profile,
        **facts.door(happened.grant),
    }
    if closed:
        told["reason"] = "ended" if happened.ended else "asked"
    return {"PATH": PATH} | {f"KNOCKKNOCK_{key.upper()}": str(value) for key, value in told.items()}


class Running:
    """A program that runs; what stays in its process group, which is its own, ends with it."""

    def __init__(self, program: str, happened: Happened) -> None:
        """Raises OSError."""
        self._program = program
        self._process = subprocess.Popen(
            [program],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            env=environment(happened),
            cwd="/",
            start_new_session=True,
        )
        self.end = time.monotonic() + SECONDS
        self.fd = os.pidfd_open(self._process.pid)

    def over(self) -> bool:
        """Return whether it has ended, or is ended now because its time is over."""
        late = time.monotonic() >= self.end
        # Not waited for yet, so that its number is nobody else's.
        if not late and os.waitid(os.P_PIDFD, self.fd, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        status = self._process.wait()
        os.close(self.fd)
        if status:
            how = f"was killed after {SECONDS} s" if late else f"ended with status {status}"
            print(f"knockknock: hook {self._program} {how}", file=sys.stderr, flush=True)
        return True


def serve(pair: socket.socket, on_open: str, on_close: str) -> None:
    """Run programs until the pair closes and the last has ended. Raises GrantError for anything but sane facts."""
    running: list[Running] = []
    listening = True
    while listening or running:
        ready = select.poll()
        for one in running:
            ready.register(one.fd, select.POLLIN)
        if listening and len(running) < AT_ONCE:
            ready.register(pair, select.POLLIN)
        wait = max(0.0, min(one.end for one in running) - time.monotonic()) * 1000 + 1 if running else None
        found = {fd for fd, _ in ready.poll(wait)}
        running = [one for one in running if not one.over()]
        if pair.fileno() in found:
            record = pair.recv(RECORD.size + 1)
            listening = bool(record)
            if record:
                happened = unpack(record)
                program = on_close if happened.grant.order is Order.CLOSE else on_open
                try:
                    if program:
                        running.append(Running(program, happened))
                except OSError as error:
                    print(f"knockknock: hook {program} cannot be run: {error.strerror}", file=sys.stderr, flush=True)


def main() -> None:
    """The arguments: ids of the user and group to become, and the programs, "" for none."""
    for number in (numbers := (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)):
        signal.signal(number, lambda *_: None)  # the pair alone says when to stop; a hook does not inherit this
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)  # held back until here
    uid, gid, on_open, on_close = sys.argv[1:]
    with contextlib.suppress(OSError):  # the daemon runs before others; hooks need not
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    try:
        privsep.drop(int(uid), int(gid), [])
        serve(socket.socket(fileno=0), on_open, on_close)
    except (GrantError, KnockError, OSError) as error:
        sys.exit(f"knockknock: hooks are run no more: {error}")
