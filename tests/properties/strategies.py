"""Strategies for hypothesis: any knock, profile, log line or NFLOG message that there can be."""

import ipaddress
import struct
from typing import Any

from hypothesis import strategies as st

from knockknock.core.packet import Packet
from knockknock.core.request import TCP, UDP, Ports, Request, Verb
from knockknock.schemes.syn.profile import FORMATS, Profile

from ..helpers import KNOCK_PORT, stamped

ports = st.integers(1, 65535)
addresses4 = st.binary(min_size=4, max_size=4)
addresses6 = st.binary(min_size=16, max_size=16)
addresses = addresses4 | addresses6
bytes1, u16, u32 = st.integers(0, 0xFF), st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
keys = st.binary(min_size=16, max_size=16) | st.binary(min_size=32, max_size=32)


@st.composite
def runs(draw: st.DrawFn, protocols: st.SearchStrategy[int]) -> Ports:
    """A run of ports."""
    first, last = sorted((draw(ports), draw(ports)))
    return Ports(draw(protocols), first, draw(st.sampled_from([first, last])))


@st.composite
def profiles(draw: st.DrawFn, format: str | None = None) -> Profile:
    """Any profile that a config can describe, at one knock port."""
    chosen = format or draw(st.sampled_from(sorted(FORMATS)))
    classic = chosen == "classic"
    return Profile(
        draw(st.from_regex(r"[a-z0-9][a-z0-9._-]{0,8}", fullmatch=True)),
        draw(keys),
        draw(keys),
        KNOCK_PORT,
        chosen,
        tuple(draw(st.lists(runs(st.just(TCP) if classic else st.sampled_from([TCP, UDP])), min_size=1, max_size=4))),
        False if classic else draw(st.booleans()),
        draw(st.sampled_from([None, True, False])),
        expires=draw(st.none() | st.integers(1, 2**32)),  # the gatekeeper of a test is at 0
    )


@st.composite
def requests(draw: st.DrawFn, profile: Profile) -> Request:
    """A request that a profile may make."""
    run = draw(st.sampled_from(profile.ports))
    verb = Verb.OPEN if profile.format == "classic" else draw(st.sampled_from(sorted(Verb, key=str)))
    return Request(verb, run.protocol, draw(st.integers(run.first, run.last)))


@st.composite
def tcp_options(draw: st.DrawFn, timestamp: int | None) -> bytes:
    """TCP options, with a timestamp or without: no more than 40 bytes."""
    others = st.sampled_from([b"\x01", b"\x02\x04\x05\xb4", b"\x04\x02", b"\x03\x03\x0a", b"\xfe\x04\x00\x00"])
    items: list[bytes] = draw(st.lists(others, max_size=6))
    if timestamp is not None:
        items.insert(draw(st.integers(0, len(items))), stamped(timestamp))
    options = b"".join(items)
    return options + bytes(-len(options) % 4)


@st.composite
def packets(draw: st.DrawFn, port: int | None = None) -> Packet:
    """Any packet that a source could tell of."""
    source = draw(addresses)
    return Packet(
        source,
        draw(u16),
        port or draw(ports),
        draw(u16 if len(source) == 4 else st.integers(0, 0xFFFFF)),
        draw(u32),
        draw(u32 | st.just(0)),
        draw(u16),
        draw(tcp_options(draw(st.none() | u32))),
    )


# A log line as net/netfilter/nf_log_syslog.c prints it, field by field, in the spelling of its format strings.

FRONTS = st.sampled_from(
    [
        "<7>1 2026-11-26T08:14:14.693976+01:00 host kernel - - - [  412.345678] ",
        "Thu Nov 26 08:14:14 2026 kern.debug kernel: [  412.345678] ",
        "Nov 26 08:14:14 host kern.debug kernel: [  412.345678][    C0] ",
        "Nov 26 08:14:14 kernel: ",
        "Mär 26 08:14:14.545053 bücher kernel: ",
        "Nov 26 08:14:14 [kernel] [  412.345678] ",
        "[Thu Nov 26 08:14:14 2026] ",
        "2026-11-26T08:14:14,559615+01:00 ",
        "<7>[  412.345678] ",
        "",
        "Nov 20 19:00:00 host kernel: ",
        "Nov  2 19:00:00 host kernel: [12345.678901] ",
        "2026-11-20T19:00:00.123456+00:00 host.example.org kernel: ",
        "2026-11-20T19:00:00Z host kernel: [    0.000001] ",
        "[  123.456789] ",
        "[123456.123456] host kernel: ",
        "7,555,1383333473,-;",
        "4,1,0,c,caller=T1;",
    ]
)
NAMES = st.from_regex(r"[a-z][a-z0-9.@_-]{0,14}", fullmatch=True)


def optional(text: str) -> st.SearchStrategy[str]:
    return st.sampled_from(["", text])


@st.composite
def _link(draw: st.DrawFn) -> str:
    text = f"IN={draw(NAMES)} OUT= "
    for word in ("PHYSIN", "PHYSOUT"):
        text += draw(st.just("") | NAMES.map(f"{word}={{}} ".format))
    mac = draw(st.binary(min_size=14, max_size=14)).hex(":")
    decoded = f"MACSRC={mac[:17]} MACDST={mac[18:35]} MACPROTO={mac[-5:].replace(':', '')} "
    return text + draw(st.sampled_from(["", "MAC= ", f"MAC={mac} ", decoded]))


