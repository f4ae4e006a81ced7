"""The programs with root privileges: they keep our nftables table, and our accept rule in others' base chains.

watch stays root and runs setup, which places both and ends; helper, which setup becomes at the start, opens doors.
"""

NAME = "knockknock"
"""Our nftables table, and the comment on every rule of ours in somebody else's chain."""
SLOTS = 16
"""Doors that one source may have open at one port at the same moment, each for one connection."""
DAEMON, ROOT, KERNEL, LANDLOCK = 0, 1, 3, 4
"""Descriptors of the resident helper at its start: the pair to the daemon, the pair to root.watch, a socket to the
kernel's nf_tables, and Landlock rules."""


def sets(family: int) -> list[str]:
    """Return the sets of doors of address family 4 or 6: one for doors with a time, SLOTS for one connection each."""
    return [f"open{family}", *(f"once{family}_{number}" for number in range(SLOTS))]
