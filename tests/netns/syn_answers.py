"""Answers of a server to SYNs, with their times: to knocks and random SYNs that differ in the carrying fields alone."""

import os
import random
import select
import socket
import struct
import time
from typing import NamedTuple

from knockknock.core.headers import Carried
from knockknock.core.headers import knock as packet_of
from knockknock.core.request import TCP, Request, Verb
from knockknock.profiles import files
from knockknock.schemes.syn import seal
from knockknock.schemes.syn.profile import Profile

from .lab import Lab, inside

SERVER, CLIENT = {4: "10.77.0.1", 6: "fd77:0::1"}, {4: "10.77.0.2", 6: "fd77:0::2"}
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
ETHER = {4: 0x0800, 6: 0x86DD}
IP = {4: 20, 6: 40}
"""Bytes of an IP header without options."""
OPEN_22 = Request(Verb.OPEN, TCP, 22)


class Answer(NamedTuple):
    """One packet that came back."""

    data: bytes
    """From the IP header on."""
    seconds: float


class Asker:
    """Sends SYNs from the client's namespace, below its kernel's TCP, and takes what comes back off the wire."""

    def __init__(self, lab: Lab, family: int, port: int) -> None:
        self._family, self._port = family, port
        self._from, self._to = (socket.inet_pton(FAMILIES[family], one[family]) for one in (CLIENT, SERVER))
        with inside(lab.ns("client")):
            self._tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETHER[family]))
            self._raw = socket.socket(FAMILIES[family], socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._tap.bind(("c0", ETHER[family]))
        lab.connects(SERVER[family], 9, seconds=0.05)  # the neighbours know each other from here on
        with inside(lab.ns("server")):
            listener = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETHER[family]))
        with listener:
            listener.bind(("s0", ETHER[family]))
            listener.settimeout(2)
            lab.connects(SERVER[family], port, seconds=0.05)
            self._template = self._next(listener, port)

    def close(self) -> None:
        self._tap.close()
        self._raw.close()

    def _next(self, tap: socket.socket, port: int) -> bytes:
        """The kernel's own SYN to a port: all that the carrying fields are put into."""
        while True:
            data = tap.recv(2048)
            protocol = data[9] if self._family == 4 else data[6]
            if protocol == TCP and struct.unpack_from("!H", data, IP[self._family] + 2)[0] == port:
                return data

    def syn(self, carried: Carried, port: int | None = None) -> bytes:
        """The client's SYN with some fields, to the knock port or to another."""
        return packet_of(self._template, self._from, self._to, port or self._port, carried, 5)

    def ping(self) -> bytes:
        """An ICMP echo request, by which somebody waits for the end of what comes before it; IPv4 alone."""
        head = self._template[:9] + b"\1" + self._template[10:20]
        # The checksum: of type 8, and zeros.
        return head[:2] + (28).to_bytes(2, "big") + head[4:] + b"\x08\0\xf7\xff\0\0\0\0"

    def ask(self, packet: bytes, patience: float = 0.5, behind: bytes = b"") -> Answer | None:
        """Send a packet, and another right behind it; what comes back first, or None after so many seconds."""
        while select.select([self._tap], [], [], 0)[0]:
            self._tap.recv(2048)
        start = time.perf_counter()
        self._raw.sendto(packet, (SERVER[self._family], 0))
        if behind:
            self._raw.sendto(behind, (SERVER[self._family], 0))
        while (left := start + patience - time.perf_counter()) > 0 and select.select([self._tap], [], [], left)[0]:
            data = self._tap.recv(2048)
            if self._answers(data):
                return Answer(data, time.perf_counter() - start)
        return None

    def _answers(self, data: bytes) -> bool:
        """Return True if a packet is TCP or an ICMP error, and not neighbour discovery."""
        if self._family == 4:
            return data[9] in (TCP, socket.IPPROTO_ICMP)
        return data[6] == TCP or (data[6] == socket.IPPROTO_ICMPV6 and data[40] < 128)

    def plain(self, answer: Answer | None, packet: bytes) -> str:
        """An answer without what mirrors the packet that it is for, and without sums; as text, to be compared."""
        if answer is None:
            return "nothing"
        start, data = IP[self._family], bytearray(answer.data)
        if self._family == 4:
            data[10:12] = bytes(2)
        if data[9 if self._family == 4 else 6] == TCP:
            sequence = struct.unpack_from("!I", packet, start + 4)[0]
            acknowledged = struct.unpack_from("!I", data, start + 8)[0]
            struct.pack_into("!I", data, start + 8, (acknowledged - sequence) % 2**32)
            assert data[start : start + 4] == packet[start + 2 : start + 4] + packet[start : start + 2]
            data[start : start + 4], data[start + 16 : start + 18] = bytes(4), bytes(2)
            return data.hex()
        # An ICMP error quotes the packet; its own identification is drawn at random by the kernel.
        if self._family == 4:
            data[4:6] = bytes(2)
        quoted = bytes(data[start + 8 :])
        assert packet.startswith(quoted)
        return data[: start + 2].hex() + f" and a quotation of {len(quoted)} bytes"


