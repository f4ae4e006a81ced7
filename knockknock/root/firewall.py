"""What a daemon has in the kernel: our table, and one rule in each chain of others that a door must pass."""

import contextlib
import fcntl
import ipaddress
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

from ..errors import FirewallError
from ..grant import MOST_SECONDS, Grant, Order
from . import NAME, SLOTS, accept, legacy, nft, ruleset, scan
from .netlink import CHAINS, RULES, SETS, Change, Kernel, add, delete, door, text
from .policy import Policy

_TABLE = 1
"""NFTA_CHAIN_TABLE, NFTA_RULE_TABLE, NFTA_SET_TABLE."""
_COUNTED = (5, 6, 8)
"""NFTA_CHAIN_USE, NFTA_CHAIN_COUNTERS and what sets say of their elements: they change while all is whole."""
_ESTABLISHED = "01"
"""TCP_ESTABLISHED, as /proc/net/tcp has it (include/net/tcp_states.h)."""


class Survey(NamedTuple):
    """What others' rules are to a door."""

    nft: accept.Look
    iptables: tuple[legacy.Look, ...]

    @property
    def refuses(self) -> bool:
        """Whether anything refuses input."""
        return self.nft.refuses or any(one.refuses for one in self.iptables)

    def text(self, limits: Policy) -> str:
        """What an administrator should know of it, in a sentence."""
        into = [*map(str, self.nft.wanted), *(str(one.table) for one in self.iptables if not one.problem)]
        said = [f"doors are in the table inet {NAME}" + (f", and accepted in {', '.join(into)}" if into else "")]
        if limits.protect:
            said.append("it refuses " + ", ".join(map(_ports, limits.protect)))
            if shut := [_ports(run) for run in limits.protect if not _may_open(limits, run)]:
                said.append(f"no profile may open any of {', '.join(shut)}: nobody can log in there anew")
        elif not self.refuses:
            said.append(POINTLESS)
        said += [f"{chain} may refuse what a door lets in" for chain in self.nft.late]
        said += [f"{one.table} may refuse what a door lets in: {one.problem}" for one in self.iptables if one.problem]
        said += [
            f"{chain} takes packets out of connection tracking: a door cannot let those in"
            for chain in sorted({chain for chain, _ in self.nft.untracked})
        ]
        return "; ".join(said)


_TRIES = 5
"""Times that our table is placed anew because others change rules meanwhile."""
LOCK = "/run/knockknock"
"""Begins the name of the file that is locked by who has the table; the number of the network namespace follows."""
GATE = os.environ.get("KNOCKKNOCK_GATE", "/var/lib/knockknock.gate")
"""Where what refuses is kept for the next boot, whatever the state directory: knockknock-gate.service has it."""
_GONE = f"add table inet {NAME}\ndelete table inet {NAME}\n"
"""To delete what is not there would be an error."""
POINTLESS = (
    "no chain refuses input, so every port is open already and knocking is pointless: "
    "set protect =, or see minimal-firewall.sh"
)


def _ports(run: tuple[int, int, int]) -> str:
    protocol, first, last = run
    return f"{ruleset.NAMES[protocol]}/{first}" + (f"-{last}" if last > first else "")


def _may_open(limits: Policy, run: tuple[int, int, int]) -> bool:
    """Whether some profile may open some port of a run, or some network needs none."""
    protocol, first, last = run
    doors = [*limits.doors, *(timed[:3] for timed in limits.timed)]
    return bool(limits.protect_allow) or any(one[0] == protocol and one[1] <= last and first <= one[2] for one in doors)


def survey(kernel: Kernel, label: int) -> Survey:
    """Look at what there is, and change nothing. Raises FirewallError."""
    with _refused():
        return Survey(accept.look(kernel, label), tuple(legacy.look(label)))


@contextlib.contextmanager
def _refused() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FirewallError(f"nftables refused: {error.strerror or error}") from None


