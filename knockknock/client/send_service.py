"""Sends SYNs on behalf of unprivileged clients: `knockknock --send`, started by systemd's socket or by sudo.

A client writes whole packets, one after the other. The answer to each is one line: empty, or the reason why it was not
sent. The service sends only what the client itself would send with a raw socket: the SYN that this machine's kernel
makes for that destination, with other values in the fields that carry a knock. Each user has a rate and a number of
connections, and so have all users together. No client is waited for.
"""

import contextlib
import fcntl
import ipaddress
import os
import selectors
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from ..core import headers
from ..core.headers import Carried
from ..core.packet import tcp_timestamp
from ..errors import SendError
from . import raw_socket, route, syn_template
from .raw_socket import BURST, RATE
from .send_client import TOO_FAST

ALL = 5
"""Users who may use their whole rate at once: the factor for the rate and the burst of all users."""
MOST, MOST_OF_ALL = 48, 128
"""Connections of one user, who may log in to many machines at once, and of all together."""
UNFINISHED, IDLE = 2.0, 30.0
"""Seconds for the rest of a packet; without a packet, and for the service without a connection."""
FIRST_FD = 3
"""sd_listen_fds(3)"""

Take = Callable[[], None]
"""Counts one packet of a user. Raises SendError if it is above the rate."""


def later(full: float, rate: int = RATE) -> float:
    """Return the time until which packets are paid for at a rate, with one more. Raises SendError if that is too late.

    full: the time before this packet, by the monotonic clock, which all processes share. rate: packets a second.
    """
    now = time.monotonic()
    full = max(full, now) + 1 / rate
    if full - now > BURST / RATE + 0.001:
        raise SendError(TOO_FAST)
    return full


def both(own: float, every: float) -> tuple[float, float]:
    """Return the times of later() for a user and for all users. Raises SendError, and then neither is charged."""
    return later(own), later(every, ALL * RATE)


def shared_pace() -> Take:
    """Return a function that counts a packet in all processes that sudo starts for a user. Raises SendError."""
    if os.geteuid():
        raise SendError("--send is for sudo and for systemd's knockknock-send.socket (the unit without an @)")
    files = [_pace_file(os.environ.get("SUDO_UID") or "0"), _pace_file("all")]

    def take() -> None:
        for file in files:
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            stored = [os.pread(file, 8, 0) for file in files]
            own, every = (struct.unpack("d", one)[0] if len(one) == 8 else 0.0 for one in stored)
            for file, full in zip(files, both(own, every), strict=True):
                os.pwrite(file, struct.pack("d", full), 0)
        finally:
            for file in files:
                fcntl.flock(file, fcntl.LOCK_UN)

    return take


def _pace_file(whose: str) -> int:
    path = f"/run/knockknock-send.{whose}"
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SendError(f"{path}, which holds the rate, cannot be opened: {error.strerror}") from None


class Sender:
    """Raw sockets by address family."""

    def __init__(self) -> None:
        self._raw = raw_socket.open_raw()

    def answer(self, packet: bytes, take: Take) -> bytes:
        """Send a packet if it may be sent, and return the line for the client."""
        try:
            take()
            family, own, where = check(packet)
            if family not in self._raw:
                raise SendError("this kernel has no such raw sockets")
            self._raw[family].bind((own, 0))  # so that it is routed by its source
            self._raw[family].sendto(packet, (where, 0))
        except SendError as error:
            return f"{error}\n".encode()
        except OSError as error:
            return f"the knock could not be sent: {error.strerror}\n".encode()
        return b"\n"


def check(packet: bytes) -> tuple[int, str, str]:
    """Return family, source and destination of a SYN that the client itself could send, else raise SendError."""
    source, destination = headers.check_syn(packet)
    family, start = (socket.AF_INET, 20) if len(source) == 4 else (socket.AF_INET6, 40)
    sport, port, sequence, acknowledgment = struct.unpack_from("!HHII", packet, start)
    (window,) = struct.unpack_from("!H", packet, start + 14)
    own, where = socket.inet_ntop(family, source), socket.inet_ntop(family, destination)
    if not own_address(family, own):
        raise SendError(f"{own} is not an address of this machine")
    if ipaddress.ip_address(where).is_loopback or not port or sport < 1024:
        raise SendError("a knock goes from a port above 1023 to another machine's port, which is not 0")
    like = syn_template.unsent(family, where, port, own)
    kernels = syn_template.kernel_syn(family, like.mtu - start - 20)
    stamp = tcp_timestamp(packet[start + 20 :])
    word = int.from_bytes(packet[4:6] if start == 20 else packet[1:4], "big") & 0xFFFFF
    fields = Carried(word & 0xFFFF, sequence, acknowledgment, window, stamp)
    made = headers.like(kernels, sport, like.hops, stamp or 0)
    if headers.knock(made, source, destination, port, fields, word >> 16) != packet:
        raise SendError("this is no SYN as this machine's kernel makes them")
    return family, own, where


