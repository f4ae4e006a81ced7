"""A client's configuration by host."""

from knockknock.client.host_config import MAX_TIMEOUT, parse
from knockknock.errors import ConfigError

WHERE = "/home/alice/.knockknock/config"
CORPUS = [
    b"Host server\n    HostName server.example\n    Ports 22 51820/udp\n",
    b"# all\nTimeout 5\nHost *.example !bad.example\nProfile=laptop\nSource 192.0.2.7\n",
    b'Host "a b" server?\nAddressFamily inet6 # comment\nPorts = 443\nhost *\nTimeout 0.5\n',
    b"Host\nPorts\nColour red\n",
]


def target(data: bytes) -> None:
    """A text is refused with its line, or gives values that the client can use without looking at them again."""
    text = data.decode("utf-8", "replace")
    try:
        found = parse(text, WHERE, "server.example")
    except ConfigError as error:
        place = str(error).removeprefix(f"{WHERE}:").partition(": ")[0]
        assert 1 <= int(place) <= text.count("\n") + 1
        return
    assert found.timeout is None or 0 < found.timeout <= MAX_TIMEOUT
    assert found.ports is None or found.ports
    assert all(protocol in (6, 17) and 1 <= port <= 65535 for protocol, port in found.ports or ())
    assert found.address_family in (None, "any", "inet", "inet6")
    for name in (found.host_name, found.profile, found.source):
        assert name is None or (name and "/" not in name and not name.startswith("-"))