class Firewall:
    """Our table, and our rules in tables of others. All methods raise FirewallError."""

    def __init__(self, limits: Policy) -> None:
        """Nothing is placed yet."""
        self._kernel, self._limits = Kernel(), limits
        self._claim = _claim(limits.state)
        self._slot = 0
        self._placed: list[object] | None = None
        """Our table as the kernel lists it when it is whole; None: not known, so it is placed at the next look."""
        self._late: list[str] = []
        self._untracked: tuple[tuple[accept.Chain, tuple[int, int]], ...] = ()
        self._legacy: set[legacy.Table] = set()
        """Legacy tables that were there at the last look; nothing announces the first one."""

    def prepare(self) -> Survey:
        """Place our table, in the place of one that is there, and our rules where they are missing; what was found."""
        self._run(_GONE + ruleset.table(self._limits, _established(self._limits)))
        _save_gate(self._limits)
        return self._accept()[0]

    def _run(self, commands: str) -> None:
        """Change our table, and remember it as it is then; anew if somebody changes rules in between."""
        for _ in range(_TRIES):
            with _refused():
                before = self._kernel.generation()
                nft.run(commands)
                listed = self._listed()
                if self._kernel.generation() == before + 1:
                    self._placed = listed
                    return
        self._placed = None

    def _accept(self) -> tuple[Survey, int]:
        """Place our rule where it is missing; what was there before, and how many were placed."""
        found, label, placed = survey(self._kernel, self._limits.label), self._limits.label, 0
        self._late = [str(chain) for chain in found.nft.late]
        for chain in found.nft.missing:
            if problem := accept.place(self._kernel, label, chain):
                self._late.append(problem)
            else:
                placed += 1
        self._untracked = found.nft.untracked
        self._legacy = {one.table for one in found.iptables}
        tables = [one if one.placed or one.problem else _placed(one, label) for one in found.iptables]
        placed += sum(one.placed for one in tables) - sum(one.placed for one in found.iptables)
        self._late += [str(one.table) for one in tables if one.problem]
        return found._replace(iptables=tuple(tables)), placed

    def late(self, grant: Grant) -> list[str]:
        """Chains that may refuse what a door lets in, with legacy tables that came after the last look."""
        late = [*self._late, *(str(table) for table in legacy.tables() if table not in self._legacy)]
        return late + [
            f"{chain}, which takes such packets out of connection tracking,"
            for chain, port in self._untracked
            if port == (grant.protocol, grant.port)
        ]

    def heal(self) -> str:
        """Place again what somebody else took away; what was done, in a sentence, or "" if nothing was missing."""
        said = ""
        if self._listed() != self._placed:
            found, said = (
                self.prepare(),
                "somebody took our rules out of the firewall: placed again, doors that were open are lost",
            )
        else:
            found, placed = self._accept()
            if placed:
                said = "the firewall's chains were changed: our rule placed again in each that filters input"
        if unreached := [f"{one.table} ({one.problem})" for one in found.iptables if one.problem]:
            said += f"{'; ' if said else ''}{', '.join(unreached)} may refuse what a door lets in: restart the daemon"
        elif said and not found.refuses and not self._limits.protect:
            said += "; no chain refuses input now, so every port is open: looked at again when the rules change"
        return said

    def _listed(self) -> list[object]:
        """Chains, rules and sets of our table, without elements and what is counted."""
        listed: list[object] = []
        with _refused(), contextlib.suppress(FileNotFoundError):  # the whole table has gone
            for kind in (CHAINS, RULES, SETS):
                for _, found in self._kernel.dump(kind, 1, text(_TABLE, NAME)):
                    if found[_TABLE] == NAME.encode() + b"\0":
                        # Of a set what it is called says enough: some kernels tell how many elements it has.
                        listed.append(
                            found[2]
                            if kind == SETS
                            else sorted((k, v) for k, v in found.items() if kind == RULES or k not in _COUNTED)
                        )
        return listed

    def follow(self, limits: Policy) -> None:
        """Go over to what another policy says of the elements of our sets; all else takes a restart."""
        same = self._limits._replace(
            knock_ports=limits.knock_ports,
            any_flags=limits.any_flags,
            protect=limits.protect,
            protect_reject=limits.protect_reject,
            protect_allow=limits.protect_allow,
            scan=self._limits.scan
            and limits.scan
            and self._limits.scan._replace(allow=limits.scan.allow, public=limits.scan.public),
        )
        commands = [f"flush chain inet {NAME} gate"]
        commands += [f"add rule inet {NAME} gate {rule}" for rule in ruleset.protected(same)]
        for name, held in ruleset.elements(same).items():
            commands.append(f"flush set inet {NAME} {name}")
            if held:
                commands.append(f"add element inet {NAME} {name} {{ {held} }}")
        for family, kept in _established(same).items():
            if kept:
                commands.append(f"add element inet {NAME} kept{family} {{ {', '.join(kept)} }}")
        self._run("\n".join(commands))
        self._limits = same
        _save_gate(same)

    def open(self, grant: Grant) -> None:
        """Let the grant's source in: the kernel ends it after its seconds or, with OPEN_ONCE, after one connection."""
        family, key = _family(grant), door(grant)
        # Where it is already, its time begins anew only if it is taken out first. The set of all is asked first, and
        # must not end before another's door does.
        longest = max([self._limits.seconds, *(timed[3] for timed in self._limits.timed)])
        name = f"open{family}"
        if grant.order is Order.OPEN_ONCE:
            name = ruleset.slot(family, self._slot)
            self._slot = (self._slot + 1) % SLOTS
        changes = [
            change
            for one, seconds in ((f"any{family}", longest), (name, grant.seconds))
            for change in (add(one, key), delete(one, key), add(one, key, seconds))
        ]
        if policy := self._limits.scan:
            changes += scan.forgiven(policy, scan.source(grant.address, policy.prefix))
        self._change(*changes)

    def close(self, grant: Grant) -> None:
        """Take a door away; no error where there is none."""
        names = [f"open{_family(grant)}", *(ruleset.slot(_family(grant), number) for number in range(SLOTS))]
        self._change(*[change(name, door(grant)) for name in names for change in (add, delete)])

    def _change(self, *changes: Change) -> None:
        """All in one transaction, of which none is refused: the kernel takes 14 milliseconds to undo one."""
        with _refused():
            try:
                self._kernel.change(*changes)
            except FileNotFoundError:  # a connection has used up what was there, right now
                self._kernel.change(*changes)

    def block(self, grant: Grant) -> None:
        """Shut a source out, as the scan guard does."""
        host, policy = ipaddress.ip_address(grant.address), self._limits.scan
        if policy is None:
            return
        if any(host in ipaddress.ip_network(network) for network in policy.allow):
            raise FirewallError(f"{host} is never shut out, by scan_allow")
        with _refused():
            scan.block(self._kernel, policy, scan.source(grant.address, policy.prefix))

    def status(self) -> list[Grant]:
        """The doors that are open now, from the kernel, each with the seconds that are left, 0: for ever."""
        doors = []
        with _refused():
            for family, size in ((4, 4), (6, 16)):
                for name in (f"open{family}", *(ruleset.slot(family, number) for number in range(SLOTS))):
                    order = Order.OPEN if name.startswith("open") else Order.OPEN_ONCE
                    for key, seconds in self._kernel.elements(name):
                        port = int.from_bytes(key[size + 4 : size + 6], "big")
                        doors.append(Grant(order, key[:size], key[size], port, min(seconds or 0, MOST_SECONDS)))
        return doors

    def logged(self) -> int:
        """How many packets our rule has logged since it was placed."""
        try:
            return self._kernel.packets(NAME, "told")
        except OSError as error:
            raise FirewallError(f"nftables does not tell what was logged: {error.strerror or error}") from None

    def remove(self) -> None:
        """Take away all that was placed but what refuses: that stays until it is asked for in words."""
        try:
            with _refused():
                accept.remove(self._kernel, self._limits.label)
            for one in legacy.look(self._limits.label):
                if one.placed:
                    legacy.remove(one.table, self._limits.label)
            stays = self._limits.protect and not self._limits.trial
            nft.run(_GONE + (ruleset.gate(self._limits, _established(self._limits)) if stays else ""))
        finally:
            os.unlink(_lock_path())
            os.close(self._claim)


