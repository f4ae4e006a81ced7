"""Doors as elements of nftables sets.

Everything lives in a table of our own. It marks the connection that a door lets in; in every chain that filters input,
one rule accepts what bears the mark, because to accept in one base chain does not undo a drop in another.
"""

import ctypes
import ipaddress
import json
from collections.abc import Collection
from typing import Any

from ..errors import FirewallError
from ..grant import MOST_SECONDS, Grant, Order
from . import BURST, COPY, MARK, MASK, NAME, PER_SOURCE, PREFIX, SET_SIZE, elements

PRIORITY = -10
"""Of our base chain: before the chains that filter, which are at 0 (filter) or, firewalld's, at 10."""

_MARKED = f"ct mark & {MASK:#010x} == {MARK:#010x}"

_DOOR4, _DOOR6 = "ip saddr . meta l4proto . th dport", "ip6 saddr . meta l4proto . th dport"
_RATE = f"limit rate over {PER_SOURCE}/second burst {BURST} packets"

_TABLE = f"""
table inet {NAME} {{
    comment "doors of the knockknock daemon"
    set knock_ports {{ type inet_proto . inet_service; size {SET_SIZE}; }}
    set any_flags {{ type inet_service; size {SET_SIZE}; }}
    set once4 {{ type ipv4_addr . inet_proto . inet_service; size {SET_SIZE}; flags dynamic, timeout; }}
    set once6 {{ type ipv6_addr . inet_proto . inet_service; size {SET_SIZE}; flags dynamic, timeout; }}
    set open4 {{ type ipv4_addr . inet_proto . inet_service; size {SET_SIZE}; flags timeout; }}
    set open6 {{ type ipv6_addr . inet_proto . inet_service; size {SET_SIZE}; flags timeout; }}
    set rate4 {{ type ipv4_addr; size {SET_SIZE}; flags dynamic, timeout; timeout {BURST // PER_SOURCE}s; }}
    set rate6 {{ type ipv6_addr; size {SET_SIZE}; flags dynamic, timeout; timeout {BURST // PER_SOURCE}s; }}
    counter told {{ }}
    chain knock {{
        update @rate4 {{ ip saddr {_RATE} }} return
        update @rate6 {{ ip6 saddr & ffff:ffff:ffff:ffff:: {_RATE} }} return
        counter name told $TOLD
    }}
    chain let_in {{
        ct mark set ct mark & {MASK ^ 0xFFFFFFFF:#010x} | {MARK:#010x} accept
    }}
    chain input {{
        type filter hook input priority {PRIORITY}; policy accept;
        {_MARKED} accept
        tcp flags & (fin|syn|rst|ack) == syn meta l4proto . th dport @knock_ports jump knock
        meta l4proto udp ct state != established meta l4proto . th dport @knock_ports jump knock
        tcp dport @any_flags tcp flags & (fin|syn|rst|ack) != syn ct state != established jump knock
        ct state new {_DOOR4} @once4 delete @once4 {{ {_DOOR4} }} goto let_in
        ct state new {_DOOR6} @once6 delete @once6 {{ {_DOOR6} }} goto let_in
        ct state new {_DOOR4} @open4 goto let_in
        ct state new {_DOOR6} @open6 goto let_in
    }}
}}
"""


class Library:
    """libnftables, which the nft command itself is made of. Raises FirewallError if it is not installed."""

    _JSON, _NUMBERS, _TERSE = 1 << 4, 1 << 7, 1 << 11
    """NFT_CTX_OUTPUT_JSON, _NUMERIC_PROTO and _TERSE (libnftables(3))."""

    def __init__(self) -> None:
        try:
            lib = ctypes.CDLL("libnftables.so.1")
        except OSError:
            raise FirewallError(
                "libnftables is not installed: apt install nftables, or set firewall = iptables"
            ) from None
        lib.nft_ctx_new.restype = ctypes.c_void_p
        for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
            getattr(lib, name).restype = ctypes.c_char_p
        self._lib = lib
        self._context = ctypes.c_void_p(lib.nft_ctx_new(0))
        lib.nft_ctx_buffer_output(self._context)
        lib.nft_ctx_buffer_error(self._context)

    def run(self, commands: str) -> str:
        """Carry out commands as one transaction; what they print. Raises FirewallError with nothing changed."""
        failed = self._lib.nft_run_cmd_from_buffer(self._context, commands.encode())
        output: bytes = self._lib.nft_ctx_get_output_buffer(self._context)
        error: bytes = self._lib.nft_ctx_get_error_buffer(self._context)
        if failed:
            raise FirewallError(f"nftables refused: {error.decode(errors='replace').strip().partition(chr(10))[0]}")
        return output.decode()

    def rules(self) -> list[dict[str, Any]]:
        """The ruleset as libnftables-json(5) has it, without elements of sets, of which others may have millions."""
        return self._listed("list ruleset", self._JSON | self._TERSE)

    def elements(self, name: str, table: str = NAME) -> list[dict[str, Any]]:
        """The elements of a set of ours that has timeouts, with what is left of them."""
        listed = self._listed(f"list set inet {table} {name}", self._JSON | self._NUMBERS)
        found = [item for one in listed for item in one.get("set", {}).get("elem", ())]
        return [item["elem"] if isinstance(item, dict) and "elem" in item else {"val": item} for item in found]

    def _listed(self, command: str, flags: int) -> list[dict[str, Any]]:
        self._lib.nft_ctx_output_set_flags(self._context, flags)
        try:
            return [dict(item) for item in json.loads(self.run(command) or '{"nftables": []}')["nftables"]]
        finally:
            self._lib.nft_ctx_output_set_flags(self._context, 0)


