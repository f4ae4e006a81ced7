"""Lists the sources that the scan guard blocks, and unblocks one: the command line of root.scan_guard."""

import argparse
import os
from ipaddress import IPv6Address, ip_address, ip_network

from ..errors import KnockError, PrivilegeError
from ..root import scan_guard
from ..root.listing import connect
from ..root.scan_guard import Address
from ..server.config import load_config

PREFIX = "knockknock_scan_"
"""Prefix of the names of counts."""


def show(path: str, options: argparse.Namespace) -> None:
    """Print the list or the counts, or unblock a source, as the options ask. Needs root. Raises KnockError."""
    if os.geteuid() != 0:
        raise PrivilegeError("listing and unblocking sources requires root: use sudo")
    kernel, prefix = connect(), load_config(path).scan_ipv6_prefix
    blocked = scan_guard.blocked(kernel)
    if blocked is None:
        raise KnockError("there is no scan guard in the kernel: set scan_guard = on and restart the daemon")
    if options.unblock is not None:
        source = _source(options.unblock, prefix)
        if source not in [one.source for one in blocked]:
            raise KnockError(f"{options.unblock} is not shut out")
        scan_guard.unblock(kernel, source)
        print(f"{_name(source, prefix)} is let in again")
        return
    if options.prometheus:
        print(exposition(scan_guard.counts(kernel), len(blocked)), end="")
        return
    for source, seconds in sorted(blocked, key=lambda one: (one.source.version, one.source.packed)):
        print(f"{_name(source, prefix)} {f'{seconds} s' if seconds else 'for ever'}")


def _source(text: str, prefix: int) -> Address:
    """Return the address that represents a source in the kernel's sets. Raises KnockError."""
    try:
        address = ip_address(text.partition("/")[0])
        if text not in (address.compressed, _name(address, prefix)) and "/" in text:
            raise ValueError
    except ValueError:
        raise KnockError(f"{text!r} is not an address, nor a network as --blocked lists it") from None
    return ip_network((address, prefix), strict=False).network_address if address.version == 6 else address


def _name(source: Address, prefix: int) -> str:
    return f"{source}/{prefix}" if isinstance(source, IPv6Address) and prefix < 128 else str(source)


def exposition(counts: scan_guard.Counts, blocked: int) -> str:
    """Return counts in the text format of Prometheus."""
    rows = (
        ("packets_dropped_total", "counter", "Packets of sources that are shut out", counts.dropped),
        ("packets_passed_total", "counter", "Packets that the scan guard let pass", counts.packets - counts.dropped),
        ("connections_new_total", "counter", "Packets that began a connection", counts.new),
        ("blocked_sources", "gauge", "Sources that are shut out now", blocked),
    )
    lines = [
        f"# HELP {PREFIX}{name} {what}.\n# TYPE {PREFIX}{name} {kind}\n{PREFIX}{name} {number}\n"
        for name, kind, what, number in rows
    ]
    return "".join(lines)
