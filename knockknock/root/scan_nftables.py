"""The scan guard in an nftables table of its own (root.scan says how it counts)."""

import ipaddress
from typing import Any

from . import MARK, MASK, NAME, SET_SIZE
from .nftables import Library, our_table, told
from .policy import Scan
from .scan import SEEN, Address, Blocked, Counts, Spared, of_family

TABLE = f"{NAME}_scan"
PRIORITY, FIRST = -9, -11
"""Of the chain: behind our own, which hears knocks and marks what a door lets in; or before it, to drop all.

Either is before the chains that filter (nftables.PRIORITY).
"""
TAKE = ("add", "delete")
"""To delete what is not there would be an error."""


def table(scan: Scan, nflog_group: int) -> str:
    """The table, in the words of nft; nflog_group: 0 for the kernel's log."""
    mask = ipaddress.IPv6Address((1 << 128) - (1 << 128 - scan.prefix))
    tell = told(nflog_group) if scan.by_daemon else ""
    sources = {4: "ip saddr", 6: f"ip6 saddr & {mask}"}
    spare = f"ct state established,related accept\n ct mark & {MASK:#010x} == {MARK:#010x} accept"
    return f"""
table inet {TABLE} {{
    comment "scan guard of the knockknock daemon"
    counter packets_seen {{ }}
    counter connections_new {{ }}
    counter packets_dropped {{ }}
    set spared {{ type inet_service; flags interval; auto-merge; }}
    {"".join(_of_family(scan, family, source, tell) for family, source in sources.items())}
    chain closed {{
        tcp dport @spared accept
        socket transparent {{ 0, 1 }} accept
        {"".join(_first(family, source) for family, source in sources.items())}
    }}
    chain input {{
        type filter hook input priority {FIRST if scan.everything else PRIORITY}; policy accept;
        meta iiftype loopback accept
        ct state untracked accept
        counter name packets_seen
        ct state new counter name connections_new
        {"" if scan.everything else spare}
        ip6 saddr fe80::/10 accept
        ip saddr @allowed4 accept
        ip6 saddr @allowed6 accept
        {sources[4]} @blocked4 counter name packets_dropped drop
        {sources[6]} @blocked6 counter name packets_dropped drop
        tcp flags & (fin|syn|rst|ack) == syn ct state new jump closed
    }}
}}
"""


def _first(family: int, source: str) -> str:
    """The rule for a port that a source has not tried before; it ends where the set is full."""
    return f"{source} . tcp dport != @seen{family} add @seen{family} {{ {source} . tcp dport }} goto climb{family}\n"


def _of_family(scan: Scan, family: int, source: str, tell: str) -> str:
    """The sets of a family, and the chain that takes a source one rung up, or shuts it out; tell: or has this done."""
    address = f"ipv{family}_addr"
    sized = f"size {SET_SIZE}; flags dynamic, timeout"
    rungs = [f"rung{number}_{family}" for number in range(1, scan.ports + 1) if not tell]
    block = f" timeout {scan.block}s" if scan.block else ""
    lines = [
        f"set allowed{family} {{ type {address}; flags interval; auto-merge; }}",
        f"set blocked{family} {{ type {address}; {sized}; }}",
        f"set seen{family} {{ type {address} . inet_service; size {SEEN}; flags dynamic, timeout; "
        f"timeout {scan.seconds}s; }}",
        *(f"set {rung} {{ type {address}; {sized}; timeout {scan.seconds}s; }}" for rung in rungs),
        f"chain climb{family} {{",
    ]
    for rung in rungs:
        # The second rule is for a set that is full: whoever finds no room is not counted.
        lines += [f"{source} != @{rung} add @{rung} {{ {source} }} accept", f"{source} != @{rung} accept"]
    lines += [tell or f"add @blocked{family} {{ {source}{block} }} counter name packets_dropped drop", "}", ""]
    return "\n".join(lines)


class Guard:
    """The kernel's nftables."""

    def __init__(self, scan: Scan | None, nflog_group: int = 0) -> None:
        """nflog_group: 0 for the kernel's log."""
        self._library, self._scan, self._nflog_group = Library(), scan, nflog_group
        self._placed: list[Any] = []
        """Our table as the kernel lists it when it is whole."""

    def prepare(self) -> None:
        self._library.run("\n".join([*self._taken_away(), table(self._scan, self._nflog_group) if self._scan else ""]))
        self._placed = our_table(self._library.rules(), TABLE)

    def _taken_away(self) -> list[str]:
        return [f"delete table inet {TABLE}"] if self.there() else []

    def there(self) -> bool:
        return any(item.get("table", {}).get("name") == TABLE for item in self._library.rules())

    def heal(self, moved: bool) -> bool:
        if our_table(self._library.rules(), TABLE) == self._placed:
            return False
        self.prepare()
        return True

    def spare(self, spared: Spared) -> None:
        if self._scan is None:
            return
        wanted = {
            "spared": [f"{first}-{last}" if first < last else f"{first}" for first, last in spared.ports],
            "allowed4": of_family(spared.networks, 4),
            "allowed6": of_family(spared.networks, 6),
        }
        commands = [f"flush set inet {TABLE} {name}" for name in wanted]
        for name, elements in wanted.items():
            if elements:
                commands.append(f"add element inet {TABLE} {name} {{ {', '.join(elements)} }}")
        self._library.run("\n".join(commands))

    def blocked(self) -> list[Blocked]:
        return [
            Blocked(ipaddress.ip_address(element["val"]), element.get("expires"))
            for family in (4, 6)
            for element in self._library.elements(f"blocked{family}", TABLE)
        ]

    def counts(self) -> Counts:
        listed = [item["counter"] for item in self._library.rules() if item.get("counter", {}).get("table") == TABLE]
        packets = {counter["name"]: counter["packets"] for counter in listed}
        return Counts(packets["packets_seen"], packets["connections_new"], packets["packets_dropped"])

    def block(self, source: Address) -> None:
        if self._scan is None:
            return
        name = f"blocked{source.version}"
        bits = self._scan.prefix if source.version == 6 else 32
        first = ipaddress.ip_network((source, bits), strict=False).network_address
        time = f" timeout {self._scan.block}s" if self._scan.block else ""
        commands = [
            f"add element inet {TABLE} {name} {{ {first} }}",
            f"delete element inet {TABLE} {name} {{ {first} }}",
        ]
        self._library.run("\n".join([*commands, f"add element inet {TABLE} {name} {{ {first}{time} }}"]))

    def unblock(self, source: Address) -> None:
        sets = [item["set"]["name"] for item in self._library.rules() if item.get("set", {}).get("table") == TABLE]
        kinds = [name for name in sets if name.startswith(("blocked", "rung")) and name.endswith(str(source.version))]
        commands = [f"{command} element inet {TABLE} {name} {{ {source} }}" for name in kinds for command in TAKE]
        self._library.run("\n".join(commands))

    def remove(self) -> None:
        self._library.run("\n".join(self._taken_away()))
