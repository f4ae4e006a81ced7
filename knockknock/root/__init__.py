"""All that keeps root: one nftables table of ours, and one rule in each chain of others that could refuse a door."""

RUN = "import sys; sys.path[:0] = [sys.argv.pop(1)]; from {module} import main; main()"
"""What `python -I -c` is given: the folder of the package comes first, and nothing from the environment counts."""
PREFIX = "knockknock "
"""What the rule that logs writes before a packet (sources.logline and sources.nfpacket read it)."""
COPY = 512
"""Bytes of a packet that a rule hands to an NFLOG group (sources.nflog.COPY)."""
NAME = "knockknock"
"""Our nftables table, and the comment on every rule of ours in somebody else's chain."""
LABEL = 75
"""Conntrack label of a connection whose SYN a door let in, if the configuration names no other; the next one is that of
a connection that was established through it."""
PRIORITY = -199
"""Of our base chain at the prerouting hook: right behind conntrack, before all that filters but what is at raw.

include/uapi/linux/netfilter_ipv4.h: conntrack is at -200, mangle at -150, destination NAT at -100.
"""
PER_SOURCE, BURST = 20, 40
"""Knocks a second, and at once, that are logged of one IPv4 address or IPv6 /64: a flooder silences itself alone."""
SET_SIZE = 65536
"""Elements in each of our sets at most."""
SLOTS = 16
"""Doors that one source may have open at one port at the same moment, each for one connection."""
