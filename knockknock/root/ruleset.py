"""Generates the text of our table, in the language of nft(8).

    prerouting, right behind conntrack
        knocked            finds SYNs with expected values, or to a port whose every SYN is logged
        listen             logs them, and other packets to knock ports, for the daemon: none of this machine's own
        syn, rest          let in what has a door
        handshake          uses the door up
        guarded, count     the scan guard
        gate               refuses what has no door, at the ports that are protected

A SYN passes only while a door is open, and leaves the door as it is; the packet that completes the handshake uses the
door up. So forged SYNs use no door up. A connection through a door cannot begin again while conntrack knows it, nor be
completed after a reset (conntrack then keeps it for 10 seconds). A SYN with the Fast Open option (34, RFC 7413) is
dropped, because its data would be answered before any handshake: its sender tries again without.
"""

import ipaddress
from collections.abc import Collection, Iterable, Mapping

from . import NAME, sets
from .policy import Policy, Scan

PREFIX = "knockknock "
"""The log prefix of a packet (sources.kernel_line and sources.nflog_packet read it)."""
COPY = 512
"""Bytes of a packet that a rule sends to an NFLOG group (sources.nflog.COPY)."""
PRIORITY = -199
"""Priority of our base chain at the prerouting hook: right after conntrack, before all filters but those at raw.

include/uapi/linux/netfilter_ipv4.h: conntrack is at -200, mangle at -150, destination NAT at -100.
"""
PER_SOURCE, BURST = 20, 40
"""Rate limit of `listen`, packets a second and burst, per IPv4 address or IPv6 /64: a flood cuts only itself off."""
SET_SIZE = 65536
"""Size of our sets, in elements, unless another is given."""
SEEN = 32768
"""Pairs of source and port that the scan guard remembers, for each family; its other sets have more room."""
_SYN = "tcp flags & (fin|syn|rst|ack) == syn"
_LOCAL = "fib daddr type local"
_OWN = "fib saddr type { local, broadcast } return"
"""The statement in front of those that log: no packet from an address of this machine is for the daemon."""
_PORT = "meta l4proto . th dport"
_FIELDS = {
    "compact": "tcp sequence . tcp window",
    "stealth": "tcp sequence . tcp option timestamp tsval",
    "classic": "tcp sequence . tcp ackseq . tcp window",
}
"""Sets of expected values, and their fields beside the identification (PROTOCOL.md step 6)."""
SPARE = 4096
"""Room in these sets for a transaction, which adds values before it deletes others."""
TCP = 6
NAMES = {TCP: "tcp", 17: "udp"}
_ADDRESS = {4: "ip saddr", 6: "ip6 saddr"}
_RATE = f"limit rate over {PER_SOURCE}/second burst {BURST} packets"


def told(nflog_group: int) -> str:
    """Return the statement that logs a packet for the daemon; nflog_group: 0 for the kernel's log."""
    to_group = f"group {nflog_group} snaplen {COPY} queue-threshold 1"
    return f'log prefix "{PREFIX}" ' + (to_group if nflog_group else "level debug flags tcp sequence,options")


def comment(state: str) -> str:
    """Return the comment of our table, for people who list it; state: the daemon's state directory.

    nft(8) takes 127 bytes, and no quote or control character in a string.
    """
    shown = "".join(one if one.isascii() and one.isprintable() and one not in '"\\' else "?" for one in state)
    return f"doors of the knockknock daemon with {shown}"[:127]


def knock_ports(limits: Policy) -> str:
    """Return the elements of the set `knock_ports`."""
    return ", ".join(f"{protocol} . {port}" for protocol, port in limits.knock_ports)


def any_flags(limits: Policy) -> str:
    """Return the elements of the set `any_flags`."""
    return ", ".join(map(str, limits.any_flags))


