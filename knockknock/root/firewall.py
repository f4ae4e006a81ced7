"""Installs, repairs and removes our table and the accept rules; called by the set-up."""

import contextlib
import hashlib
import ipaddress
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..errors import FirewallError
from . import NAME, accept_rule, iptables_legacy, libnftables, namespace_lock, ruleset
from .listing import CHAINS, RULES, SETS, TABLES, connect, dump, generation
from .netlink import INET, Kernel, text
from .policy import Policy

Run = tuple[int, int, int]
"""Protocol number, first port, last port."""
_TABLE = 1
"""NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE, NFTA_SET_TABLE."""
_LASTING = {TABLES: (2, 4), CHAINS: (3, 4, 5, 7), RULES: (2, 4, 7), SETS: (2,)}
"""NFTA_TABLE_FLAGS, _HANDLE; NFTA_CHAIN_NAME, _HOOK, _POLICY, _TYPE; NFTA_RULE_CHAIN, _EXPRESSIONS, _USERDATA;
NFTA_SET_NAME: attributes that stay while our table is whole. Flags can switch it off; the handle shows that it was
restored, with old elements."""
_ESTABLISHED = "01"
"""TCP_ESTABLISHED, as /proc/net/tcp has it (include/net/tcp_states.h)."""


class Survey(NamedTuple):
    """The rules of others, nf_tables and legacy iptables, by their effect on doors."""

    nft: accept_rule.Look
    iptables: tuple[iptables_legacy.Look, ...]

    @property
    def refuses(self) -> bool:
        """True if anything can refuse input."""
        return self.nft.refuses or any(one.refuses for one in self.iptables)

    def text(self, limits: Policy) -> str:
        """Return a summary for the administrator, in a sentence."""
        into = [*map(str, self.nft.wanted), *(str(one.table) for one in self.iptables if not one.problem)]
        said = [f"doors are in the table inet {NAME}" + (f", and accepted in {', '.join(into)}" if into else "")]
        if limits.protect:
            said.append("it refuses " + ", ".join(map(_ports, limits.protect)))
            said += [shut] if (shut := shut_for_all(limits)) else []
            if not self.refuses and (bare := sorted(set(map(_ports, _without(_doors(limits), limits.protect))))):
                said.append(f"no other chain refuses input, so {', '.join(bare)} is open already: name it in protect =")
        elif not self.refuses:
            said.append(POINTLESS)
        said += [f"{chain} may refuse what a door lets in: allow the ports there, too" for chain in self.nft.late]
        said += [f"{one.table} may refuse what a door lets in: {one.problem}" for one in self.iptables if one.problem]
        said += [
            f"{chain} takes packets out of connection tracking: a door cannot let those in"
            for chain in sorted({chain for chain, _ in self.nft.untracked})
        ]
        return "; ".join(said)


_TRIES = 5
"""The most attempts to change our table while others change rules."""
GATE = os.environ.get("KNOCKKNOCK_GATE", "/var/lib/knockknock.gate")
"""The file with the gate for the next boot, the same for all state directories: knockknock-gate.service loads it."""
_GONE = f"add table inet {NAME}\ndelete table inet {NAME}\n"
"""Commands that delete our table; they add it first, because deleting a missing table is an error."""
POINTLESS = (
    "no chain refuses input, so every port is open already and knocking is pointless: "
    "set protect =, or see minimal-firewall.sh"
)


def _ports(run: tuple[int, int, int]) -> str:
    protocol, first, last = run
    return f"{ruleset.NAMES[protocol]}/{ruleset.ports(first, last)}"


def _doors(limits: Policy) -> list[Run]:
    return [*limits.doors, *(timed[:3] for timed in limits.timed)]


def shut_for_all(limits: Policy) -> str:
    """Return a sentence on the protected ports that no profile may open, "" if there are none."""
    runs = [] if limits.protect_allow else list(map(_ports, _without(limits.protect, _doors(limits))))
    return f"no profile may open any of {', '.join(runs)}: nobody can log in there anew" if runs else ""


def _without(runs: Iterable[Run], others: Iterable[Run]) -> list[Run]:
    """Return the parts of runs of ports that are in none of the others."""
    left = list(runs)
    for protocol, first, last in others:
        left = [
            (one, begin, end)
            for one, low, high in left
            for begin, end in (
                ((low, min(high, first - 1)), (max(low, last + 1), high)) if one == protocol else ((low, high),)
            )
            if begin <= end
        ]
    return left


