"""The line that a client sends to the control socket."""

import ipaddress

from knockknock.server.control import parse

CORPUS = [b"status", b"events", b"status 192.0.2.7", b"status 2001:db8::7", b"status ::ffff:192.0.2.7", b"", b"x" * 64]


def target(data: bytes) -> None:
    """A line is nothing, or one of three requests; an address in it is one address and no network, without a zone."""
    asked = parse(data)
    if asked is None:
        return
    word, _, address = data.decode("ascii").partition(" ")
    assert asked.events is (word == "events")
    assert bool(asked.address) is bool(address)
    if address:
        assert word == "status"
        assert ipaddress.ip_address(address) == ipaddress.ip_address(asked.address)
