"""The process that runs hooks: reads a message of fixed size, and starts one of two programs.

server.hooks starts it as a program, with one end of a SOCK_SEQPACKET pair as standard input and the programs as
arguments. At most AT_ONCE run at a time; until one more may, the runner does not read, so that the kernel's buffer is
the queue. Each is killed after SECONDS. An invalid record ends the runner, and so does the end of the pair.
"""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time

from ..errors import GrantError, KnockError
from ..root.record import Order
from . import event_text, privsep, signals
from .hooks import AT_ONCE, RECORD, SECONDS, Happened, unpack

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def environment(happened: Happened) -> dict[str, str]:
    """Return the whole environment of a hook."""
    closed = happened.grant.order is Order.CLOSE
    told: event_text.Facts = {
        "event": "close" if closed else "open",
        "profile": happened.profile,
        **event_text.door(happened.grant),
    }
    if closed:
        told["reason"] = happened.reason
    return {"PATH": PATH} | {f"KNOCKKNOCK_{key.upper()}": str(value) for key, value in told.items()}


class Running:
    """A running program. It has its own process group, which is killed when it ends."""

    def __init__(self, program: str, happened: Happened) -> None:
        """Start the program. Raises OSError."""
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
        """Return True if it has ended; kill it first if its time is over."""
        late = time.monotonic() >= self.end
        # WNOWAIT: as a zombie it keeps its process id from being reused.
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
    """Run programs until the pair closes and the last has ended. Raises GrantError for an invalid record."""
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
    """Run with the arguments: ids of the user and group to become, and the programs, "" for none."""
    for number in signals.ALL:
        signal.signal(number, lambda *_: None)  # only the end of the pair stops it; hooks do not inherit this
    # Blocked by signals.held() until here. Hooks inherit the mask, and no alarm would wake them.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    uid, gid, on_open, on_close = sys.argv[1:]
    with contextlib.suppress(OSError):  # hooks do without the daemon's priority
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    try:
        privsep.drop(int(uid), int(gid), [])
        serve(socket.socket(fileno=0), on_open, on_close)
    except (GrantError, KnockError, OSError) as error:
        sys.exit(f"knockknock: hooks are run no more: {error}")