def survey(kernel: Kernel, label: int) -> Survey:
    """Return the rules of others by their effect on doors, and change nothing. Raises FirewallError."""
    with _refused():
        return Survey(accept_rule.look(kernel, label), tuple(iptables_legacy.look(label)))


@contextlib.contextmanager
def _refused() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FirewallError(f"nftables refused: {error.strerror or error}") from None


class Firewall:
    """Our table, and our rules in tables of others. All methods raise FirewallError."""

    def __init__(self, policy: Policy, digest: str = "") -> None:
        """digest: of our table when it is whole; "": not known."""
        self._kernel, self.policy, self.digest = connect(), policy, digest
        self.late: list[str] = []
        """Chains that may refuse what a door lets in, by the last look: "any" or protocol/port, and a text."""
        self.anew = False
        """True if our sets were emptied, so that the daemon must list the expected values again."""

    def prepare(self, healing: bool = False) -> Survey:
        """Place or replace our table, and add missing accept rules. Return the survey.

        nftables before 1.0.6 takes no sets of expected values: unless `healing`, they are left out, and
        expected_size is 0.
        """
        try:
            self._place()
        except FirewallError:
            if healing or not self.policy.expected_size:
                raise
            self.policy = self.policy._replace(expected_size=0)
            self._place()
        _save_gate(self.policy)
        return self._accept()[0]

    def _place(self) -> None:
        self.anew = True
        self._learn(_GONE + ruleset.table(self.policy, _established(self.policy)))

    def _learn(self, commands: str) -> None:
        """Change our table and take its digest; repeat if others change rules or elements in between."""
        self.digest = ""
        for _ in range(_TRIES):
            with _refused():
                before = generation(self._kernel)
                libnftables.run(commands)
                listed = self._listed()
                if generation(self._kernel) == before + 1:
                    self.digest = listed
                    return

    def _accept(self) -> tuple[Survey, int]:
        """Place our rule where it is missing. Return the survey, and the number of rules placed."""
        found, label, placed = survey(self._kernel, self.policy.label), self.policy.label, 0
        self.late = [f"any {chain}" for chain in found.nft.late]
        for chain in found.nft.missing:
            if problem := accept_rule.place(self._kernel, label, chain):
                self.late.append(f"any {problem}")
            else:
                placed += 1
        self.late += [
            f"{protocol}/{port} {chain}, which takes such packets out of connection tracking,"
            for chain, (protocol, port) in found.nft.untracked
        ]
        tables = [one if one.placed or one.problem else _placed(one, label) for one in found.iptables]
        placed += sum(one.placed for one in tables) - sum(one.placed for one in found.iptables)
        self.late += [f"any {one.table}" for one in tables if one.problem]
        return found._replace(iptables=tuple(tables)), placed

    def heal(self, everything: bool) -> str:
        """Restore what others removed. Return a sentence on what was done or is out of reach, "" if there is nothing.

        everything: check chains of others as well, if our own table is whole.
        """
        if not (listed := self._listed()) or self.digest not in ("", listed):
            found = self.prepare(healing=True)
            said = "somebody took our rules out of the firewall: placed again, doors that were open are lost"
        else:
            if not self.digest:
                self.follow(self.policy)
            if not everything:
                return ""
            found, placed = self._accept()
            said = (
                "the firewall's chains were changed: our rule placed again in each that filters input" if placed else ""
            )
        if unreached := [f"{one.table} ({one.problem})" for one in found.iptables if one.problem and not one.early]:
            said += f"{'; ' if said else ''}{', '.join(unreached)} may refuse what a door lets in: restart the daemon"
        elif said and not found.refuses and not self.policy.protect:
            said += "; no chain refuses input now, so every port is open: looked at again when the rules change"
        return said

    def _listed(self) -> str:
        """Return the digest of our table, its chains, rules and sets, without elements and counts; "": no table."""
        listed: list[object] = []
        with _refused(), contextlib.suppress(FileNotFoundError):
            for kind, lasting in _LASTING.items():
                for _, found in dump(self._kernel, kind, INET, text(_TABLE, NAME)):
                    if found[_TABLE] == NAME.encode() + b"\0":
                        listed.append([found.get(one) for one in lasting])
        return hashlib.sha256(repr(listed).encode()).hexdigest() if listed else ""

    def follow(self, fresh: Policy) -> None:
        """Put another policy in force: the gate, the elements of our sets, the limits. The rest takes a restart."""
        old, scan, self.anew = self.policy, self.policy.scan, True
        if scan and fresh.scan:
            scan = scan._replace(allow=fresh.scan.allow, public=fresh.scan.public)
        same = fresh._replace(state=old.state, label=old.label, trial=old.trial, nflog_group=old.nflog_group, scan=scan)
        same = same._replace(expected_size=old.expected_size)
        commands = [f"flush chain inet {NAME} gate"]
        commands += [f"add rule inet {NAME} gate {rule}" for rule in ruleset.protected(same)]
        for name, held in ruleset.elements(same).items():
            commands.append(f"flush set inet {NAME} {name}")
            if held:
                commands.append(f"add element inet {NAME} {name} {{ {held} }}")
        for family, kept in _established(same).items():
            if kept:
                commands.append(f"add element inet {NAME} kept{family} {{ {', '.join(kept)} }}")
        self._learn("\n".join(commands))
        self.policy = same
        _save_gate(same)

    def remove(self) -> None:
        """Remove all that was placed, but keep the gate of protected ports, unless it is on trial: see open_gate().

        Each step is tried, even if another one fails.
        """
        with contextlib.ExitStack() as steps:
            steps.callback(self._remove_table)
            steps.callback(self._remove_accept_rules)
            for one in iptables_legacy.look(self.policy.label):
                if one.placed:
                    steps.callback(iptables_legacy.remove, one.table, self.policy.label)

    def _remove_accept_rules(self) -> None:
        with _refused():
            accept_rule.remove(self._kernel, self.policy.label)

    def _remove_table(self) -> None:
        stays = self.policy.protect and not self.policy.trial
        libnftables.run(_GONE + (ruleset.gate(self.policy, _established(self.policy)) if stays else ""))


