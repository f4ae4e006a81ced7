"""The daemon's configuration: text -> values."""

from typing import NamedTuple

from . import ini
from .errors import ConfigError
from .schemes.doors import MAX_DELAY as MAX_DELAY
from .schemes.doors import MAX_DOORS_PER_MINUTE

DEFAULT_PATH = "/etc/knockknock.d/config"
MAX_BLOCK = 7 * 86400
"""Seconds that a scanner is shut out for, if not for ever."""
MAX_NETWORKS = 1000

_absolute = ini.matching(r"/[^\0\n]*[^/\0\n]", "an absolute path")
_socket = ini.matching(r"off|/[^\0\n]{0,105}[^/\0\n]", "off, or an absolute path of at most 107 characters")
"""sun_path of unix(7)."""


def _forever_or_seconds(text: str) -> int:
    return 0 if text == "forever" else ini.whole(1, MAX_BLOCK)(text)


def _networks(text: str) -> tuple[str, ...]:
    from ipaddress import ip_network  # not before it is asked for: a client reads no daemon's configuration

    found = []
    for word in text.replace(",", " ").split():
        try:
            found.append(str(ip_network(word)))
        except ValueError:
            raise ConfigError(
                f"{word!r} is not an address or a network such as 192.0.2.0/24 or 2001:db8::/32, without host bits"
            ) from None
    if not found:
        raise ConfigError("there must be an address or a network, or several with commas between")
    if len(found) > MAX_NETWORKS:
        raise ConfigError(f"{len(found)} networks are more than {MAX_NETWORKS}")
    return tuple(found)


KEYS: ini.Keys = {
    "delay": ini.whole(1, MAX_DELAY),
    "error_window": ini.whole(1, 1000),
    "resync_window": ini.whole(0, 10000),
    "clock_skew": ini.whole(1, 600),
    "single_use": ini.boolean,
    "doors_per_minute": ini.whole(1, MAX_DOORS_PER_MINUTE),
    "source": ini.one_of("auto", "file", "kmsg", "nflog"),
    "log_file": _absolute,
    "nflog_group": ini.whole(1, 0xFFFF),
    "firewall": ini.one_of("auto", "nftables", "iptables"),
    "nft_table": ini.matching(r"(ip|ip6|inet) [A-Za-z_][\w.-]*", "a family and a table, such as inet filter"),
    "nft_chain": ini.matching(r"[A-Za-z_][\w.-]*", "the name of a chain"),
    "user": ini.matching(r"[A-Za-z_][\w.-]*", "the name of a user"),
    "profiles": _absolute,
    "state": _absolute,
    "log": ini.one_of("stderr", "syslog"),
    "sandbox": ini.one_of("auto", "required", "off"),
    "control": _socket,
    "control_group": ini.matching(r"[A-Za-z_][\w.-]*", "the name of a group"),
    "on_open": _absolute,
    "on_close": _absolute,
    "textfile": ini.matching(r"/[^\0\n]*[^/\0\n]\.prom", "an absolute path that ends in .prom"),
    "scan_guard": ini.boolean,
    "scan_ports": ini.whole(1, 16),
    "scan_seconds": ini.whole(1, 3600),
    "scan_block": _forever_or_seconds,
    "scan_allow": _networks,
    "scan_ipv6_prefix": ini.whole(1, 128),
    "scan_count": ini.one_of("kernel", "daemon"),
    "scan_drops": ini.one_of("new", "all"),
}


class Config(NamedTuple):
    """What config/knockknock.conf documents, with its defaults."""

    delay: int = 15
    """Seconds for which an opened port lets new connections in."""
    error_window: int = 20
    """Look-ahead window W in counters (RFC 4226 section 7.4)."""
    single_use: bool = True
    source: str = "auto"
    log_file: str = "/var/log/kern.log"
    nflog_group: int = 0x4B4B
    """"KK": not one of the small numbers that ulogd and others take without being asked."""
    firewall: str = "auto"
    nft_table: str = ""
    nft_chain: str = ""
    user: str = "knockknock"
    profiles: str = "/etc/knockknock.d/profiles"
    state: str = "/var/lib/knockknock"
    log: str = "stderr"
    sandbox: str = "auto"
    doors_per_minute: int = 600
    """How many doors the root helper opens in a minute, for all profiles together."""
    control: str = "/run/knockknock/control"
    """The socket for --status and --events, or `off`."""
    control_group: str = ""
    """Who may use it beside root; empty: the group of the daemon's user."""
    on_open: str = ""
    """Hooks: programs that the daemon's user runs."""
    on_close: str = ""
    textfile: str = ""
    """For the textfile collector of Prometheus' node_exporter."""
    resync_window: int = 1000
    """Counters beyond the look-ahead window in which two knocks in a row are obeyed (RFC 4226 section 7.4); 0: none."""
    clock_skew: int = 60
    """Seconds that the clock of a client may be off, for profiles that count by it."""
    scan_guard: bool = False
    scan_ports: int = 3
    """Closed ports that a source may try within the seconds; it is shut out at the next."""
    scan_seconds: int = 60
    scan_block: int = 600
    """Seconds; 0: for ever."""
    scan_allow: tuple[str, ...] = ()
    scan_ipv6_prefix: int = 64
    scan_count: str = "kernel"
    scan_drops: str = "new"


def parse(text: str, where: str) -> Config:
    """The configuration in a file's text; where: its path, for messages. Raises ConfigError."""
    config = Config(**ini.read(text, where, KEYS))
    if bool(config.nft_table) != bool(config.nft_chain):
        raise ConfigError(f"{where}: nft_table and nft_chain are given together or not at all")
    return config
