"""knockknock --dry-run, --explain and --pcap: what a knock looks like. scapy takes long to import."""

import argparse
import logging
import os
import stat
from collections.abc import Callable

from ..client import Knock
from ..errors import KnockError

logging.getLogger("scapy").setLevel(logging.ERROR)
from scapy.layers.inet import IP  # noqa: E402  # it warns when it is imported, unless told before
from scapy.layers.inet6 import IPv6  # noqa: E402
from scapy.utils import PcapWriter  # noqa: E402

_LINKTYPE_RAW = 101
"""A capture file's packets begin with the IP header."""


def shower(options: argparse.Namespace) -> Callable[[Knock], None]:
    """What does as --dry-run, --explain and --pcap say, by scapy's dissection of a packet. Raises KnockError."""
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
            print(f"{knock.request}, counter {knock.counter}: {packet.command()}")
        if options.explain:
            packet.show()
        if writer:
            try:
                writer.write(packet)
            except OSError as error:
                raise KnockError(f"--pcap {options.pcap} cannot be written: {error.strerror}") from None

    return show