def _placed(one: legacy.Look, label: int) -> legacy.Look:
    """A legacy table after our rule was placed in it, or why it was not."""
    try:
        legacy.place(one.table, label)
    except FirewallError as error:
        return one._replace(refuses=True, problem=str(error))
    return one._replace(placed=True)


def open_gate(state: str, label: int) -> None:
    """Take away what a daemon left that refuses, and what puts it back at the next boot. Raises FirewallError.

    state, label: of the daemon.
    """
    limits = Policy((), (), 0, os.path.realpath(state), label)
    Firewall(limits).remove()
    _save_gate(limits)


def _family(grant: Grant) -> int:
    return 4 if len(grant.address) == 4 else 6


def _save_gate(limits: Policy) -> None:
    """Have the next boot begin with what refuses, or without. Raises FirewallError."""
    if limits.trial:
        return
    path = GATE
    try:
        if not limits.protect:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
        with tempfile.NamedTemporaryFile("w", dir=os.path.dirname(path), delete=False) as file:
            file.write(_GONE + ruleset.gate(limits, {}))
            file.flush()
            os.fsync(file.fileno())
        os.replace(file.name, path)
    except OSError as error:
        raise FirewallError(f"{path} cannot be written, so the next boot would begin open: {error.strerror}") from None


def _lock_path() -> str:
    return f"{LOCK}-{os.stat('/proc/self/ns/net').st_ino}.lock"


