"""Sends SYNs for a client that has no raw socket: `knockknock --send`, which sudo or systemd start with more rights.

The client writes whole packets, one after the other. The answer to each is one line: empty, or why it was not sent.
That is all that the other side can ask for: SYNs without data, from an address of this machine.
"""

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterator

from . import client, tcpip
from .errors import SendError

SOCKET = "/run/knockknock-send.sock"
"""Where systemd listens (config/knockknock-send.socket)."""


def serve() -> None:
    """Send what standard input asks for, until it ends. Raises SendError if we may not either."""
    raw = client.open_raw()
    client.become_invoker()
    while packet := _read_packet():
        try:
            source, destination = tcpip.check_syn(packet)
            family = socket.AF_INET if len(source) == 4 else socket.AF_INET6
            _own(family, socket.inet_ntop(family, source))
            where = socket.inet_ntop(family, destination)
            if family not in raw:
                raise SendError("this kernel has no such raw sockets")
            raw[family].sendto(packet, (where, 0))
            answer = ""
        except SendError as error:
            answer = str(error)
        except OSError as error:
            answer = f"the knock could not be sent: {error.strerror}"
        os.write(1, f"{answer}\n".encode())


def _read_packet() -> bytes:
    """The next packet from standard input, as long as its own header says and 120 bytes at most; empty at the end."""
    packet = b""
    while len(packet) < (tcpip.total_length(packet) if len(packet) >= 6 else 6):
        wanted = tcpip.total_length(packet) if len(packet) >= 6 else 6
        more = os.read(0, wanted - len(packet))
        if not more:
            return b""
        packet += more
    return packet


def _own(family: int, address: str) -> None:
    """Raises SendError unless an address is this machine's."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            raise SendError(f"{address} is not an address of this machine") from None


@contextlib.contextmanager
def borrow(reason: str) -> Iterator[Callable[[client.Knock], None]]:
    """What sends a knock by somebody who may: systemd's socket, or sudo. Raises SendError with the reason if nobody is.

    reason: why we may not ourselves.
    """
    with contextlib.ExitStack() as stack:
        yield _ask(stack.enter_context(_by_socket() or stack.enter_context(_by_sudo(reason))))


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


def _ask(near: socket.socket) -> Callable[[client.Knock], None]:
    def put(knock: client.Knock) -> None:
        try:
            near.sendall(knock.packet)
            answer = b""
            while not answer.endswith(b"\n") and (more := near.recv(1000)):
                answer += more
        except OSError as error:
            raise SendError(f"the knock could not be handed over to be sent: {error.strerror}") from None
        if not answer.endswith(b"\n"):
            raise SendError("the knock could not be handed over to be sent: nobody took it")
        if answer != b"\n":
            raise SendError(answer.decode("utf-8", "replace").strip())

    return put
