"""Hands knocks to `knockknock --send` (send_service.py), for a client without a raw socket."""

import contextlib
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from time import monotonic, sleep

from ..errors import SendError
from . import raw_socket

SOCKET = "/run/knockknock-send.sock"
"""Path of the socket at which systemd listens (config/knockknock-send.socket)."""
TOO_FAST = "more knocks a second were asked for than are sent: wait, and try again"
"""The sender's answer to a packet above the rate, which may be sent once more."""


@contextlib.contextmanager
def borrow(reason: str, timeout: float, *, sudo: bool = True) -> Iterator[Callable[[raw_socket.Knock], None]]:
    """Return a function that sends a knock by systemd's socket, or by sudo. Raises SendError if neither can.

    reason: why this process may not send. timeout: seconds until all of it ends, because a counter is locked meanwhile.
    sudo: True if sudo may be used, as by the command knockknock, which may gain rights.
    """
    end = monotonic() + timeout
    with contextlib.ExitStack() as stack:
        near = by_socket(timeout)
        if not near and not sudo:
            raise SendError(reason)
        near = near or stack.enter_context(_by_sudo(reason, end))
        yield _ask(stack.enter_context(near), timeout, end)


def _left(end: float) -> float:
    """Return the seconds until a monotonic time, at least a millisecond: with 0 a socket would not wait at all."""
    return max(0.001, end - monotonic())


def by_socket(timeout: float = 5.0) -> socket.socket | None:
    """Return a connection to the service, None if there is none for us. Raises SendError if its queue stays full."""
    near = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Python's own timeout would not wait for room in the queue (EAGAIN).
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", *divmod(int(timeout * 1e6), 1_000_000)))
    try:
        near.connect(SOCKET)
    except BlockingIOError:
        near.close()
        raise SendError(f"the knock could not be handed over to be sent: too many wait at {SOCKET} already") from None
    except OSError:  # there is no service, or it is for others
        near.close()
        return None
    return near


def sudo_may(seconds: float) -> bool:
    """Return True if sudo says in time that it sends knocks without a password."""
    import subprocess  # imported here, because it takes longer than a whole knock

    quiet = subprocess.DEVNULL
    try:  # run() would wait for ever for a process that it may not kill
        asked = subprocess.Popen(["sudo", "-n", "-l", *_itself()], stdin=quiet, stdout=quiet, stderr=quiet)
        return asked.wait(seconds) == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _itself() -> list[str]:
    return ["-u", "root", "--", os.path.abspath(sys.argv[0]), "--send"]


@contextlib.contextmanager
def _by_sudo(reason: str, end: float) -> Iterator[socket.socket]:
    """Run this program as root by sudo without a password; it has ended afterwards, unless the time is over."""
    import subprocess  # imported here, because it takes longer than a whole knock

    if not sudo_may(_left(end)):
        raise SendError(reason)
    near, far = socket.socketpair()
    with far:
        sudo = subprocess.Popen(["sudo", "-n", *_itself()], stdin=far.fileno(), stdout=far.fileno())
    try:
        yield near
    finally:
        near.close()
        with contextlib.suppress(subprocess.TimeoutExpired):  # it is root's, so it cannot be killed from here
            sudo.wait(_left(end))


def _ask(near: socket.socket, timeout: float, end: float) -> Callable[[raw_socket.Knock], None]:
    def put(knock: raw_socket.Knock) -> None:
        try:
            while (answer := _answer(near, knock.packet, end)) == TOO_FAST.encode() + b"\n":
                if _left(end) < 2 / raw_socket.RATE:
                    break
                sleep(1 / raw_socket.RATE)
        except TimeoutError:
            raise SendError(
                f"the knock could not be handed over to be sent: no answer within {round(timeout, 2):g} s"
            ) from None
        if not answer.endswith(b"\n"):
            raise SendError(
                "the knock could not be handed over to be sent: `knockknock --send` ended before it answered; what it "
                "said is shown by sudo journalctl -u knockknock-send"
            )
        if answer != b"\n":
            raise SendError(answer.decode("utf-8", "replace").strip())

    return put


def _answer(near: socket.socket, packet: bytes, end: float) -> bytes:
    """Return the line for a packet, incomplete if the service has ended. Raises TimeoutError."""
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
    except OSError:  # the service has ended with the packet unread
        pass
    return answer