def protected(limits: Policy) -> list[str]:
    """Return the rules of the chain `gate`.

    They use no set of ports: a new set of intervals is empty for a moment after its transaction, so the ports would be
    open (net/netfilter/nf_tables_api.c, nf_tables_commit: rules first, nft_set_commit_update last).
    """
    refuse = "counter name refused " + ("jump answer" if limits.protect_reject else "drop")
    ends = ["meta l4proto != @trial accept"] if limits.trial else []
    return ends + [f"{NAMES[protocol]} dport {ports(first, last)} {refuse}" for protocol, first, last in limits.protect]


def ports(first: int, last: int) -> str:
    """Return a run of ports as text; nft 1.0.2 refuses 22-22."""
    return f"{first}-{last}" if last > first else str(first)


def networks(listed: Iterable[str], family: int) -> str:
    """Return the networks of an address family as elements of a set."""
    return ", ".join(network for network in listed if ipaddress.ip_network(network).version == family)


def elements(limits: Policy) -> dict[str, str]:
    """Return the elements that a reload may change, by set: those that the policy determines."""
    found = {"knock_ports": knock_ports(limits), "any_flags": any_flags(limits)}
    # Until the daemon has listed the expected values.
    found["every_syn"] = ", ".join(str(port) for protocol, port in limits.knock_ports if protocol == TCP)
    if limits.expected_size:
        found |= dict.fromkeys(_FIELDS, "")
    for family in (4, 6):
        found[f"free{family}"] = networks(limits.protect_allow, family)
        if limits.scan:
            found[f"allowed{family}"] = networks(limits.scan.allow, family)
    if limits.scan:
        found["public"] = ", ".join(ports(*run) for run in limits.scan.public)
    return found


def gate(limits: Policy, kept: Mapping[int, Collection[str]]) -> str:
    """Return the table of a stopped daemon: it refuses, and admitted connections go on. kept: as in table()."""
    return table(limits._replace(knock_ports=(), any_flags=(), scan=None, expected_size=0), kept)


def table(limits: Policy, kept: Mapping[int, Collection[str]]) -> str:
    """Return the table, with all elements that the policy determines.

    kept: connections that go on although they came through no door, as elements, by family: 4, 6.
    """
    label, admitted, scan, line = limits.label, limits.label + 1, limits.scan, "\n        "
    expected = (
        "meta nfproto ipv4 goto knocked4\n        meta nfproto ipv6 goto knocked6" if limits.expected_size else ""
    )
    guarded = "jump guarded" if scan and not scan.everything else ""
    return f"""
table inet {NAME} {{
    comment "{comment(limits.state)}"
    {"".join(_sets(limits, kept))}
    counter told {{ }}
    counter passed {{ }}
    counter refused {{ }}
    {_expected() if limits.expected_size else ""}
    chain listen {{
        update @rate4 {{ ip saddr {_RATE} }} return
        update @rate6 {{ ip6 saddr & ffff:ffff:ffff:ffff:: {_RATE} }} return
        {_OWN}
        counter name told {told(limits.nflog_group)}
    }}
    chain knocked {{
        tcp dport @every_syn {_LOCAL} goto listen
        tcp dport @doctor {_LOCAL} goto listen
        {expected}
    }}
    chain begun {{
        tcp option 34 exists drop
        ct label set {label} accept
    }}
    chain admitted {{
        ct label set {admitted} accept
    }}
    chain both {{
        ct label set {label} goto admitted
    }}
    {_scan(scan, limits.nflog_group) if scan else ""}
    chain gate {{
        {line.join(protected(limits))}
    }}
    chain answer {{
        meta l4proto tcp reject with tcp reset
        reject with icmpx type port-unreachable
    }}
    {"".join(_doors(family) for family in (4, 6))}
    chain syn {{
        fib daddr type unicast accept
        {"counter name connections_new" if scan else ""}
        ct label {admitted} drop
        meta nfproto ipv4 jump syn4
        meta nfproto ipv6 jump syn6
        ct label {label} drop
        {"jump count" if scan else ""}
        ip saddr @free4 accept
        ip6 saddr @free6 accept
        goto gate
    }}
    chain handshake {{
        tcp flags & rst == rst accept
        ct state != established drop
        ct expiration <= 10s drop
        meta nfproto ipv4 jump use4
        meta nfproto ipv6 jump use6
        reject with tcp reset
    }}
    chain rest {{
        fib daddr type unicast accept
        {"counter name connections_new" if scan else ""}
        meta l4proto udp meta nfproto ipv4 jump datagram4
        meta l4proto udp meta nfproto ipv6 jump datagram6
        {guarded}
        ip saddr . tcp sport . tcp dport @kept4 accept
        ip6 saddr . tcp sport . tcp dport @kept6 accept
        ip saddr @free4 accept
        ip6 saddr @free6 accept
        goto gate
    }}
    chain prerouting {{
        type filter hook prerouting priority {PRIORITY}; policy accept;
        {"meta iiftype != loopback jump guarded" if scan and scan.everything else ""}
        {_SYN} jump knocked
        meta l4proto udp ct state != established {_PORT} @knock_ports {_LOCAL} jump listen
        tcp dport @any_flags tcp flags & (fin|syn|rst|ack) != syn ct state != established {_LOCAL} jump listen
        meta iiftype loopback accept
        {"counter name packets_seen" if scan else ""}
        ct direction reply accept
        {_SYN} goto syn
        ct label {admitted} accept
        meta l4proto tcp ct label {label} goto handshake
        ct state established,related accept
        goto rest
    }}
}}
"""


