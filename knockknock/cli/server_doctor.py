"""Explains why a received knock opens a door or does not, for knockknock-daemon doctor; opens nothing."""

import argparse
import contextlib
import ipaddress
import math
import select
import socket
import time
from collections.abc import Iterator

from .. import sources
from ..core.packet import Packet
from ..errors import FirewallError, KnockError, SourceError
from ..profiles import clock
from ..root import NAME
from ..root.listing import connect
from ..root.netlink import add
from ..schemes.syn.profile import Profile
from ..server import diagnosis, instance, loading
from ..server.config import Config, load_config
from ..sources import nflog_packet

LINE = 2.0
"""Seconds to wait for a packet's line in the log."""
SHOWN = 20
"""The most packets of a file that are explained."""
_ETH_P_ALL = 3
"""include/uapi/linux/if_ether.h"""

Profiles = list[tuple[Profile, int]]
"""Each with the next counter that the server accepts."""


def show(path: str, options: argparse.Namespace) -> None:
    """Explain the packets in a file, or the next one that comes. Raises KnockError if none of them opens."""
    settings = load_config(path)
    profiles = known(settings)
    own = options.sent_from.packed if options.sent_from else b""
    if options.pcap:
        packets = [
            packet for packet in from_file(options.pcap) if any(packet.port == one.knock_port for one, _ in profiles)
        ]
        if not packets:
            raise KnockError(
                f"{options.pcap} holds no SYN to a knock port: the knock did not get to where the capture was taken"
            )
        good = [said(packet, profiles, settings, own) for packet in packets[:SHOWN]]
        if len(packets) > SHOWN:
            print(f"{len(packets) - SHOWN} more are not looked at")
    else:
        good = [live(settings, profiles, own, options.wait)]
    if not any(good):
        raise KnockError("nothing of this opens, see above")


def known(settings: Config) -> Profiles:
    """Return the profiles that a daemon would hear; print what is wrong with others. Raises KnockError if there is
    none."""
    looked = loading.look(settings, loading.ANY_SOURCE)
    for name, error in looked.bad.items():
        print(f"profile {name} is not heard: {error}")
    # Other schemes have no fields to explain.
    found = [(one, count) for one, count in looked.changes if isinstance(one, Profile) and isinstance(count, int)]
    if not found:
        raise KnockError(f"there is no profile in {settings.profiles} that could be heard")
    return found


def said(packet: Packet, profiles: Profiles, settings: Config, own: bytes) -> bool:
    """Print what a packet means to the profiles of its knock port, and return whether it opens."""
    now, source = clock.seconds(), ipaddress.ip_address(packet.source)
    label = "IP ID" if source.version == 4 else "flow label"
    stamp = "none" if packet.timestamp is None else packet.timestamp
    print(
        f"from {source} to port {packet.port}: {label} {packet.ident:#x}, sequence {packet.sequence}, "
        f"acknowledgment {packet.acknowledgment}, window {packet.window}, TCP timestamp {stamp}"
    )
    findings = [
        (profile.name, diagnosis.explain(packet, profile, counter, loading.settings(settings), now, own))
        for profile, counter in profiles
        if profile.knock_port == packet.port
    ]
    ours = [(name, one) for name, one in findings if one.ours]
    for name, one in ours or findings[:SHOWN]:
        print(f"    {name}: {one.text}")
    return any(one.good for _, one in ours)


def from_file(path: str) -> Iterator[Packet]:
    """Return the SYNs in a capture file. Raises KnockError."""
    import logging

    logging.getLogger("scapy").setLevel(logging.ERROR)
    from scapy.error import Scapy_Exception
    from scapy.layers.inet import IP
    from scapy.layers.inet6 import IPv6
    from scapy.utils import PcapReader

    try:
        with PcapReader(path) as reader:
            for frame in reader:
                for layer, read in ((IP, nflog_packet.ipv4), (IPv6, nflog_packet.ipv6)):
                    if layer in frame:
                        data = bytes(frame[layer].original)
                        if packet := read(data, 0, len(data)):
                            yield packet
                        break
    except (OSError, Scapy_Exception, EOFError) as error:
        reason = getattr(error, "strerror", None) or "it is no capture file"
        raise KnockError(f"--pcap {path} cannot be read: {reason}") from None


