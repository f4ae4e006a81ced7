"""Doors as elements of ipsets, for machines whose input is filtered by iptables, of either kind.

python-iptables speaks only to the legacy tables; where iptables is the nf_tables variant its own command places the
rules, at start only, because a native rule in a table that iptables-nft owns would break `iptables -L`.
"""

import contextlib
import ipaddress
import os
import socket
from collections.abc import Collection, Iterator
from typing import Any

from pyroute2.ipset import IPSet, PortEntry
from pyroute2.netlink.exceptions import IPSetError

from ..errors import FirewallError
from ..grant import Grant, Order
from . import BURST, NAME, PER_SOURCE, SET_SIZE, ipsets
from .chains import ANY_FLAGS, CHAIN, HEAR, LET_IN, PORTS, RATE, UDP_PORTS, Rule, rules
from .commands import Placed, run

AF = {4: socket.AF_INET, 6: socket.AF_INET6}


class Command:
    """Places rules by the iptables commands. command: the name of the one for the family."""

    def __init__(self, rules: list[Rule], command: str) -> None:
        self._rules, self._command = rules, command

    def place(self) -> None:
        text = ["*filter", *(f":{name} - [0:0]" for name in (CHAIN, HEAR, LET_IN))]
        for rule in self._rules:
            words = ["-A", rule.chain] + (["-p", rule.protocol] if rule.protocol else [])
            for name, options in rule.matches:
                words += ["-m", name, *_spell(options)]
            text.append(" ".join([*words, "-j", rule.target, *_spell(rule.options)]))
        self._run([f"{self._command}-restore", "--noflush", "--wait"], "\n".join([*text, "COMMIT", ""]))
        with contextlib.suppress(FirewallError):
            self._run([self._command, "--wait", "-D", "INPUT", "-j", CHAIN])
        self._run([self._command, "--wait", "-I", "INPUT", "1", "-j", CHAIN])

    def remove(self) -> None:
        chains = (CHAIN, HEAR, LET_IN)
        for words in (
            ["-D", "INPUT", "-j", CHAIN],
            *(["-F", name] for name in chains),
            *(["-X", name] for name in chains),
        ):
            with contextlib.suppress(FirewallError):
                self._run([self._command, "--wait", *words])

    _run = staticmethod(run)


def _spell(options: dict[str, str]) -> Iterator[str]:
    for name, value in options.items():
        if name.startswith("!"):
            yield "!"
        yield f"--{name.removeprefix('!')}"
        if value:
            yield f'"{value}"' if value.endswith(" ") else value


class Library:
    """Places rules by python-iptables (the legacy variant)."""

    def __init__(self, rules: list[Rule], family: int) -> None:
        try:
            import iptc
        except ImportError:
            raise FirewallError(
                "the iptables of this machine is the legacy one, which needs python-iptables: "
                "apt install python3-iptables, or pip install it"
            ) from None
        self._rules, self._family, self._iptc = rules, family, iptc
        kind = iptc.Table if family == 4 else iptc.Table6
        # To know whether a target is a chain it looks into every table, which would make the kernel load them all.
        kind.existing_table_names = {name: name == "filter" for name in kind.ALL}
        self._table: iptc.Table = kind("filter")

    def place(self) -> None:
        with self._commit("placed"):
            self._clear()
            for name in (CHAIN, HEAR, LET_IN):
                self._table.create_chain(name)
            for rule in self._rules:
                self._iptc.Chain(self._table, rule.chain).append_rule(self._rule(rule))
            jump = Rule("INPUT", (), CHAIN, {})
            self._iptc.Chain(self._table, "INPUT").insert_rule(self._rule(jump))

    def remove(self) -> None:
        with self._commit("removed"):
            self._clear()

    @contextlib.contextmanager
    def _commit(self, what: str) -> Iterator[None]:
        """All changes at once or none; the table is read anew first."""
        try:
            self._table.autocommit = False
            self._table.refresh()
            yield
            self._table.commit()
            self._table.refresh()
        except (self._iptc.IPTCError, OSError) as error:
            raise FirewallError(f"legacy iptables rules could not be {what}: {error}") from None

    def _clear(self) -> None:
        ours = [name for name in (CHAIN, HEAR, LET_IN) if self._table.is_chain(name)]
        top = self._iptc.Chain(self._table, "INPUT")
        for rule in [rule for rule in top.rules if rule.target.name == CHAIN]:
            top.delete_rule(rule)
        for name in ours:
            self._iptc.Chain(self._table, name).flush()
        for name in ours:
            self._table.delete_chain(name)

    def _rule(self, rule: Rule) -> Any:
        made = (self._iptc.Rule if self._family == 4 else self._iptc.Rule6)()
        if rule.protocol:
            made.protocol = rule.protocol
        for name, options in rule.matches:
            match = made.create_match(name)
            for option, value in options.items():
                words = (["!"] if option.startswith("!") else []) + value.split(" ")
                match.set_parameter(option.removeprefix("!"), words if len(words) > 1 else value)
        target = made.create_target(rule.target)
        for option, value in rule.options.items():
            keep = option.endswith("log-prefix") or " " not in value
            target.set_parameter(option, value if keep else value.split(" "))
        return made