def _claim(state: str) -> int:
    """Make sure that no other daemon has the table of this network namespace, for as long as the descriptor lives.

    state: of whom we are. Raises FirewallError.
    """
    path = _lock_path()
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.exists(path) or not os.path.samestat(os.stat(path), os.fstat(fd)):
            os.close(fd)
            return _claim(state)  # who had it has just stopped
        os.ftruncate(fd, 0)
        os.pwrite(fd, state.encode(), 0)
    except BlockingIOError:
        other = os.pread(fd, 4096, 0).decode(errors="replace")
        raise FirewallError(
            f"another knockknock-daemon, with the state directory {other}, has the table inet {NAME}: stop it first"
        ) from None
    except OSError as error:
        raise FirewallError(f"{path} cannot be locked: {error.strerror}") from None
    return fd


def _established(limits: Policy) -> dict[int, list[str]]:
    """Connections to protected ports that there are, for the set of those that are kept, by family.

    Conntrack may know nothing of a connection that is older than the first rule that asked for it.
    """
    runs = [(first, last) for protocol, first, last in limits.protect if protocol == 6]
    found: dict[int, list[str]] = {4: [], 6: []}
    for name in ("tcp", "tcp6") if runs else ():
        with contextlib.suppress(OSError), open(f"/proc/net/{name}") as file:
            for words in [line.split() for line in list(file)[1:]]:
                (_, own), (address, port) = words[1].split(":"), words[2].split(":")
                if words[3] != _ESTABLISHED or not any(first <= int(own, 16) <= last for first, last in runs):
                    continue
                # 32-bit words as this machine has them (net/ipv4/tcp_ipv4.c, get_tcp4_sock).
                parts = [address[at : at + 8] for at in range(0, len(address), 8)]
                ip = ipaddress.ip_address(b"".join(int(part, 16).to_bytes(4, sys.byteorder) for part in parts))
                ip = getattr(ip, "ipv4_mapped", None) or ip
                found[ip.version].append(f"{ip} . {int(port, 16)} . {int(own, 16)}")
    return found
