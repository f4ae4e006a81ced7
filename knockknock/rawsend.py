"""Hands knocks to `knockknock --send` (sendservice.py), for a client that has no raw socket."""

import contextlib
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from time import monotonic, sleep

from . import client
from .errors import SendError

SOCKET = "/run/knockknock-send.sock"
"""Path of the socket at which systemd listens (config/knockknock-send.socket)."""
TOO_FAST = "more knocks a second were asked for than are sent: wait, and try again"
"""The sender's answer to a packet above the rate, which may be sent once more."""


@contextlib.contextmanager
def borrow(reason: str, timeout: float, *, sudo: bool = True) -> Iterator[Callable[[client.Knock], None]]:
    """Return a function that sends a knock by systemd's socket, or by sudo. Raises SendError if neither can.

    reason: why we may not ourselves. timeout: seconds from now in which all of it ends: a counter is locked meanwhile.
    sudo: whether that may be asked, by who is the command knockknock and may gain rights.
    """
    end = monotonic() + timeout
    with contextlib.ExitStack() as stack:
        near = by_socket(timeout)
        if not near and not sudo:
            raise SendError(reason)
        near = near or stack.enter_context(_by_sudo(reason, end))
        yield _ask(stack.enter_context(near), timeout, end)


def _left(end: float) -> float:
    """Seconds until a monotonic time; some, as with none a socket does not wait, and fails in another way."""
    return max(0.001, end - monotonic())


def by_socket(timeout: float = 5.0) -> socket.socket | None:
    """A connection to the service, None where there is none for us. Raises SendError if its queue stays full."""
    near = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Python's own timeout would not wait for room in the queue (EAGAIN).
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", *divmod(int(timeout * 1e6), 1_000_000)))
    try:
        near.connect(SOCKET)
    except BlockingIOError:
        near.close()
        raise SendError(f"the knock could not be handed over to be sent: too many wait at {SOCKET} already") from None
    except OSError:  # there is none, or it is for others
        near.close()
        return None
    return near


def sudo_may(seconds: float) -> bool:
    """Return whether sudo says in time that it sends knocks without a password."""
    import subprocess  # only here: it takes longer than all of a knock

    quiet = subprocess.DEVNULL
    try:  # not run(), which would wait without end for what it may not kill
        asked = subprocess.Popen(["sudo", "-n", "-l", *_itself()], stdin=quiet, stdout=quiet, stderr=quiet)
        return asked.wait(seconds) == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _itself() -> list[str]:
    return ["-u", "root", "--", os.path.abspath(sys.argv[0]), "--send"]


@contextlib.contextmanager
def _by_sudo(reason: str, end: float) -> Iterator[socket.socket]:
    """Ourselves, as root, by sudo without a password; it has ended afterwards, unless the time has."""
    import subprocess  # only here: it takes longer than all of a knock

    if not sudo_may(_left(end)):
        raise SendError(reason)
    near, far = socket.socketpair()
    with far:
        sudo = subprocess.Popen(["sudo", "-n", *_itself()], stdin=far.fileno(), stdout=far.fileno())
    try:
        yield near
    finally:
        near.close()
        with contextlib.suppress(subprocess.TimeoutExpired):  # it is root's: we could not end it
            sudo.wait(_left(end))


def _ask(near: socket.socket, timeout: float, end: float) -> Callable[[client.Knock], None]:
    def put(knock: client.Knock) -> None:
        try:
            while (answer := _answer(near, knock.packet, end)) == TOO_FAST.encode() + b"\n":
                if _left(end) < 2 / client.RATE:
                    break
                sleep(1 / client.RATE)
        except TimeoutError:
            raise SendError(f"the knock could not be handed over to be sent: no answer within {timeout:g} s") from None
        if not answer.endswith(b"\n"):
            raise SendError(
                "the knock could not be handed over to be sent: `knockknock --send` ended before it answered; what it "
                "said is shown by sudo journalctl -u knockknock-send"
            )
        if answer != b"\n":
            raise SendError(answer.decode("utf-8", "replace").strip())

    return put


def _answer(near: socket.socket, packet: bytes, end: float) -> bytes:
    """The line for a packet, not whole if there is nobody (any more) who writes it. Raises TimeoutError."""
    answer = b""
    try:
        near.settimeout(_left(end))
        with contextlib.suppress(BrokenPipeError):  # it says why
            near.sendall(packet)
        while not answer.endswith(b"\n") and (more := near.recv(1000)):
            answer += more
            near.settimeout(_left(end))
    except TimeoutError:
        raise
    except OSError:  # it has ended with our packet unread
        pass
    return answer
