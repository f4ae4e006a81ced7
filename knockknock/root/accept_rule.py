"""Inserts our rule, which accepts connections with our conntrack label, first in others' base chains.

Each base chain at the input hook gets the rule, so whether it refuses anything need not be known. At the prerouting
hook only chains that can refuse get it: others there set the marks that choose routes, which our connections need, too.
"""

import struct
from typing import NamedTuple

from . import NAME
from .listing import CHAINS, DELETE_RULE, IP, IP6, NEW_RULE, RULES, TABLES, dump, word
from .netlink import CREATE, INET, NESTED, Kernel, attribute, attributes, text
from .ruleset import PRIORITY

FAMILIES = {INET: "inet", IP: "ip", IP6: "ip6"}
IPTABLES = ("filter", "mangle", "security")
"""Tables of iptables that can refuse, in their chain INPUT."""
# include/uapi/linux/netfilter/nf_tables.h: NFTA_*
_NAME, _FLAGS = 1, 2
_CHAIN_TABLE, _CHAIN_NAME, _HOOK, _POLICY, _TYPE, _HOOK_NUMBER, _HOOK_PRIORITY = 1, 3, 4, 5, 7, 1, 2
_RULE_TABLE, _RULE_CHAIN, _RULE_HANDLE, _EXPRESSIONS, _USERDATA = 1, 2, 3, 4, 7
_EXPRESSION_NAME, _EXPRESSION_DATA = 1, 2
_OWNED = 2
"""NFT_TABLE_F_OWNER."""
_PREROUTING, _INPUT = 0, 1
"""NF_INET_*."""
_DROP, _QUEUE, _JUMP, _GOTO = 0, 3, -3, -4
"""Verdicts (include/uapi/linux/netfilter.h, nf_tables.h)."""
_L4PROTO = b"meta", 16
_DESTINATION_PORT = b"payload", 2, 2, 2
"""The expressions that load them: NFT_META_L4PROTO; base (the transport header), offset and length."""
_REFUSING_TARGETS = {b"REJECT", b"TARPIT", b"NFQUEUE"}
"""Targets of iptables that may refuse; its DROP is a verdict."""


class Chain(NamedTuple):
    """A chain of others."""

    family: int
    table: str
    name: str

    def __str__(self) -> str:
        return f"{FAMILIES[self.family]} {self.table} {self.name}"


class Look(NamedTuple):
    """The nf_tables rules of others, by their effect on doors."""

    wanted: tuple[Chain, ...]
    """Base chains that need our rule."""
    late: tuple[Chain, ...]
    """Base chains that can refuse what a door lets in: before our own table, or in a table with an exclusive owner."""
    refuses: bool
    """True if any chain can refuse input."""
    untracked: tuple[tuple[Chain, tuple[int, int]], ...]
    """Chains that take packets out of connection tracking, without which a door cannot be used up: each with protocol
    and port of the rule, or zeros if it is not for a single port."""
    placed: tuple[tuple[Chain, bytes], ...]
    """Our rules, each with its handle."""

    @property
    def missing(self) -> list[Chain]:
        """The chains that need our rule and do not have it."""
        there = {chain for chain, _ in self.placed}
        return [chain for chain in self.wanted if chain not in there]


class _Rule(NamedTuple):
    chain: Chain
    handle: bytes
    expressions: bytes
    userdata: bytes


