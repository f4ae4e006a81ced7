"""What iptables is to hold of ours, in a form that both ways of placing it can be made from."""

from typing import NamedTuple

from . import BURST, COPY, MARK, MASK, NAME, PREFIX

CHAIN, HEAR, LET_IN = (f"{NAME.upper()}{tail}" for tail in ("", "-HEAR", "-LET-IN"))
PORTS, UDP_PORTS, ANY_FLAGS = f"{NAME}-ports", f"{NAME}-udp-ports", f"{NAME}-any-flags"
"""Knock ports: TCP ports of which SYNs are logged, UDP ports, and TCP ports of which the rest is logged, too."""
RATE = f"{NAME}-rate"


class Rule(NamedTuple):
    """One rule of a chain of ours."""

    chain: str
    matches: tuple[tuple[str, dict[str, str]], ...]
    """Name of a match extension and its options, without the dashes."""
    target: str
    options: dict[str, str]
    protocol: str = ""


def rules(family: int, nflog_group: int) -> list[Rule]:
    """All rules, in order; family: 4 or 6; nflog_group: 0 for the kernel's log."""
    mark = {"mark": f"{MARK:#x}/{MASK:#x}"}
    new = ("conntrack", {"ctstate": "NEW"})
    syn = ("tcp", {"tcp-flags": "FIN,SYN,RST,ACK SYN"})
    rest, loose = ("tcp", {"!tcp-flags": "FIN,SYN,RST,ACK SYN"}), ("conntrack", {"!ctstate": "ESTABLISHED"})
    # Not hashlimit: when its table is full, of forged sources, it drops the packets of all others.
    rate = f"{RATE}{family} src"
    too_many = {"match-set": rate, "packets-gt": str(BURST)}
    log = {"log-prefix": PREFIX, "log-level": "debug", "log-tcp-sequence": "", "log-tcp-options": ""}
    to_group = {"nflog-group": f"{nflog_group}", "nflog-prefix": PREFIX, "nflog-size": f"{COPY}"}
    target = ("NFLOG", to_group | {"nflog-threshold": "1"}) if nflog_group else ("LOG", log)
    return [
        Rule(CHAIN, (("connmark", mark),), "ACCEPT", {}),
        Rule(CHAIN, (syn, ("set", {"match-set": f"{PORTS} dst"})), HEAR, {}, "tcp"),
        Rule(CHAIN, (loose, ("set", {"match-set": f"{UDP_PORTS} dst"})), HEAR, {}, "udp"),
        Rule(CHAIN, (rest, loose, ("set", {"match-set": f"{ANY_FLAGS} dst"})), HEAR, {}, "tcp"),
        Rule(CHAIN, (new, ("set", {"match-set": f"{NAME}-once{family} src,dst"})), LET_IN, {}),
        Rule(CHAIN, (new, ("set", {"match-set": f"{NAME}-open{family} src,dst"})), LET_IN, {}),
        Rule(HEAR, (("set", too_many),), "RETURN", {}),
        Rule(HEAR, (), "SET", {"add-set": rate}),
        Rule(HEAR, (), *target),
        Rule(LET_IN, (), "SET", {"del-set": f"{NAME}-once{family} src,dst"}),
        Rule(LET_IN, (), "CONNMARK", {"set-xmark": f"{MARK:#x}/{MASK:#x}"}),
        Rule(LET_IN, (), "ACCEPT", {}),
    ]
