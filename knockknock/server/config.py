"""The daemon's configuration: text to values."""

from typing import NamedTuple

from ..core import ini
from ..core.packet import TCP
from ..core.request import parse_ports
from ..errors import ConfigError
from ..profiles import files
from ..schemes.door_options import MAX_DELAY as MAX_DELAY
from ..schemes.door_options import MAX_DOORS_PER_MINUTE

DEFAULT_PATH = "/etc/knockknock.d/config"
MAX_BLOCK = 7 * 86400
"""The longest block of a scanner in seconds, unless it is for ever."""
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


def _ports(text: str) -> tuple[tuple[int, int, int], ...]:
    """Return the runs of ports in a text, sorted; those that touch or overlap become one. Raises ConfigError."""
    runs: list[tuple[int, int, int]] = []
    for protocol, first, last in sorted((run.protocol, run.first, run.last) for run in parse_ports(text)):
        if runs and runs[-1][0] == protocol and first <= runs[-1][2] + 1:
            first, last = runs[-1][1], max(last, runs.pop()[2])
        runs.append((protocol, first, last))
    return tuple(runs)


def _tcp_ports(text: str) -> tuple[tuple[int, int, int], ...]:
    runs = _ports(text)
    if any(protocol != TCP for protocol, _, _ in runs):
        raise ConfigError("only TCP ports count, so only they can be left out: write tcp/ before each")
    return runs


OBSOLETE = ("firewall", "nft_table", "nft_chain")
"""Keys that chose a firewall in earlier versions. They have no effect, so that an upgraded daemon still starts."""
KEYS: ini.Keys = {
    "delay": ini.whole(1, MAX_DELAY),
    "error_window": ini.whole(1, 1000),
    "resync_window": ini.whole(0, 10000),
    "clock_skew": ini.whole(1, 600),
    "expected_size": ini.whole(0, 1_000_000),
    "single_use": ini.boolean,
    "doors_per_minute": ini.whole(1, MAX_DOORS_PER_MINUTE),
    "source": ini.one_of("auto", "file", "kmsg", "nflog"),
    "log_file": _absolute,
    "nflog_group": ini.whole(1, 0xFFFF),
    "protect": _ports,
    "protect_reject": ini.boolean,
    "protect_allow": _networks,
    "ct_label": ini.whole(0, 126),
    "firewall": str,
    "nft_table": str,
    "nft_chain": str,
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
    "scan_public": _tcp_ports,
    "scan_ipv6_prefix": ini.whole(1, 128),
    "scan_count": ini.one_of("kernel", "daemon"),
    "scan_drops": ini.one_of("new", "all"),
}


class Config(NamedTuple):
    """The settings that config/knockknock.conf documents, with their defaults."""

    delay: int = 15
    """Seconds for which an opened port lets new connections in."""
    error_window: int = 20
    """Look-ahead window W in counters (RFC 4226 section 7.4)."""
    single_use: bool = True
    source: str = "auto"
    log_file: str = "/var/log/kern.log"
    nflog_group: int = 0x4B4B
    """"KK": not one of the small numbers that ulogd and others take without being asked."""
    protect: tuple[tuple[int, int, int], ...] = ()
    """Ports of this machine that the daemon refuses to all without a door: protocol number, first port, last port."""
    protect_reject: bool = False
    protect_allow: tuple[str, ...] = ()
    """Networks that need no door."""
    ct_label: int = 75
    """The first of two conntrack labels for what doors let in."""
    obsolete: tuple[str, ...] = ()
    """Keys that are set and have no effect any more."""
    user: str = "knockknock"
    profiles: str = "/etc/knockknock.d/profiles"
    state: str = "/var/lib/knockknock"
    log: str = "stderr"
    sandbox: str = "auto"
    doors_per_minute: int = 600
    """Doors that the root helper opens in a minute at most, for all profiles together."""
    control: str = "/run/knockknock/control"
    """The socket for status and events, or `off`."""
    control_group: str = ""
    """The group that may use it beside root; empty: the group of the daemon's user."""
    on_open: str = ""
    """Hooks: programs that the daemon's user runs."""
    on_close: str = ""
    textfile: str = ""
    """Path of a file for the textfile collector of Prometheus' node_exporter."""
    resync_window: int = 1000
    """Counters beyond the look-ahead window in which two knocks in a row are obeyed (RFC 4226 section 7.4); 0: none."""
    expected_size: int = 100_000
    """The most expected values to list in the kernel, which then logs only SYNs with one of them.

    0: it logs every SYN to a knock port.
    """
    clock_skew: int = 60
    """Seconds that the clock of a client may be off, for profiles that count by it."""
    scan_guard: bool = False
    scan_ports: int = 3
    """Ports that a source may try within the seconds; it is shut out at the next."""
    scan_seconds: int = 60
    scan_block: int = 600
    """Seconds; 0: for ever."""
    scan_allow: tuple[str, ...] = ()
    scan_public: tuple[tuple[int, int, int], ...] = ()
    """TCP ports that do not count: protocol number, first port, last port."""
    scan_ipv6_prefix: int = 64
    scan_count: str = "kernel"
    scan_drops: str = "new"


def parse(text: str, where: str) -> Config:
    """The configuration in a file's text; where: its path, for messages. Raises ConfigError."""
    values = ini.read(text, where, KEYS)
    obsolete = tuple(key for key in OBSOLETE if values.pop(key, None) is not None)
    return Config(**values, obsolete=obsolete)


def load_config(path: str) -> Config:
    """The daemon's configuration. Raises ConfigError."""
    try:
        return parse(files.read(path), path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; name the configuration with --config") from None