def look(kernel: Kernel, label: int) -> Look:
    """Return the present rules of others, without our own table. Raises OSError."""
    owned = {
        (family, _text(found[_NAME]))
        for family, found in dump(kernel, TABLES)
        if int.from_bytes(found.get(_FLAGS, b""), "big") & _OWNED
    }
    rules = [
        _Rule(
            _chain(family, found, _RULE_TABLE, _RULE_CHAIN),
            found[_RULE_HANDLE],
            found.get(_EXPRESSIONS, b""),
            found.get(_USERDATA, b""),
        )
        for family, found in dump(kernel, RULES)
        if family in FAMILIES and _text(found[_RULE_TABLE]) != NAME
    ]
    ours = [(rule.chain, rule.handle) for rule in rules if _is_ours(rule, label)]
    handles = set(ours)
    by_chain: dict[Chain, list[_Rule]] = {}
    for rule in rules:
        if (rule.chain, rule.handle) not in handles:
            by_chain.setdefault(rule.chain, []).append(rule)
    wanted, late, refuses = [], [], False
    for family, found in dump(kernel, CHAINS):
        if family not in FAMILIES or _HOOK not in found or _text(found[_CHAIN_TABLE]) == NAME:
            continue
        chain = _chain(family, found, _CHAIN_TABLE, _CHAIN_NAME)
        hook = dict(attributes(found[_HOOK]))
        number = int.from_bytes(hook[_HOOK_NUMBER], "big")
        (priority,) = struct.unpack("!i", hook[_HOOK_PRIORITY])
        if number not in (_PREROUTING, _INPUT) or _text(found.get(_TYPE, b"filter")) != "filter":
            continue
        can_refuse = found.get(_POLICY) == bytes(4) or _refuses(chain, by_chain)
        refuses = refuses or can_refuse
        if (number == _PREROUTING and (not can_refuse or priority <= PRIORITY)) or (family, chain.table) in owned:
            late += [chain] if can_refuse else []
        else:
            wanted.append(chain)
    untracked = tuple(sorted({(rule.chain, _port(rule.expressions)) for rule in rules if _untracks(rule.expressions)}))
    return Look(tuple(wanted), tuple(late), refuses, untracked, tuple(ours))


def place(kernel: Kernel, label: int, chain: Chain) -> str:
    """Put our rule at the head of a chain. Return "", or the chain and the reason why it takes none."""
    forms = [_native(label)]
    if chain.family in (IP, IP6) and chain.table in IPTABLES and chain.name in ("INPUT", "PREROUTING"):
        # The form of iptables itself, so that it can still list its table.
        forms.insert(0, _as_iptables(label))
    problem = ""
    for expressions, userdata in forms:
        body = text(_RULE_TABLE, chain.table) + text(_RULE_CHAIN, chain.name)
        body += attribute(_EXPRESSIONS | NESTED, expressions) + (attribute(_USERDATA, userdata) if userdata else b"")
        try:
            kernel.change((NEW_RULE, CREATE, chain.family, body))
            return ""
        except OSError as error:
            problem = f"{chain}, which takes no rule of ours ({error.strerror}),"
    return problem


def remove(kernel: Kernel, label: int) -> None:
    """Delete our rules from chains of others. Raises OSError."""
    for chain, handle in look(kernel, label).placed:
        body = text(_RULE_TABLE, chain.table) + text(_RULE_CHAIN, chain.name) + attribute(_RULE_HANDLE, handle)
        try:
            kernel.change((DELETE_RULE, 0, chain.family, body))
        except FileNotFoundError:
            continue  # others deleted it, or its chain, meanwhile


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")


def _chain(family: int, found: dict[int, bytes], table: int, name: int) -> Chain:
    return Chain(family, _text(found[table]), _text(found[name]))


def _refuses(chain: Chain, rules: dict[Chain, list[_Rule]]) -> bool:
    """Return True if a rule that can be reached from a chain may refuse; a lookup of verdicts may."""
    reached, todo = {chain}, [chain]
    while todo:
        one = todo.pop()
        for rule in rules.get(one, ()):
            for name, data in _expressions(rule.expressions):
                code, target = _verdict(name, data)
                if code in (_DROP, _QUEUE):
                    return True
                next_chain = Chain(one.family, one.table, target)
                if target and next_chain not in reached:
                    reached.add(next_chain)
                    todo.append(next_chain)
    return False