def _set(name: str, kind: str, flags: str, held: str = "") -> str:
    return f"set {name} {{ type {kind}; {flags}; {f'elements = {{ {held} }};' if held else ''} }}\n"


def _sets(limits: Policy, kept: Mapping[int, Collection[str]]) -> Iterable[str]:
    held = elements(limits)
    size, port = f"size {SET_SIZE}", "inet_proto . inet_service"
    yield _set("knock_ports", port, size, held["knock_ports"])
    for name in ("any_flags", "every_syn", "doctor"):
        # A set of two bytes without timeouts would be a bitmap, of which each change walks through all elements
        # (net/netfilter/nft_set_bitmap.c).
        yield _set(name, "inet_service", f"{size}; flags timeout", held.get(name, ""))
    for name, fields in _FIELDS.items() if limits.expected_size else ():
        yield f"set {name} {{ typeof ip id . {fields}; size {limits.expected_size + SPARE}; }}\n"
    if limits.trial:
        yield _set(
            "trial",
            "inet_proto",
            "flags timeout",
            ", ".join(f"{name} timeout {limits.trial}s" for name in NAMES.values()),
        )
    for family in (4, 6):
        address = f"ipv{family}_addr"
        yield _set(f"free{family}", address, "flags interval; auto-merge", held[f"free{family}"])
        yield _set(f"kept{family}", f"{address} . inet_service . inet_service", size, ", ".join(kept.get(family, ())))
        yield _set(f"rate{family}", address, f"{size}; flags dynamic, timeout; timeout {BURST // PER_SOURCE}s")
        yield _set(f"open{family}", f"{address} . {port}", f"{size}; flags timeout")
        yield _set(f"any{family}", f"{address} . {port}", f"{size}; flags timeout")
        for single in sets(family)[1:]:
            yield _set(single, f"{address} . {port}", f"{size}; flags dynamic, timeout")


def _expected() -> str:
    """Return the chains that find knocks by all sealed fields at once, so that none can be guessed by itself.

    They test every SYN, and its port last: so a knock port answers no later than another. Only a classic knock has an
    acknowledgment. In IPv6 the identification is in the low bits of the flow label.
    """
    chains = [f"chain bears {{\n{_PORT} @knock_ports {_LOCAL} goto listen\n}}"]
    for family, ident in {4: "ip id", 6: "@nh,16,16"}.items():
        rules = [
            f"{'' if name == 'classic' else 'tcp ackseq 0 '}{ident} . {fields} @{name} goto bears"
            for name, fields in _FIELDS.items()
        ]
        chains.append(f"chain knocked{family} {{\n" + "\n".join(rules) + "\ncounter name passed\n}")
    return "\n".join(chains)