@st.composite
def _ipv4(draw: st.DrawFn, source: bytes, ident: int) -> str:
    byte, even = st.integers(0, 255), st.integers(0, 40)
    tos = draw(byte)
    return (
        f"SRC={ipaddress.IPv4Address(source)} DST={ipaddress.IPv4Address(draw(addresses4))} LEN={draw(u16)} "
        f"TOS=0x{tos & 0x1E:02X} PREC=0x{tos & 0xE0:02X} TTL={draw(byte)} ID={ident} "
        f"{draw(optional('CE '))}{draw(optional('DF '))}"
        + (f"OPT ({draw(st.binary(min_size=1, max_size=40)).hex().upper()}) " if draw(even) == 0 else "")
    )


@st.composite
def _ipv6(draw: st.DrawFn, source: bytes, label: int) -> str:
    byte = st.integers(0, 255)
    return (
        f"SRC={ipaddress.IPv6Address(source).exploded} DST={ipaddress.IPv6Address(draw(addresses6)).exploded} "
        f"LEN={draw(u16)} TC={draw(byte)} HOPLIMIT={draw(byte)} FLOWLBL={label} {draw(optional('OPT ( ) '))}"
    )


@st.composite
def kernel_lines(draw: st.DrawFn) -> tuple[bytes, Packet]:
    """A line that the kernel could have written of a SYN to us, and the packet that it tells of."""
    packet: Any = draw(packets())
    network = (_ipv4 if len(packet.source) == 4 else _ipv6)(packet.source, packet.ident)
    line = (
        f"{draw(FRONTS)}knockknock {draw(_link())}{draw(network)}PROTO=TCP SPT={packet.source_port} DPT={packet.port} "
        f"SEQ={packet.sequence} ACK={packet.acknowledgment} WINDOW={packet.window} "
        f"RES=0x{draw(st.integers(0, 15)):02x} "
        + "".join(draw(optional(flag)) for flag in ("AE ", "CWR ", "ECE "))
        + f"SYN URGP={draw(u16)} "
    )
    if packet.options:
        line += f"OPT ({packet.options.hex().upper()}) "
    line += draw(optional("UID=1000 GID=1000 ")) + draw(st.just("") | u32.map("MARK=0x{:x} ".format))
    return (line if draw(st.booleans()) else line.removesuffix(" ")).encode(), packet


# A message as net/netfilter/nfnetlink_log.c packs it.


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


@st.composite
def _network(draw: st.DrawFn, packet: Packet) -> bytes:
    """The bytes of a packet from the IP header on, with any values where no knock is carried."""
    flags = 2 | draw(st.sampled_from([0, 0x40, 0x80, 0xC0]))
    offset = (5 + len(packet.options) // 4) << 4 | draw(st.integers(0, 15))
    tcp = struct.pack("!HHIIBB", *packet[1:3], *packet[4:6], offset, flags)
    tcp += struct.pack("!HI", packet.window, draw(u32)) + packet.options + packet.payload
    if len(packet.source) == 4:
        ip_options = bytes(4 * draw(st.integers(0, 10)))
        total, flag = 20 + len(ip_options) + len(tcp), draw(st.sampled_from([0, 0x4000, 0x8000, 0xC000]))
        ip = struct.pack("!BBHHHBBH", 0x45 + len(ip_options) // 4, draw(bytes1), total, packet.ident, flag, 64, 6, 0)
        return ip + packet.source + draw(addresses4) + ip_options + tcp
    following, headers = 6, b""
    for kind in draw(st.lists(st.sampled_from([0, 43, 51, 60]), max_size=8)):
        units = draw(st.integers(0, 2))
        headers = bytes([following, units]) + bytes((8 + 4 * units if kind == 51 else 8 + 8 * units) - 2) + headers
        following = kind
    first = 6 << 28 | draw(bytes1) << 20 | packet.ident
    ip = struct.pack("!IHBB", first, len(headers) + len(tcp), following, draw(bytes1))
    return ip + packet.source + draw(addresses6) + headers + tcp


@st.composite
def nflog_messages(draw: st.DrawFn, group: int) -> tuple[bytes, Packet]:
    """A message that the kernel could have sent of a SYN to us, and the packet that it tells of."""
    packet = draw(packets())._replace(payload=draw(st.binary(max_size=40)))
    four = len(packet.source) == 4
    body = bytes([2 if four else 10, 0]) + group.to_bytes(2, "big")
    body += _attribute(1, (b"\x08\x00" if four else b"\x86\xdd") + b"\0\0") + _attribute(10, b"knockknock \0")
    for kind, size in draw(
        st.lists(st.sampled_from([(4, 4), (2, 4), (8, 12), (15, 2), (17, 2), (16, 14)]), max_size=6)
    ):
        body += _attribute(kind, draw(st.binary(min_size=size, max_size=size)))
    if draw(st.booleans()):
        body += _attribute(3, draw(st.binary(min_size=16, max_size=16)))
    body += _attribute(9, draw(_network(packet)))
    return struct.pack("=IHHII", 16 + len(body), 0x400, 0, 0, 0) + body, packet