def noise(format: str) -> Carried:
    """Random values in the fields that a format uses."""
    size = {"compact": 8, "classic": 12, "stealth": 10}[format]
    return seal.carry(format, b"\1" + os.urandom(size - 1))  # a raw socket replaces identification 0


class Knocker:
    """Seals knocks with the client's keys, without its program."""

    def __init__(self, lab: Lab, name: str, family: int) -> None:
        found = files.load_profile(f"{lab.settings['profiles']}/{name}")
        assert isinstance(found, Profile)
        self.profile: Profile = found
        self._source, self._counter = socket.inet_pton(FAMILIES[family], CLIENT[family]), 0

    def next(self) -> Carried:
        """The next knock for tcp/22."""
        while (sealed := seal.seal(self.profile, self._counter, OPEN_22, self._source))[:2] == b"\0\0":
            self._counter += 1
        self._counter += 1
        return seal.carry(self.profile.format, sealed)


def timed_ports(number: int, reject: bool) -> tuple[list[float], list[float]]:
    """Seconds to answers to random SYNs at the knock port, and at another closed port, in a random order.

    reject: the server resets, and this is timed; else it drops them, and the answer to a ping right behind is.
    """
    lab = Lab()
    times: dict[int, list[float]] = {4275: [], 4277: []}
    try:
        lab.guard("nftables")
        rule = "meta l4proto tcp reject with tcp reset" if reject else "meta l4proto icmp accept"
        lab.run("server", "nft", f"add rule inet guard input {rule}")
        lab.mint("laptop", port=4275)
        lab.daemon()
        asker = Asker(lab, 4, 4275)
        behind = b"" if reject else asker.ping()
        for port in random.sample([*times] * number, 2 * number):
            answer = asker.ask(asker.syn(noise("compact"), port), behind=behind)
            assert answer, "no answer"
            times[port].append(answer.seconds)
        asker.close()
    finally:
        lab.close()
    return times[4275], times[4277]


def timed(number: int, pause: float) -> tuple[list[float], list[float]]:
    """Seconds to the answers of a server that sends resets: to knocks, and to random SYNs, in a random order.

    pause: seconds between two, so that the LOG rule's limit for one source lets each through to the daemon.
    """
    lab = Lab()
    knocks: list[float] = []
    randoms: list[float] = []
    try:
        lab.guard("nftables")
        lab.run("server", "nft", "add rule inet guard input meta l4proto tcp reject with tcp reset")
        lab.mint("laptop", port=4275)
        lab.daemon()
        asker, knocker = Asker(lab, 4, 4275), Knocker(lab, "laptop", 4)
        for is_knock in random.sample([True, False] * number, 2 * number):
            time.sleep(pause)
            answer = asker.ask(asker.syn(knocker.next() if is_knock else noise("compact")))
            assert answer, "no answer"
            (knocks if is_knock else randoms).append(answer.seconds)
        asker.close()
    finally:
        lab.close()
    return knocks, randoms