def _placed(one: iptables_legacy.Look, label: int) -> iptables_legacy.Look:
    """Place our rule in a legacy table. Return the table's new state, with the problem if it takes none."""
    try:
        iptables_legacy.place(one.table, label)
    except FirewallError as error:
        return one._replace(refuses=True, problem=str(error))
    return one._replace(placed=True)


def open_gate(state: str, label: int) -> None:
    """Remove the gate that a daemon left, and the file that restores it at the next boot. Raises FirewallError.

    state, label: of the daemon.
    """
    policy = Policy((), (), 0, os.path.realpath(state), label)
    with namespace_lock.held(policy.state):
        Firewall(policy).remove()
        _save_gate(policy)


def _save_gate(limits: Policy) -> None:
    """Write the gate's file for the next boot, or delete it if no port is protected. Raises FirewallError."""
    if limits.trial:
        return
    path = GATE
    try:
        if not limits.protect:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
        with tempfile.NamedTemporaryFile("w", dir=os.path.dirname(path), delete=False) as file:
            try:
                file.write(_GONE + ruleset.gate(limits, {}))
                file.flush()
                os.fsync(file.fileno())
                os.replace(file.name, path)
            except OSError:
                os.unlink(file.name)
                raise
        directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise FirewallError(f"{path} cannot be written, so the next boot would begin open: {error.strerror}") from None


def _established(limits: Policy) -> dict[int, list[str]]:
    """Return the established connections to protected TCP ports, as elements of the sets `kept`, by family.

    Conntrack may not know a connection that is older than the first rule that needs conntrack.
    """
    runs = [(first, last) for protocol, first, last in limits.protect if protocol == 6]
    found: dict[int, list[str]] = {4: [], 6: []}
    for name in ("tcp", "tcp6") if runs else ():
        with contextlib.suppress(OSError), open(f"/proc/net/{name}") as file:
            for words in [line.split() for line in list(file)[1:]]:
                (_, own), (address, port) = words[1].split(":"), words[2].split(":")
                if words[3] != _ESTABLISHED or not any(first <= int(own, 16) <= last for first, last in runs):
                    continue
                # 32-bit words in host byte order (net/ipv4/tcp_ipv4.c, get_tcp4_sock).
                parts = [address[at : at + 8] for at in range(0, len(address), 8)]
                ip = ipaddress.ip_address(b"".join(int(part, 16).to_bytes(4, sys.byteorder) for part in parts))
                ip = getattr(ip, "ipv4_mapped", None) or ip
                found[ip.version].append(f"{ip} . {int(port, 16)} . {int(own, 16)}")
    return found
