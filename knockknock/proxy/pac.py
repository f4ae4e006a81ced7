"""Writes the proxy auto-configuration file, which names the hosts that a browser reaches through the proxy. Pure."""

import json
from collections.abc import Iterable

_PAC = """// Hosts with a profile go through knockknock-proxy, all others directly.
function FindProxyForURL(url, host) {
    var hosts = %s;
    host = host.toLowerCase().replace(/^\\[|\\]$/g, "").replace(/\\.$/, "");
    return hosts.indexOf(host) < 0 ? "DIRECT" : "%s";
}
"""


def write(hosts: Iterable[str], address: str, login: bool) -> str:
    """Return the file. address: of the proxy, HOST:PORT, an IPv6 address in brackets.

    login: True if the proxy wants one. Browsers cannot send it over SOCKS, so the file then names an HTTP proxy.
    """
    ways = f"PROXY {address}" if login else f"SOCKS5 {address}; SOCKS {address}"
    names = sorted({host.lower().rstrip(".") for host in hosts})
    return _PAC % (json.dumps(names), ways)
