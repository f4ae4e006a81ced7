"""Counts the ports that each source tries, for scan_count = daemon (else the kernel counts). Pure, bounded."""

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from .config import Config

MOST = 32768
"""The most ports of all sources together that are remembered; beyond them nothing new is counted or blocked."""
LATE = 1.0
"""Seconds in which packets may still arrive that were under way when their source was blocked."""

Scanner = IPv4Network | IPv6Network


class PortCounter:
    """Counts the ports that each source tried. A port counts for `scan_seconds` from its first SYN."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._networks = [ip_network(network) for network in config.scan_allow]
        self._public = [(first, last) for _, first, last in config.scan_public]
        self._seen: dict[tuple[Scanner, int], tuple[float, bool]] = {}
        """The time of the first SYN, and True if it counts, by source and port; oldest first: all stay equally long."""
        self._ports: dict[Scanner, int] = {}
        """The number of ports that count, by source."""
        self._shut: dict[Scanner, float] = {}
        """The time at which tried() last returned a source."""

    def again(self, config: Config) -> "PortCounter":
        """Return a counter with the same counts, for a configuration that differs in scan_allow or scan_public only."""
        other = PortCounter(config)
        other._seen, other._ports, other._shut = self._seen, self._ports, self._shut
        return other

    def tried(self, address: bytes, port: int, now: float) -> Scanner | None:
        """Count a SYN; return its source if that is to be blocked now, else None.

        address: of the sender, network order, 4 or 16 bytes. now: seconds on a monotonic clock.
        """
        self._forget(now)
        host = ip_address(address)
        if any(host in network for network in self._networks):
            return None
        if any(first <= port <= last for first, last in self._public):
            return None
        source = self._source(address)
        if (source, port) in self._seen or len(self._seen) >= MOST:
            return None
        if now - self._shut.get(source, -LATE) < LATE:
            return None
        number = self._ports.get(source, 0)
        too_many = number >= self._config.scan_ports
        self._seen[source, port] = now, not too_many
        if too_many:
            self._shut[source] = now
            return source
        self._ports[source] = number + 1
        return None

    def _source(self, address: bytes) -> Scanner:
        return ip_network((address, self._config.scan_ipv6_prefix if len(address) == 16 else 32), strict=False)

    def forgive(self, address: bytes) -> None:
        """Count the source of an address from zero; ports that it has tried do not count again within their time."""
        source = self._source(address)
        for key, (when, _) in self._seen.items():
            if key[0] == source:
                self._seen[key] = when, False
        self._ports.pop(source, None)
        self._shut.pop(source, None)

    def _forget(self, now: float) -> None:
        while self._seen:
            key = next(iter(self._seen))
            when, counts = self._seen[key]
            if now - when < self._config.scan_seconds:
                return
            del self._seen[key]
            if not counts:
                continue
            self._ports[key[0]] -= 1
            if not self._ports[key[0]]:
                del self._ports[key[0]]
                self._shut.pop(key[0], None)


def shown(source: Scanner) -> str:
    """The text of a source: an address, or a network."""
    return str(source if source.num_addresses > 1 else source.network_address)
