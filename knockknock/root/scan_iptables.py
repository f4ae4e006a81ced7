"""The scan guard as ipsets and iptables chains (root.scan says how it counts), placed by the commands of both."""

import contextlib
import ipaddress
import os
import shutil
from collections.abc import Iterator

from ..errors import FirewallError
from . import COPY, MARK, MASK, NAME, PREFIX, SET_SIZE
from .commands import Placed, run
from .policy import Scan
from .scan import SEEN, Address, Blocked, Counts, Spared, of_family

CHAIN = "KNOCK-SCAN"
"""What the names of our chains begin with; it must not contain iptables.CHAIN, which knows its own rules by that."""
CLOSED = f"{CHAIN}-CLOSED"
SETS = f"{NAME}-scan-"
SYN = "-p tcp --tcp-flags FIN,SYN,RST,ACK SYN"


def _rung_chain(number: int) -> str:
    return f"{CHAIN}-RUNG{number}"


def _rungs(scan: Scan) -> range:
    return range(1, 1 if scan.by_daemon else scan.ports + 1)


def _chains(scan: Scan) -> list[str]:
    return [CHAIN, CLOSED, *map(_rung_chain, _rungs(scan))]


def rules(scan: Scan, family: int, nflog_group: int) -> list[str]:
    """All rules, in order, as iptables-restore takes them; family: 4 or 6; nflog_group: 0 for the kernel's log."""

    def among(name: str, what: str = "src", word: str = "") -> str:
        return f"-m set {word} --match-set {SETS}{name} {what}"

    rungs = {number: f"rung{number}-{family}" for number in _rungs(scan)}
    log = f'LOG --log-prefix "{PREFIX}" --log-level debug --log-tcp-sequence --log-tcp-options'
    group = f'NFLOG --nflog-group {nflog_group} --nflog-prefix "{PREFIX}" --nflog-size {COPY} --nflog-threshold 1'
    shut_out = [
        f"-A {CLOSED} -j SET --add-set {SETS}blocked{family} src",
        f"-A {CLOSED} {among(f'blocked{family}')} -j DROP",
    ]
    spare = [
        f"-A {CHAIN} -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN",
        f"-A {CHAIN} -m connmark --mark {MARK:#x}/{MASK:#x} -j RETURN",
    ]
    return [
        f"-A {CHAIN} -i lo -j RETURN",
        f"-A {CHAIN} -m conntrack --ctstate UNTRACKED -j RETURN",
        f"-A {CHAIN} -m conntrack --ctstate NEW",
        *([] if scan.everything else spare),
        *([f"-A {CHAIN} -s fe80::/10 -j RETURN"] if family == 6 else []),
        f"-A {CHAIN} {among(f'allowed{family}')} -j RETURN",
        f"-A {CHAIN} {among(f'blocked{family}')} -j DROP",
        f"-A {CHAIN} {SYN} -m conntrack --ctstate NEW -j {CLOSED}",
        f"-A {CLOSED} {among('spared', 'dst')} -j RETURN",
        f"-A {CLOSED} -m socket --nowildcard -j RETURN",
        f"-A {CLOSED} {among(f'seen{family}', 'src,dst')} -j RETURN",
        f"-A {CLOSED} -j SET --add-set {SETS}seen{family} src,dst",
        # Whoever finds no room in a set is not counted: here, and because what a rung's chain is left by ends in CHAIN.
        f"-A {CLOSED} {among(f'seen{family}', 'src,dst', '!')} -j RETURN",
        *(f"-A {CLOSED} {among(rung, word='!')} -g {_rung_chain(number)}" for number, rung in rungs.items()),
        *([f"-A {CLOSED} -j {group if nflog_group else log}"] if scan.by_daemon else shut_out),
        *(f"-A {_rung_chain(number)} -j SET --add-set {SETS}{rung} src" for number, rung in rungs.items()),
    ]


def sets(scan: Scan, family: int) -> list[str]:
    """Commands for ipset-restore that make the sets of a family."""
    inet = f"family inet{'6' if family == 6 else ''}"
    one = f"{inet} netmask {scan.prefix}" if family == 6 and scan.prefix < 128 else inet
    # A packet that adds an element cannot make a hash table larger; of so many buckets, with 12 places, none is full.
    one += " hashsize 16384"
    return [
        f"create {SETS}allowed{family} hash:net {inet}",
        f"create {SETS}blocked{family} hash:ip {one} maxelem {SET_SIZE} timeout {scan.block}",
        f"create {SETS}seen{family} hash:ip,port {one} maxelem {SEEN} timeout {scan.seconds}",
        *(
            f"create {SETS}rung{number}-{family} hash:ip {one} maxelem {SET_SIZE} timeout {scan.seconds}"
            for number in _rungs(scan)
        ),
    ]


