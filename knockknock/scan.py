"""Counts ports that sources try, where the daemon counts instead of the kernel (root/scan.py). Pure, bounded."""

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from .config import Config

MOST = 32768
"""Ports of all sources together that are remembered; beyond that nothing new is counted, and nobody shut out."""
LATE = 1.0
"""Seconds in which packets may still come that were under way when their source was shut out."""

Source = IPv4Network | IPv6Network


class Counter:
    """Ports that sources tried in the last seconds; each counts from its first SYN on, whatever comes later."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._networks = [ip_network(network) for network in config.scan_allow]
        self._public = [(first, last) for _, first, last in config.scan_public]
        self._seen: dict[tuple[Source, int], tuple[float, bool]] = {}
        """When, and whether it counts, by source and port; the oldest first, as all stay for the same time."""
        self._ports: dict[Source, int] = {}
        """Number of those that count."""
        self._shut: dict[Source, float] = {}
        """When one of these was last to be shut out."""

    def again(self, config: Config) -> "Counter":
        """The same for a configuration that differs in whom it allows."""
        other = Counter(config)
        other._seen, other._ports, other._shut = self._seen, self._ports, self._shut
        return other

    def tried(self, address: bytes, port: int, now: float) -> Source | None:
        """Count a SYN; who is to be shut out by it, if somebody is.

        address: the sender's, network order, 4 or 16 bytes. now: seconds on a monotonic clock.
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

    def _source(self, address: bytes) -> Source:
        return ip_network((address, self._config.scan_ipv6_prefix if len(address) == 16 else 32), strict=False)

    def forgive(self, address: bytes) -> None:
        """Count the source of an address from nothing: what it has tried is not counted again within its time."""
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


def shown(source: Source) -> str:
    """An address, or a network where that is one source."""
    return str(source if source.num_addresses > 1 else source.network_address)
