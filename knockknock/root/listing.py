"""Lists tables, chains, rules and sets of nf_tables, for the set-up and commands."""

import struct

from ..errors import FirewallError
from .netlink import ACK, DUMP, Kernel, Object, attribute

IP, IP6 = 2, 10
"""NFPROTO_*."""
TABLES, CHAINS, RULES, SETS = 1, 4, 7, 10
"""NFT_MSG_GET*."""
NEW_RULE, DELETE_RULE = 6, 8
_GET_GENERATION, _GENERATION = 16, 1
"""NFT_MSG_GETGEN, NFTA_GEN_ID."""


def connect() -> Kernel:
    """Return a socket to nf_tables. Raises FirewallError if this kernel has none."""
    try:
        kernel = Kernel()
        kernel.ask(TABLES, DUMP)
    except OSError as error:
        raise FirewallError(
            f"this kernel has no nf_tables, which knockknock is made for ({error.strerror}): modprobe nf_tables"
        ) from None
    return kernel


def dump(kernel: Kernel, kind: int, family: int = 0, body: bytes = b"") -> list[Object]:
    """Return all objects of a kind: TABLES, CHAINS, RULES or SETS. Raises OSError."""
    return kernel.ask(kind, DUMP, family, body)


def generation(kernel: Kernel) -> int:
    """Return the generation of the ruleset, to which each transaction adds one. Raises OSError."""
    ((_, found),) = kernel.ask(_GET_GENERATION, ACK)
    return int.from_bytes(found[_GENERATION], "big")


def word(kind: int, number: int) -> bytes:
    """Return a number of 4 bytes, network order, as an attribute."""
    return attribute(kind, struct.pack("!I", number))