class Guard:
    """iptables of either kind."""

    def __init__(self, scan: Scan | None, nflog_group: int = 0, command: str = "iptables") -> None:
        """nflog_group: 0 for the kernel's log. command: the name of the IPv4 command of the variant that filters."""
        families = [4, 6] if os.path.exists("/proc/net/if_inet6") else [4]
        self._commands = {4: command, 6: command.replace("iptables", "ip6tables")}
        self._commands = {family: self._commands[family] for family in families}
        self._scan, self._nflog_group = scan, nflog_group
        self._placed = Placed(list(self._commands.values()), CHAIN)

    def prepare(self) -> None:
        if self.there():  # of a daemon that was killed, whose settings may have been others
            self.remove()
        self._place()

    def _place(self) -> None:
        if self._scan is None:
            return
        self._make_sets(self._scan)
        for family, command in self._commands.items():
            lines = [
                "*filter",
                *(f":{chain} - [0:0]" for chain in _chains(self._scan)),
                *rules(self._scan, family, self._nflog_group),
            ]
            run([f"{command}-restore", "--noflush", "--wait"], "\n".join([*lines, "COMMIT", ""]))
            with contextlib.suppress(FirewallError):
                run([command, "--wait", "-D", "INPUT", "-j", CHAIN])
            # Behind our own chain, which hears knocks and accepts what a door lets in; or before it, to drop all.
            run([command, "--wait", "-I", "INPUT", "1" if self._scan.everything else "2", "-j", CHAIN])
        self._placed.remember()

    def _make_sets(self, scan: Scan) -> None:
        if not shutil.which("ipset"):
            raise FirewallError(
                "with iptables the scan guard takes the command ipset: apt install ipset, or scan_guard = off"
            )
        lines = [line for family in self._commands for line in sets(scan, family)]
        try:
            _ipset("\n".join([f"create {SETS}spared bitmap:port range 0-65535", *lines]))
        except FirewallError as error:
            hint = "; kernels before 6.2 take scan_ipv6_prefix = 128 alone" if scan.prefix < 128 else ""
            raise FirewallError(f"{error}{hint}") from None

    def there(self) -> bool:
        return f"{SETS}spared" in _names()

    def heal(self, moved: bool) -> bool:
        if self._scan is None or (self._placed.whole() and not moved):
            return False
        self._place()
        return True

    def spare(self, spared: Spared) -> None:
        if self._scan is None:
            return
        lines = [f"flush {SETS}spared", *(f"flush {SETS}allowed{family}" for family in self._commands)]
        lines += [f"add {SETS}spared {first}-{last}" for first, last in spared.ports]
        for family in self._commands:
            lines += [f"add {SETS}allowed{family} {network}" for network in _halved(of_family(spared.networks, family))]
        _ipset("\n".join(lines))

    def blocked(self) -> list[Blocked]:
        found = []
        for name in _names():
            if name.startswith(f"{SETS}blocked"):
                for words in map(str.split, run(["ipset", "save", name]).splitlines()):
                    if words[0] == "add":
                        left = int(words[4])
                        found.append(Blocked(ipaddress.ip_address(words[2]), left or None))
        return found

    def counts(self) -> Counts:
        packets = new = dropped = 0
        for number, rule in _counted():
            packets += number * (rule == f"-A INPUT -j {CHAIN}")
            new += number * (rule == f"-A {CHAIN} -m conntrack --ctstate NEW")
            dropped += number * rule.endswith("-j DROP")
        return Counts(packets, new, dropped)

    def block(self, source: Address) -> None:
        _ipset(f"add {SETS}blocked{source.version} {source}")

    def unblock(self, source: Address) -> None:
        kinds = (f"{SETS}blocked", f"{SETS}rung")
        names = [name for name in _names() if name.startswith(kinds) and name.endswith(str(source.version))]
        _ipset("\n".join(f"del {name} {source}" for name in names))

    def remove(self) -> None:
        for command in self._commands.values():
            chains = _ours(command)
            with contextlib.suppress(FirewallError):
                run([command, "--wait", "-D", "INPUT", "-j", CHAIN])
            for option in ("-F", "-X"):
                for chain in chains:
                    with contextlib.suppress(FirewallError):
                        run([command, "--wait", option, chain])
        if names := [name for name in _names() if name.startswith(SETS)]:
            _ipset("\n".join(f"destroy {name}" for name in names))


def _ours(command: str) -> list[str]:
    """Our chains, those that are led to behind those that lead to them."""
    listed = run([f"{command}-save", "-t", "filter"]).splitlines()
    return [line[1:].split()[0] for line in listed if line.startswith(f":{CHAIN}")]


def _halved(networks: list[str]) -> Iterator[str]:
    """The same networks without one of length 0, which a set of networks does not take."""
    for network in map(ipaddress.ip_network, networks):
        yield from map(str, [network] if network.prefixlen else network.subnets())


def _counted() -> list[tuple[int, str]]:
    """Our rules of both families, each with the packets that it met, of the variant that has them."""
    for kind in ("tables", "tables-nft", "tables-legacy"):
        commands = [name for name in (f"ip{kind}-save", f"ip6{kind}-save") if shutil.which(name)]
        lines = [line for command in commands for line in run([command, "-c", "-t", "filter"]).splitlines()]
        # [packets:bytes] -A CHAIN ...
        found = [line[1:].partition(":")[::2] for line in lines if line.startswith("[") and CHAIN in line]
        if found:
            return [(int(number), rest.partition("] ")[2]) for number, rest in found]
    return []


def _names() -> list[str]:
    """The names of all sets; none where the command is not installed, as then none is ours."""
    return run(["ipset", "list", "-name"]).split() if shutil.which("ipset") else []


def _ipset(text: str) -> None:
    """Carry out commands; what is there already, or is not, is no error."""
    run(["ipset", "-exist", "restore"], text + "\n")