def _expressions(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return name and attributes of each expression of a rule."""
    found = [dict(attributes(one)) for _, one in attributes(data)]
    return [(one[_EXPRESSION_NAME].rstrip(b"\0"), one.get(_EXPRESSION_DATA, b"")) for one in found]


def _untracks(expressions: bytes) -> bool:
    """Return True if a rule takes packets out of connection tracking: notrack of nft, or CT --notrack of iptables."""
    for name, data in _expressions(expressions):
        found = dict(attributes(data))
        if name == b"notrack" or (name == b"target" and found[1].rstrip(b"\0") == b"CT" and _no_track(found[3])):
            return True
    return False


def _no_track(info: bytes) -> bool:
    (flags,) = struct.unpack_from("=H", info)  # struct xt_ct_target_info
    return bool(flags & 1)  # XT_CT_NOTRACK


def _port(expressions: bytes) -> tuple[int, int]:
    """Return protocol and destination port that a rule matches, zeros if it does not match a single port."""
    asked: dict[tuple[bytes | int, ...], int] = {_L4PROTO: 0, _DESTINATION_PORT: 0}
    loaded: tuple[bytes | int, ...] = ()
    for name, data in _expressions(expressions):
        found = dict(attributes(data))
        if name == b"cmp" and loaded in asked and found[2] == bytes(4):  # NFTA_CMP_OP: NFT_CMP_EQ
            asked[loaded] = int.from_bytes(dict(attributes(found[3]))[1], "big")
        loaded = name, *(int.from_bytes(found[kind], "big") for kind in (2, 3, 4) if kind in found and name != b"cmp")
    protocol, port = asked.values()
    return (protocol, port) if protocol and port else (0, 0)


def _verdict(name: bytes, data: bytes) -> tuple[int | None, str]:
    """Return an expression's verdict code and target chain; anything that may refuse is a drop."""
    if name in (b"reject", b"queue", b"synproxy"):
        return _DROP, ""
    found = dict(attributes(data))
    if name == b"target":
        return (_DROP if found.get(1, b"").rstrip(b"\0") in _REFUSING_TARGETS else None), ""
    if name == b"lookup":
        return (_DROP if found.get(3) == bytes(4) else None), ""  # NFTA_LOOKUP_DREG: the verdict's register
    if name != b"immediate" or found.get(1) != bytes(4):  # NFTA_IMMEDIATE_DREG: likewise
        return None, ""
    verdict = dict(attributes(dict(attributes(found.get(2, b""))).get(2, b"")))
    code = int.from_bytes(verdict.get(1, b""), "big", signed=True)
    return code, _text(verdict[2]) if code in (_JUMP, _GOTO) and 2 in verdict else ""


def _bit(label: int) -> bytes:
    """Return the 128 conntrack labels with one of them set: an array of unsigned long in the kernel."""
    words = [0, 0]
    words[label // 64] = 1 << label % 64
    return struct.pack("=2Q", *words)


def _one(name: str, data: bytes) -> bytes:
    return attribute(1 | NESTED, text(_EXPRESSION_NAME, name) + attribute(_EXPRESSION_DATA | NESTED, data))


def _value(kind: int, data: bytes) -> bytes:
    return attribute(kind, attribute(1, data))


_ACCEPT = _one("immediate", word(1, 0) + attribute(2, attribute(2, word(1, 1))))


def _native(label: int) -> tuple[bytes, bytes]:
    """Return expressions and userdata of our rule as nft makes it: ct label LABEL accept comment "knockknock"."""
    load = _one("ct", word(1, 1) + word(2, 13))  # NFT_REG_1, NFT_CT_LABELS
    mask = word(1, 1) + word(2, 1) + word(3, 16) + word(6, 0) + _value(4, _bit(label)) + _value(5, bytes(16))
    compare = word(1, 1) + word(2, 1) + _value(3, bytes(16))  # NFT_CMP_NEQ
    comment = NAME.encode() + b"\0"
    return load + _one("bitwise", mask) + _one("cmp", compare) + _ACCEPT, bytes([0, len(comment)]) + comment


def _as_iptables(label: int) -> tuple[bytes, bytes]:
    """Return the same as iptables makes it: -m connlabel --label LABEL -m comment --comment knockknock -j ACCEPT."""
    return _labelled(label) + _one("counter", attribute(1, bytes(8)) + attribute(2, bytes(8))) + _ACCEPT, b""


def _labelled(label: int) -> bytes:
    connlabel = text(1, "connlabel") + word(2, 0) + attribute(3, struct.pack("=HHxxxx", label, 0))
    return _one("match", connlabel) + _one(
        "match", text(1, "comment") + word(2, 0) + attribute(3, NAME.encode().ljust(256, b"\0"))
    )


def _is_ours(rule: _Rule, label: int) -> bool:
    """Return True if a rule is ours, by all that it does and not by its comment alone."""
    if b"connlabel" not in rule.expressions and b"ct" not in rule.expressions:
        return False
    found = _compared(rule.expressions)
    return any(
        found == _compared(expressions) and userdata == rule.userdata
        for expressions, userdata in (_native(label), _as_iptables(label))
    )


def _compared(expressions: bytes) -> list[tuple[bytes, object]]:
    """Return a rule's expressions for comparison: without counts, order and flags of attributes."""
    return [(name, name == b"counter" or sorted(attributes(data))) for name, data in _expressions(expressions)]
