"""Which packet filter holds this machine's input. Reads only."""

import re
import shutil
import socket
import subprocess
from typing import Any, NamedTuple

from ..errors import FirewallError
from . import NAME, Firewall
from .policy import Policy

IPTABLES_TABLES = {"filter", "mangle", "nat", "raw", "security"}


class Choice(NamedTuple):
    """The firewall to use, and why, in a sentence."""

    name: str
    """nftables or iptables."""
    reason: str
    chains: tuple[tuple[str, str, str], ...] = ()
    """nftables: family, table and name of each chain that filters input."""
    legacy: bool = False
    """iptables: the variant."""
    command: str = "iptables"
    """iptables: the command of that variant."""
    pointless: bool = False
    """Whether nothing filters input, so that every port is open anyway."""


def make(choice: Choice, nflog_group: int) -> Firewall:
    """The chosen firewall, nothing placed yet; nflog_group: 0 for the kernel's log. Raises FirewallError."""
    if choice.name == "nftables":
        from . import nftables

        return nftables.Firewall(choice.chains, nflog_group)
    try:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW).close()
    except OSError:
        raise FirewallError(
            "iptables needs raw sockets, which the systemd unit does not give: install config/knockknock-iptables.conf"
        ) from None
    from . import iptables

    return iptables.Firewall(choice.legacy, choice.command, nflog_group)


def choose(policy: Policy) -> Choice:
    """The firewall that the policy names or, with `auto`, that holds the machine's input. Raises FirewallError."""
    chains = () if policy.firewall == "iptables" else nft_chains(policy)
    variants = [] if policy.firewall == "nftables" else [variant for variant in _variants() if variant.filters]
    if chains and variants:
        raise FirewallError(
            f"both nftables ({' '.join(chains[0])}) and {variants[0].command} refuse input on this machine; "
            "let one of them do it, or set firewall = and accept our connection mark in the other"
        )
    if chains:
        return Choice(
            "nftables", f"nftables: the chain {', '.join(' '.join(chain) for chain in chains)} filters input", chains
        )
    if variants:
        kind = "legacy" if variants[0].legacy else "nf_tables"
        return Choice(
            "iptables",
            f"iptables: {variants[0].command} ({kind}) filters input",
            (),
            variants[0].legacy,
            variants[0].command,
        )
    return _nobody(policy)


def _nobody(policy: Policy) -> Choice:
    why = "no chain refuses input, so every port is open already and knocking is pointless: see minimal-firewall.sh"
    if policy.firewall == "iptables" or (policy.firewall == "auto" and not _has_nftables()):
        usual = _variants()[:1]
        if not usual:
            raise FirewallError(
                "there is no iptables command on this machine: apt install iptables, or set firewall = nftables"
            )
        return Choice("iptables", f"iptables: {why}", (), usual[0].legacy, usual[0].command, True)
    return Choice("nftables", f"nftables: {why}", pointless=True)


def _has_nftables() -> bool:
    from .nftables import Library

    try:
        Library().rules()
    except FirewallError:
        return False
    return True


def nft_chains(policy: Policy) -> tuple[tuple[str, str, str], ...]:
    """The native chains that filter input. Raises FirewallError if the policy names one that there is not."""
    if policy.firewall == "auto" and not _has_nftables():
        return ()
    from .nftables import Library

    rules = Library().rules()
    if policy.nft_table:
        family, table = policy.nft_table.split(" ")
        chain = (family, table, policy.nft_chain)
        if not any((one["family"], one["table"], one["name"]) == chain for one in _items(rules, "chain")):
            raise FirewallError(f"there is no nftables chain {' '.join(chain)}: correct nft_table and nft_chain")
        return (chain,)
    return tuple(
        (chain["family"], chain["table"], chain["name"])
        for chain in _items(rules, "chain")
        if chain.get("hook") == "input"
        and chain["family"] in ("ip", "ip6", "inet")
        and chain["table"] != NAME
        and not (chain["name"] == "INPUT" and chain["table"] in IPTABLES_TABLES)
        and _refuses(chain, rules)
    )


def _items(rules: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [item[kind] for item in rules if kind in item]


def _refuses(chain: dict[str, Any], rules: list[dict[str, Any]]) -> bool:
    """Whether a base chain ends in refusal: by its policy, or by a last rule without a condition."""
    if chain.get("policy") == "drop":
        return True
    of_chain = [
        rule["expr"]
        for rule in _items(rules, "rule")
        if (rule["family"], rule["table"], rule["chain"]) == (chain["family"], chain["table"], chain["name"])
    ]
    last = [statement for statement in of_chain[-1] if not {"counter", "log"} & statement.keys()] if of_chain else []
    return len(last) == 1 and bool({"drop", "reject"} & last[0].keys())


class _Variant(NamedTuple):
    command: str
    legacy: bool
    filters: bool


def _variants() -> list[_Variant]:
    """The kinds of iptables on this machine, the one that `iptables` means first."""
    found: dict[bool, _Variant] = {}
    for command in ("iptables", "iptables-nft", "iptables-legacy"):
        if not shutil.which(command):
            continue
        legacy = "nf_tables" not in _run(command, "-V")
        if legacy not in found:
            found[legacy] = _Variant(command, legacy, _filters(command, legacy))
    return list(found.values())


def _filters(command: str, legacy: bool) -> bool:
    # To ask the legacy command about a table that is not loaded would load it.
    if legacy and not _legacy_table():
        return False
    listing = _run(command, "-S", "INPUT").splitlines()
    last = listing[-1] if listing else ""
    return "-P INPUT DROP" in listing or bool(re.fullmatch(r"-A INPUT -j (DROP|REJECT( --reject-with \S+)?)", last))


def _legacy_table() -> bool:
    try:
        with open("/proc/net/ip_tables_names") as file:
            return "filter" in file.read().split()
    except OSError:
        return False


def _run(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
