"""Hands knocks over to `knockknock --send` (sendservice.py), for a client that may have no raw socket."""

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


@contextlib.contextmanager
def borrow(reason: str, timeout: float, *, sudo: bool = True) -> Iterator[Callable[[client.Knock], None]]:
    """What sends a knock by somebody who may: systemd's socket, or sudo. Raises SendError with the reason if nobody is.

    reason: why we may not ourselves. timeout: seconds that each step may take: a counter is locked meanwhile.
    sudo: whether that may be asked, by who is the command knockknock and may gain rights.
    """
    with contextlib.ExitStack() as stack:
        near = _by_socket(timeout)
        if not near and not sudo:
            raise SendError(reason)
        near = near or stack.enter_context(_by_sudo(reason, timeout))
        yield _ask(stack.enter_context(near), timeout)


def _by_socket(timeout: float = 5.0) -> socket.socket | None:
    near = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    near.settimeout(timeout)
    try:
        near.connect(SOCKET)
    except OSError:  # there is none, or it is for others
        near.close()
        return None
    return near


@contextlib.contextmanager
def _by_sudo(reason: str, timeout: float) -> Iterator[socket.socket]:
    """Ourselves, as root, by sudo without a password; it has ended afterwards."""
    import subprocess  # only here: it takes longer than all of a knock

    words = ["sudo", "-n", "-u", "root", "--", os.path.abspath(sys.argv[0]), "--send"]
    quiet = subprocess.DEVNULL
    try:
        allowed = subprocess.run(
            [*words[:2], "-l", *words[2:]], stdin=quiet, stdout=quiet, stderr=quiet, check=False, timeout=timeout
        )
    except (OSError, subprocess.TimeoutExpired):
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
        with contextlib.suppress(subprocess.TimeoutExpired):  # it is root's: we could not end it
            sudo.wait(timeout)


def _ask(near: socket.socket, timeout: float) -> Callable[[client.Knock], None]:
    def put(knock: client.Knock) -> None:
        end = monotonic() + timeout
        near.settimeout(timeout)
        answer = b""
        try:
            with contextlib.suppress(BrokenPipeError):  # it says why
                near.sendall(knock.packet)
            while not answer.endswith(b"\n") and (more := near.recv(1000)):
                answer += more
                near.settimeout(max(0.001, end - monotonic()))
        except TimeoutError:
            raise SendError(f"the knock could not be handed over to be sent: no answer within {timeout:g} s") from None
        except OSError as error:
            raise SendError(f"the knock could not be handed over to be sent: {error.strerror}") from None
        if not answer.endswith(b"\n"):
            raise SendError("the knock could not be handed over to be sent: nobody took it")
        if answer != b"\n":
            raise SendError(answer.decode("utf-8", "replace").strip())

    return put
