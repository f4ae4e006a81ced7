"""Sends SYNs on behalf of clients that have no raw socket: `knockknock --send`, started by systemd's socket or by sudo.

A client writes whole packets, one after the other. The answer to each is one line: empty, or why it was not sent. What
is sent is what the client itself would send with a raw socket, and nothing else: the SYN that this machine's kernel
makes for that destination, but for the fields that carry a knock. The clients of one user have a rate and a number
together, and none of them is waited for.
"""

import ipaddress
import os
import re
import selectors
import socket
import struct
import time
from typing import NamedTuple

from . import client, tcpip, tcpoptions, template
from .errors import SendError
from .schemes import Carried

RATE, BURST = 20.0, 40.0
"""SYNs a second, and at once, of one user."""
BURST_OF_ONE = 8.0
"""At once, by sudo, which starts a process for each client."""
MOST = 8
"""Connections of one user."""
UNFINISHED, IDLE, REST = 2.0, 60.0, 300.0
"""Seconds for the rest of a packet, for a connection that says nothing, and for the service without a connection."""
FIRST_FD = 3
"""sd_listen_fds(3)"""


class Bucket:
    """A rate: so many at once, and so many a second from then on."""

    def __init__(self, burst: float) -> None:
        self._burst = self._tokens = burst
        self._at = time.monotonic()

    def take(self) -> bool:
        """Whether one more is within the rate; it is counted then."""
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * RATE)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Sender:
    """Raw sockets, and what this kernel's SYNs look like, by family and segment size."""

    def __init__(self) -> None:
        self._raw = client.open_raw()
        self._kernels: dict[tuple[int, int], bytes] = {}

    def answer(self, packet: bytes, bucket: Bucket) -> bytes:
        """Send a packet if it is one that may be sent; the line for the client."""
        try:
            family, where = self._check(packet)
            if family not in self._raw:
                raise SendError("this kernel has no such raw sockets")
            if not bucket.take():
                raise SendError(f"more than {RATE:.0f} knocks a second were asked for")
            self._raw[family].sendto(packet, (where, 0))
        except SendError as error:
            return f"{error}\n".encode()
        except OSError as error:
            return f"the knock could not be sent: {error.strerror}\n".encode()
        return b"\n"

    def _check(self, packet: bytes) -> tuple[int, str]:
        """The family and the destination of a SYN that the client itself could send. Raises SendError for any other."""
        source, destination = tcpip.check_syn(packet)
        family, start = (socket.AF_INET, 20) if len(source) == 4 else (socket.AF_INET6, 40)
        sport, port, sequence, acknowledgment = struct.unpack_from("!HHII", packet, start)
        (window,) = struct.unpack_from("!H", packet, start + 14)
        own, where = socket.inet_ntop(family, source), socket.inet_ntop(family, destination)
        if source not in own_addresses(family):
            raise SendError(f"{own} is not an address of this machine")
        if ipaddress.ip_address(where).is_loopback or not port or sport < 1024:
            raise SendError("a knock goes from a port above 1023 to another machine's port, which is not 0")
        like = template.unsent(family, where, port, own)
        segment = like.mtu - start - 20
        if (family, segment) not in self._kernels:
            self._kernels[family, segment] = template.kernel_syn(family, segment)
        stamp = tcpoptions.timestamp(packet[start + 20 :])
        word = int.from_bytes(packet[4:6] if start == 20 else packet[1:4], "big") & 0xFFFFF
        fields = Carried(word & 0xFFFF, sequence, acknowledgment, window, stamp)
        made = tcpip.like(self._kernels[family, segment], sport, like.hops, stamp or 0)
        if tcpip.knock(made, source, destination, port, fields, word >> 16) != packet:
            self._kernels.clear()  # it may have been made by other settings
            raise SendError("this is no SYN as this machine's kernel makes them")
        return family, where


def own_addresses(family: int) -> set[bytes]:
    """The unicast addresses of this machine but those of the loopback, 4 or 16 bytes each (proc_net(5))."""
    if family == socket.AF_INET:
        with open("/proc/self/net/fib_trie") as file:
            found = re.findall(r"-- (\S+)\n\s+/32 host LOCAL", file.read())
        return {socket.inet_aton(one) for one in found if not one.startswith("127.")}
    with open("/proc/self/net/if_inet6") as file:
        addresses = {bytes.fromhex(line.split()[0]) for line in file}
    return addresses - {bytes(15) + b"\1"}


def take_packet(data: bytearray) -> bytes:
    """The first packet of what a client has written, taken out; empty if it is not whole. Raises SendError for junk."""
    if len(data) < 6 or len(data) < (length := tcpip.total_length(bytes(data[:6]))):
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
    client.become_invoker()
    bucket, data = Bucket(BURST_OF_ONE), bytearray()
    while more := os.read(0, 4096):
        data += more
        while packet := take_packet(data):
            os.write(1, sender.answer(packet, bucket))


class Client(NamedTuple):
    """One connection."""

    near: socket.socket
    user: int
    data: bytearray
    """What was read and is no whole packet yet."""


class Service:
    """All clients of a listening socket, side by side."""

    def __init__(self, sender: Sender, listener: socket.socket) -> None:
        self._sender, self._listener = sender, listener
        self._buckets: dict[int, Bucket] = {}
        self._clients: dict[int, tuple[Client, float]] = {}
        """By descriptor, each with the time when it is given up."""
        self._ready = selectors.DefaultSelector()
        listener.setblocking(False)
        self._ready.register(listener, selectors.EVENT_READ)

    def run(self) -> None:
        """Serve until nobody has been there for a while."""
        end = time.monotonic() + REST
        while self._clients or time.monotonic() < end:
            ends = [end] if not self._clients else [until for _, until in self._clients.values()]
            for key, _ in self._ready.select(max(0.0, min(ends) - time.monotonic())):
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._read(self._clients[key.fd][0])
                end = time.monotonic() + REST
            for one, until in tuple(self._clients.values()):
                if until <= time.monotonic():
                    self._close(one)

    def _accept(self) -> None:
        try:
            near, _ = self._listener.accept()
        except OSError:
            return
        near.setblocking(False)
        _, user, _ = struct.unpack("3i", near.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if sum(one.user == user for one, _ in self._clients.values()) >= MOST:
            self._say(near, f"{MOST} connections of yours are open already\n".encode())
            near.close()
            return
        self._clients[near.fileno()] = Client(near, user, bytearray()), time.monotonic() + IDLE
        self._ready.register(near, selectors.EVENT_READ)

    def _read(self, one: Client) -> None:
        try:
            more = one.near.recv(4096)
            one.data.extend(more)
            while packet := take_packet(one.data):
                bucket = self._buckets.setdefault(one.user, Bucket(BURST))
                if not self._say(one.near, self._sender.answer(packet, bucket)):
                    more = b""
        except SendError as error:
            self._say(one.near, f"{error}\n".encode())
            more = b""
        except OSError:
            more = b""
        if not more:
            self._close(one)
            return
        self._clients[one.near.fileno()] = one, time.monotonic() + (UNFINISHED if one.data else IDLE)

    @staticmethod
    def _say(near: socket.socket, line: bytes) -> bool:
        """Whether a client takes a line at once; one that does not is not waited for."""
        try:
            return near.send(line) == len(line)
        except OSError:
            return False

    def _close(self, one: Client) -> None:
        self._ready.unregister(one.near)
        del self._clients[one.near.fileno()]
        one.near.close()