def own_address(family: int, address: str) -> bool:
    """Return True if an address is this machine's and not a loopback one: only then a connection can come from it.

    bind() does not tell: with net.ipv4.ip_nonlocal_bind it takes any address.
    """
    one = ipaddress.ip_address(address)
    if one.is_loopback or (one.version == 6 and one.ipv4_mapped):
        return False
    with contextlib.suppress(SendError):
        return route.find(family, address, 9, "")[0] == address
    return False


def take_packet(data: bytearray) -> bytes:
    """Remove and return the first packet in a client's data; empty if it is not whole. Raises SendError for junk."""
    if len(data) < 6 or len(data) < (length := headers.total_length(bytes(data[:6]))):
        return b""
    packet = bytes(data[:length])
    del data[:length]
    return packet


def serve() -> None:
    """Send what clients ask for: those of systemd's socket, or the one at standard input. Raises SendError."""
    sender = Sender()
    if os.environ.get("LISTEN_PID") == str(os.getpid()):
        with socket.socket(fileno=FIRST_FD) as listener:
            Service(sender, listener).run()
        return
    take, data = shared_pace(), bytearray()
    raw_socket.become_invoker()
    while more := os.read(0, 4096):
        data += more
        while packet := take_packet(data):
            os.write(1, sender.answer(packet, take))


class Client(NamedTuple):
    """A connection."""

    near: socket.socket
    user: int
    data: bytearray
    """Bytes that are no whole packet yet."""


class Service:
    """Serves all clients of a listening socket side by side."""

    def __init__(self, sender: Sender, listener: socket.socket) -> None:
        self._sender, self._listener = sender, listener
        self._paces: dict[int, float] = {}
        """Times that later() gave for each user."""
        self._every = 0.0
        """The same for all together."""
        self._clients: dict[int, tuple[Client, float]] = {}
        """By descriptor, each with the time at which it is dropped."""
        self._ready = selectors.DefaultSelector()
        listener.setblocking(False)
        self._ready.register(listener, selectors.EVENT_READ)

    def run(self) -> None:
        """Serve until no client has been there for IDLE seconds."""
        end = time.monotonic() + IDLE
        while self._clients or time.monotonic() < end:
            ends = [end] if not self._clients else [until for _, until in self._clients.values()]
            for key, _ in self._ready.select(max(0.0, min(ends) - time.monotonic())):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fd in self._clients:  # it has no room now
                    self._read(self._clients[key.fd][0])
                end = time.monotonic() + IDLE
            for one, until in tuple(self._clients.values()):
                if until <= time.monotonic():
                    self._close(one)

    def _accept(self) -> None:
        try:
            near, _ = self._listener.accept()
        except OSError:
            time.sleep(0.01)  # perhaps out of descriptors, until a connection ends
            return
        near.setblocking(False)
        _, user, _ = struct.unpack("3i", near.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        number = Counter(one.user for one, _ in self._clients.values())
        if number[user] >= MOST:
            self._say(near, f"{MOST} connections of yours are open already\n".encode())
            near.close()
            return
        if len(self._clients) >= MOST_OF_ALL:  # the user with the most connections loses the one that would end first
            least, _ = min(self._clients.values(), key=lambda each: (-number[each[0].user], each[1]))
            self._say(least.near, f"{MOST_OF_ALL} connections are open already: wait, and try again\n".encode())
            self._close(least)
        self._clients[near.fileno()] = Client(near, user, bytearray()), time.monotonic() + IDLE
        self._ready.register(near, selectors.EVENT_READ)

    def _read(self, one: Client) -> None:
        def take() -> None:
            self._paces[one.user], self._every = both(self._paces.get(one.user, 0), self._every)

        try:
            more, begun = one.near.recv(4096), bool(one.data)
            one.data.extend(more)
            while packet := take_packet(one.data):
                begun = False
                if not self._say(one.near, self._sender.answer(packet, take)):
                    more = b""
        except SendError as error:  # where the next packet would begin is unknown
            self._say(one.near, f"{error}\n".encode())
            more = b""
        except OSError:
            more = b""
        if not more:
            self._close(one)
        elif not begun:  # a slow sender gets no more time
            self._clients[one.near.fileno()] = one, time.monotonic() + (UNFINISHED if one.data else IDLE)

    @staticmethod
    def _say(near: socket.socket, line: bytes) -> bool:
        """Send a line, and return True if the client takes it at once; a slow client is not waited for."""
        try:
            return near.send(line) == len(line)
        except OSError:
            return False

    def _close(self, one: Client) -> None:
        self._ready.unregister(one.near)
        del self._clients[one.near.fileno()]
        one.near.close()
