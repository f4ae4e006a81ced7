"""Shows a knock without sending it, for --dry-run, --explain and --pcap."""

import logging
import os
import stat
import struct
from collections.abc import Callable

from ..client.raw_socket import Knock
from ..errors import KnockError
from .knock_options import Options

_LINKTYPE_RAW = 101
"""A capture file's packets begin with the IP header."""


def _fields(knock: Knock) -> str:
    """Return the addresses and the carrying fields of a knock as words."""
    packet = knock.packet
    if packet[0] >> 4 == 4:
        start, ident = 20, f"IP ID {int.from_bytes(packet[4:6], 'big')}"
    else:
        start, ident = 40, f"flow label {int.from_bytes(packet[1:4], 'big') & 0xFFFFF}"
    sport, dport, sequence, acknowledgment, window = struct.unpack_from("!HHII2xH", packet, start)
    return (
        f"{knock.source} port {sport} to {knock.destination} port {dport}, {ident}, sequence number {sequence}, "
        f"acknowledgment number {acknowledgment}, window {window}, {len(packet)} bytes"
    )


def shower(options: Options) -> Callable[[Knock], None]:
    """Return a function that shows a knock as the options ask. Raises KnockError."""
    if not (options.explain or options.pcap):
        return lambda knock: print(f"{knock.request}, counter {knock.counter}: {_fields(knock)}")
    logging.getLogger("scapy").setLevel(logging.ERROR)  # else it warns when it is imported
    from scapy.layers.inet import IP  # imported here, because it takes 0.2 s and may not be installed
    from scapy.layers.inet6 import IPv6
    from scapy.utils import PcapWriter

    writer = None
    if options.pcap:
        try:
            fd = os.open(options.pcap, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise KnockError(f"--pcap {options.pcap} cannot be written: {error.strerror}") from None
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode):
            if status.st_mode & 0o077:
                raise KnockError(
                    f"--pcap {options.pcap} may be read by others, and a knock is a secret: remove it first"
                )
            os.ftruncate(fd, 0)
        writer = PcapWriter(os.fdopen(fd, "wb"), linktype=_LINKTYPE_RAW, sync=True)

    def show(knock: Knock) -> None:
        packet = (IP if knock.packet[0] >> 4 == 4 else IPv6)(knock.packet)
        if options.dry_run:
            print(f"{knock.request}, counter {knock.counter}: {_fields(knock)}")
        if options.explain:
            packet.show()
        if writer:
            try:
                writer.write(packet)
            except OSError as error:
                raise KnockError(f"--pcap {options.pcap} cannot be written: {error.strerror}") from None

    return show