def _doors(family: int) -> str:
    """Return the chains that use a door up when a handshake completes, do the same for a datagram, and let a SYN in."""
    key = f"{_ADDRESS[family]} . {_PORT}"
    slots = sets(family)[1:]
    used = [f"{key} @{name} delete @{name} {{ {key} }}" for name in slots]

    def chain(name: str, single: list[str], verdict: str) -> str:
        rules = [f"{key} @open{family} {verdict}", f"{key} != @any{family} return"]
        rules += [f"{rule} {verdict}" for rule in single]
        return f"chain {name}{family} {{\n" + "\n".join(rules) + "\n}\n"

    return (
        chain("use", used, "goto admitted")
        + chain("datagram", used, "goto both")
        + chain("syn", [f"{key} @{name}" for name in slots], "goto begun")
    )


def _scan(scan: Scan, nflog_group: int) -> str:
    """Return the counters, sets and chains of the scan guard; root.scan_guard describes its counting."""
    mask = ipaddress.IPv6Address((1 << 128) - (1 << 128 - scan.prefix))
    sources = {4: "ip saddr", 6: f"ip6 saddr & {mask}"}
    tell = told(nflog_group) if scan.by_daemon else ""
    spare = "ip6 saddr fe80::/10 return\nip saddr @allowed4 return\nip6 saddr @allowed6 return"
    shut = "".join(
        f"{source} @blocked{family} {_LOCAL} counter name packets_dropped drop\n" for family, source in sources.items()
    )
    first = "".join(
        f"{source} . tcp dport != @seen{family} add @seen{family} {{ {source} . tcp dport }} goto climb{family}\n"
        for family, source in sources.items()
    )
    return f"""
    counter packets_seen {{ }}
    counter connections_new {{ }}
    counter packets_dropped {{ }}
    {_set("public", "inet_service", "flags interval; auto-merge", ", ".join(ports(*run) for run in scan.public))}
    {"".join(_rungs(scan, family, source, tell) for family, source in sources.items())}
    chain guarded {{
        ct state untracked return
        {spare}
        {shut}
    }}
    chain count {{
        {spare}
        {shut}
        tcp dport @public return
        {f"{_PORT} @knock_ports return" if tell else ""}
        {first}
    }}
"""


def _rungs(scan: Scan, family: int, source: str, tell: str) -> str:
    """Return a family's sets and the chain that moves a source up one rung, or blocks it; tell: logs it instead."""
    address = f"ipv{family}_addr"
    sized = f"size {SET_SIZE}; flags dynamic, timeout"
    rungs = [f"rung{number}_{family}" for number in range(1, scan.ports + 1) if not tell]
    block = f" timeout {scan.block}s" if scan.block else ""
    lines = [
        _set(f"allowed{family}", address, "flags interval; auto-merge", networks(scan.allow, family)),
        _set(f"blocked{family}", address, sized),
        _set(
            f"seen{family}",
            f"{address} . inet_service",
            f"size {SEEN}; flags dynamic, timeout; timeout {scan.seconds}s",
        ),
        *(_set(rung, address, f"{sized}; timeout {scan.seconds}s") for rung in rungs),
        f"chain climb{family} {{",
    ]
    for rung in rungs:
        # The second rule is for a full set: a source that finds no room is not counted.
        lines += [f"{source} != @{rung} add @{rung} {{ {source} }} return", f"{source} != @{rung} return"]
    lines += [
        f"{_OWN}\n{tell}" if tell else f"add @blocked{family} {{ {source}{block} }} counter name packets_dropped drop",
        "}",
        "",
    ]
    return "\n".join(lines)
