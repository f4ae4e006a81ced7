"""Has knocks sent by somebody who may have a raw socket: systemd's socket, or sudo (sendservice.py)."""

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterator
from time import monotonic

from . import client
from .errors import SendError

SOCKET = "/run/knockknock-send.sock"
"""Where systemd listens (config/knockknock-send.socket)."""
SHORTEST = 0.2
"""Seconds that an answer is waited for at least."""


@contextlib.contextmanager
def borrow(reason: str, seconds: float) -> Iterator[Callable[[client.Knock], None]]:
    """What sends a knock by somebody who may: systemd's socket, or sudo. Raises SendError with the reason if nobody is.

    reason: why we may not ourselves. seconds: in which all answers must have come, counted from now.
    """
    end = monotonic() + seconds
    with contextlib.ExitStack() as stack:
        yield _ask(stack.enter_context(_by_socket() or stack.enter_context(_by_sudo(reason))), end)


def _by_socket() -> socket.socket | None:
    near = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        near.connect(SOCKET)
    except OSError:  # there is none, or it is for others
        near.close()
        return None
    return near


@contextlib.contextmanager
def _by_sudo(reason: str) -> Iterator[socket.socket]:
    """Ourselves, as root, by sudo without a password; it has ended afterwards."""
    import subprocess  # only here: it takes longer than all of a knock

    words = ["sudo", "-n", "-u", "root", "--", os.path.abspath(sys.argv[0]), "--send"]
    quiet = subprocess.DEVNULL
    try:
        allowed = subprocess.run([*words[:2], "-l", *words[2:]], stdin=quiet, stdout=quiet, stderr=quiet, check=False)
    except OSError:
        raise SendError(reason) from None
    if allowed.returncode:
        raise SendError(reason)
    near, far = socket.socketpair()
    with far:
        sudo = subprocess.Popen(words, stdin=far.fileno(), stdout=far.fileno())
    try:
        yield near
    finally:
        near.close()
        sudo.wait()


def _ask(near: socket.socket, end: float) -> Callable[[client.Knock], None]:
    def put(knock: client.Knock) -> None:
        try:
            near.settimeout(max(SHORTEST, end - monotonic()))
            near.sendall(knock.packet)
            answer = b""
            while not answer.endswith(b"\n") and (more := near.recv(1000)):
                answer += more
                near.settimeout(max(SHORTEST, end - monotonic()))
        except TimeoutError:
            raise SendError("the knock could not be handed over to be sent: no answer came in time") from None
        except OSError as error:
            raise SendError(f"the knock could not be handed over to be sent: {error.strerror}") from None
        if not answer.endswith(b"\n"):
            raise SendError("the knock could not be handed over to be sent: nobody took it")
        if answer != b"\n":
            raise SendError(answer.decode("utf-8", "replace").strip())

    return put