class Firewall:
    """iptables rules over ipsets."""

    def __init__(self, legacy: bool, command: str, nflog_group: int) -> None:
        """legacy: which variant filters; command: the name of its IPv4 command; nflog_group: 0 for the kernel's log."""
        self._ipset = IPSet()
        self._families = [4, 6] if os.path.exists("/proc/net/if_inet6") else [4]
        names = {4: command, 6: command.replace("iptables", "ip6tables")}
        self._names = [names[family] for family in self._families]
        self._placed = Placed(self._names, CHAIN)
        self._ports: Collection[tuple[int, int]] = ()
        self._any_flags: Collection[int] = ()
        # python-iptables 1.2 writes beyond its memory when it sets the prefix of an NFLOG target.
        library = legacy and not nflog_group
        placed = {family: rules(family, nflog_group) for family in self._families}
        self._writers = [Library(placed[f], f) if library else Command(placed[f], names[f]) for f in self._families]

    def prepare(self) -> None:
        for name in (PORTS, UDP_PORTS, ANY_FLAGS):
            self._create_ports(name)
        with ipsets.errors():
            for family in self._families:
                for name in (f"{NAME}-once{family}", f"{NAME}-open{family}"):
                    self._ipset.create(name, "hash:ip,port", AF[family], exclusive=False, timeout=1, maxelem=SET_SIZE)
                self._create_rate(family)
        for writer in self._writers:
            writer.place()
        self._placed.remember()

    def heal(self, chains: Collection[tuple[str, str, str]]) -> str:
        if self._placed.whole():
            return ""
        self.prepare()
        self.watch(self._ports, self._any_flags)
        return "somebody took our rules out of the firewall: placed again, doors that are open stay"

    def _create_ports(self, name: str) -> None:
        with ipsets.errors():
            self._ipset.create(name, "bitmap:port", socket.AF_UNSPEC, exclusive=False, bitmap_ports_range=(0, 65535))

    def _create_rate(self, family: int) -> None:
        """The set that counts packets by source.

        When rules add to it, it does not grow, and 12 fit into a place of the hash (AHASH_MAX_SIZE in
        net/netfilter/ipset/ip_set_hash_gen.h). So forged sources fill its places before they reach maxelem, at which
        the kernel would look for expired ones with each packet, for ten microseconds.
        """
        sizes = {"maxelem": SET_SIZE, "hashsize": SET_SIZE // 16}
        kind = "hash:ip" if family == 4 else "hash:net"
        self._ipset.create(
            f"{RATE}{family}", kind, AF[family], exclusive=False, counters=True, timeout=BURST // PER_SOURCE, **sizes
        )
        if family == 6:  # what a rule adds has the prefix of what is there already (ipset(8), hash:net)
            self._ipset.add(f"{RATE}6", "::/64", AF[6], etype="net", timeout=0, exclusive=False)

    def watch(self, ports: Collection[tuple[int, int]], any_flags: Collection[int]) -> None:
        self._ports, self._any_flags = ports, any_flags
        self._fill(PORTS, [port for protocol, port in ports if protocol == socket.IPPROTO_TCP])
        self._fill(UDP_PORTS, [port for protocol, port in ports if protocol == socket.IPPROTO_UDP])
        self._fill(ANY_FLAGS, any_flags)

    def _fill(self, name: str, ports: Collection[int]) -> None:
        self._create_ports(f"{PORTS}-new")
        with ipsets.errors():
            for port in ports:
                self._ipset.add(f"{PORTS}-new", port, etype="port", exclusive=False)
            self._ipset.swap(f"{PORTS}-new", name)
            self._ipset.destroy(f"{PORTS}-new")

    def open(self, grant: Grant) -> None:
        name = "once" if grant.order is Order.OPEN_ONCE else "open"
        with ipsets.errors():
            self._change(self._ipset.add, name, grant, timeout=grant.seconds)

    def close(self, grant: Grant) -> None:
        with ipsets.errors():
            for name in ("once", "open"):
                self._change(self._ipset.delete, name, grant)

    @staticmethod
    def _change(change: Any, name: str, grant: Grant, **options: int) -> None:
        family = 4 if len(grant.address) == 4 else 6
        entry = (str(ipaddress.ip_address(grant.address)), PortEntry(grant.port, protocol=grant.protocol))
        change(f"{NAME}-{name}{family}", entry, family=AF[family], etype="ip,port", exclusive=False, **options)

    def status(self) -> list[Grant]:
        return [
            door
            for order, name in ((Order.OPEN_ONCE, "once"), (Order.OPEN, "open"))
            for family in self._families
            for door in ipsets.doors(self._ipset, f"{NAME}-{name}{family}", order)
        ]

    def logged(self) -> int:
        lines = [line for name in self._names for line in run([f"{name}-save", "-c", "-t", "filter"]).splitlines()]
        ours = (f" -A {HEAR} -j LOG ", f" -A {HEAR} -j NFLOG ")
        return sum(int(line[1:].partition(":")[0]) for line in lines if any(rule in line for rule in ours))

    def remove(self) -> None:
        for writer in self._writers:
            writer.remove()
        for name in [
            PORTS,
            UDP_PORTS,
            ANY_FLAGS,
            f"{PORTS}-new",
            *(f"{NAME}-{kind}{family}" for kind in ("once", "open", "rate") for family in (4, 6)),
        ]:
            with contextlib.suppress(IPSetError):
                self._ipset.destroy(name)