def arrived() -> socket.socket:
    """Open a socket that sees all packets that come in, before the firewall does. Raises KnockError."""
    try:
        return socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
    except PermissionError:
        raise KnockError("it must be run as root, to see what arrives; or take a file: --pcap") from None


def live(settings: Config, profiles: Profiles, own: bytes, seconds: float) -> bool:
    """Wait for a SYN to a knock port, explain it, and return whether it opens. Raises KnockError."""
    ports = {one.knock_port for one, _ in profiles}
    with arrived() as wire, _log(settings) as log:
        _have_logged(ports, seconds)
        print(f"Waiting for a knock at port {', '.join(map(str, sorted(ports)))}: knock now.", flush=True)
        packet = _next(wire, ports, time.monotonic() + seconds)
        if packet is None:
            raise KnockError(
                f"no SYN to a knock port arrived within {seconds:.0f} s: something on the way refuses it, the client "
                "knocks at another address or port, or it is this very machine"
            )
        good = said(packet, profiles, settings, own)
        heard = log is None or _logged(log, packet)
    return _surroundings(settings, heard, log is not None) and good


def _have_logged(ports: set[int], seconds: float) -> None:
    """Have the kernel log every SYN to knock ports for some seconds; the kernel ends it."""
    with contextlib.suppress(FirewallError, OSError):  # a missing table is reported at the end
        kernel = connect()
        for port in ports:
            kernel.change(add("doctor", port.to_bytes(2, "big"), seconds=math.ceil(seconds + LINE)))


@contextlib.contextmanager
def _log(settings: Config) -> Iterator[sources.Source | None]:
    """Open the log, to see whether the line comes; None for NFLOG, which only the daemon can read."""
    if sources.choose(settings)[0] == "nflog":
        yield None
        return
    try:
        yield sources.open_source(settings, look=True)
    except SourceError as error:
        print(f"bad: {error}")
        yield None


def _next(wire: socket.socket, ports: set[int], end: float) -> Packet | None:
    """Return the next incoming SYN to one of some ports, None when the time is over."""
    while (left := end - time.monotonic()) > 0:
        if not select.select([wire], [], [], left)[0]:
            return None
        data, (device, _, kind, *_) = wire.recvfrom(65536)
        read = {4: nflog_packet.ipv4, 6: nflog_packet.ipv6}.get(data[0] >> 4 if data else 0)
        # The kernel logs no knock of this machine itself.
        if (
            device != "lo"
            and kind == socket.PACKET_HOST
            and read
            and (packet := read(data, 0, len(data)))
            and packet.port in ports
        ):
            return packet
    return None


def _logged(log: sources.Source, packet: Packet) -> bool:
    """Return whether the kernel's line about a packet comes."""
    end = time.monotonic() + LINE
    while time.monotonic() < end:
        for line in log.read():
            if line and line[:6] == packet[:6]:
                return True
        time.sleep(0.02)
    return False


def _surroundings(settings: Config, heard: bool, looked: bool) -> bool:
    """Print whether daemon, rule and log line are there, and return whether all are."""
    pid = instance.daemon(settings.state)
    rule = _rule()
    print(f"ok: the daemon runs (process {pid})" if pid else "bad: no daemon runs with this state directory: start it")
    if rule:
        print("ok: its rules are in the firewall")
    else:
        print("bad: its rules are not in the firewall: restart the daemon; its log says what became of them")
    if not heard:
        print("bad: no LOG line came for it: see docs/troubleshooting.md")
    elif looked:
        print("ok: its LOG line came")
    return bool(pid) and rule and heard


def _rule() -> bool:
    """Return whether our table is there, with its rule that logs."""
    try:
        connect().packets(NAME, "told")
    except (FirewallError, OSError):
        return False
    return True