def our_table(rules: list[dict[str, Any]], name: str = NAME) -> list[Any]:
    """What a ruleset holds of a table of ours, in a form that can be compared: without handles, elements and counts."""
    inside = [(kind, value) for item in rules for kind, value in item.items() if value.get("table") == name]
    varies = ("handle", "elem", "packets", "bytes")
    return [(kind, {key: value[key] for key in value if key not in varies}) for kind, value in inside]


def find_ours(rules: list[dict[str, Any]], table: bool = True) -> list[str]:
    """Commands that take away what we have placed, from a ruleset; table: our own table, too."""
    found = [
        f"delete rule {rule['family']} {rule['table']} {rule['chain']} handle {rule['handle']}"
        for rule in (item["rule"] for item in rules if "rule" in item)
        if rule.get("comment") == NAME and rule["table"] != NAME
    ]
    if table and any(item.get("table", {}).get("name") == NAME for item in rules):
        found.append(f"delete table inet {NAME}")
    return found


def told(nflog_group: int) -> str:
    """The statement by which the daemon hears of a packet; nflog_group: 0 for the kernel's log."""
    to_group = f"group {nflog_group} snaplen {COPY} queue-threshold 1"
    return f'log prefix "{PREFIX}" ' + (to_group if nflog_group else "level debug flags tcp sequence,options")


def table(nflog_group: int) -> str:
    """Our table, in the words of nft; nflog_group: 0 for the kernel's log."""
    return _TABLE.replace("$TOLD", told(nflog_group))


class Firewall:
    """The kernel's nftables."""

    def __init__(self, chains: Collection[tuple[str, str, str]], nflog_group: int) -> None:
        """chains: family, table and chain of each that filters input. nflog_group: 0 for the kernel's log."""
        self._library, self._elements = Library(), elements.Elements()
        self._chains = chains
        self._table = table(nflog_group)
        self._ports: Collection[tuple[int, int]] = ()
        self._any_flags: Collection[int] = ()
        self._placed: list[Any] = []
        """Our table as the kernel lists it when it is whole."""

    def prepare(self) -> None:
        self._library.run("\n".join([*find_ours(self._library.rules()), self._table, *self._accept()]))
        self._placed = our_table(self._library.rules())

    def _accept(self) -> list[str]:
        return [
            f'insert rule {family} {table} {chain} {_MARKED} accept comment "{NAME}"'
            for family, table, chain in self._chains
        ]

    def heal(self, chains: Collection[tuple[str, str, str]]) -> str:
        rules = self._library.rules()
        self._chains = chains
        if our_table(rules) != self._placed or not self._placed:
            self.prepare()
            self.watch(self._ports, self._any_flags)
            return "somebody took our rules out of the firewall: placed again, doors that were open are lost"
        accepting = [item["rule"] for item in rules if "rule" in item and item["rule"].get("comment") == NAME]
        if sorted((rule["family"], rule["table"], rule["chain"]) for rule in accepting) == sorted(chains):
            return ""
        self._library.run("\n".join([*find_ours(rules, table=False), *self._accept()]))
        return "the firewall's chains were changed: our rule placed again in each that filters input"

    def watch(self, ports: Collection[tuple[int, int]], any_flags: Collection[int]) -> None:
        self._ports, self._any_flags = ports, any_flags
        commands = []
        for name, held in (
            ("knock_ports", [f"{protocol} . {port}" for protocol, port in ports]),
            ("any_flags", [str(port) for port in any_flags]),
        ):
            commands.append(f"flush set inet {NAME} {name}")
            if held:
                commands.append(f"add element inet {NAME} {name} {{ {', '.join(held)} }}")
        self._library.run("\n".join(commands))

    def open(self, grant: Grant) -> None:
        name = ("once" if grant.order is Order.OPEN_ONCE else "open") + _family(grant)
        add, delete = elements.add, elements.delete
        # Where it is already, its time begins anew only if it is taken out first.
        self._change(add(name, grant), delete(name, grant), add(name, grant, grant.seconds))

    def close(self, grant: Grant) -> None:
        names = [name + _family(grant) for name in ("once", "open")]
        self._change(*[change(name, grant) for name in names for change in (elements.add, elements.delete)])

    def _change(self, *changes: elements.Change) -> None:
        """All in one transaction, of which none is refused: the kernel takes 14 milliseconds to undo one."""
        try:
            try:
                self._elements.change(*changes)
            except FileNotFoundError:  # a connection has used up what was there, right now
                self._elements.change(*changes)
        except OSError as error:
            raise FirewallError(f"nftables refused: {error.strerror or error}") from None

    def status(self) -> list[Grant]:
        doors = []
        for order, name in ((Order.OPEN_ONCE, "once"), (Order.OPEN, "open")):
            for element in [one for family in (4, 6) for one in self._library.elements(f"{name}{family}")]:
                host, protocol, port = element["val"]["concat"]
                # Listed in whole seconds, rounded down; what somebody else has put in may have no end, or any other.
                left = min(element["expires"] + 1, element["timeout"], MOST_SECONDS) if "expires" in element else 0
                doors.append(Grant(order, ipaddress.ip_address(host).packed, protocol, port, left))
        return doors

    def logged(self) -> int:
        try:
            return self._elements.packets(NAME, "told")
        except OSError as error:
            raise FirewallError(f"nftables does not tell what was logged: {error.strerror or error}") from None

    def remove(self) -> None:
        if commands := find_ours(self._library.rules()):
            self._library.run("\n".join(commands))


def _family(grant: Grant) -> str:
    return "4" if len(grant.address) == 4 else "6"
