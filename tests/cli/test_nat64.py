"""Tests of what the client's doctor learns of NAT64 from the resolver, without waiting for a dead one."""

import socket
import threading
from collections.abc import Iterator

import pytest

from knockknock.cli import client_doctor, nat64
from knockknock.client import route
from knockknock.errors import SendError


@pytest.mark.parametrize(
    ("address", "prefix"),
    [
        # RFC 6052 section 2.4, with the addresses of ipv4only.arpa
        ("2001:db8:c000:aa::", "2001:db8::/32"),
        ("2001:db8:1c0:0:aa::", "2001:db8:100::/40"),
        ("2001:db8:122:c000:0:aa00::", "2001:db8:122::/48"),
        ("2001:db8:122:3c0:0:ab::", "2001:db8:122:300::/56"),
        ("2001:db8:122:344:c0:0:aa00:0", "2001:db8:122:344::/64"),
        ("2001:db8:122:344::192.0.0.171", "2001:db8:122:344::/96"),
        ("64:ff9b::192.0.0.170", "64:ff9b::/96"),
        ("fd00::c0:0:ab00:0", "fd00::/64"),
        ("2001:db8::192.0.2.1", "None"),
        ("2001:db8:122:344:1c0:0:aa00:0", "None"),
    ],
)
def test_prefixes_of_nat64(address: str, prefix: str) -> None:
    assert str(nat64.prefix_of(address)) == prefix


@pytest.fixture
def dead(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A resolver that does not answer before the test ends."""
    end = threading.Event()

    def silent(*_: object) -> list[object]:
        end.wait()
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    monkeypatch.setattr(nat64, "PATIENCE", 0.01)
    yield
    end.set()


@pytest.mark.usefixtures("dead")
def test_nobody_waits_for_a_dead_resolver(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SendError, match=r"the resolver has not answered for 0\.01 s: look at"):
        route.within(nat64.PATIENCE, lambda: route.addresses("server.example", socket.AF_UNSPEC))
    found = client_doctor._translated(client_doctor.Doctor(), [(socket.AF_INET6, "2001:db8::1")])
    assert found == nat64.WELL_KNOWN
    assert "note: whether IPv6 is translated on the way (NAT64) is not known: the resol" in capsys.readouterr().out
    assert client_doctor._translated(client_doctor.Doctor(), [(socket.AF_INET, "192.0.2.1")]) == []


def test_what_a_question_raises_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(SendError, match=r"'nobody\.example' does not resolve: Name or service not known"):
        route.within(nat64.PATIENCE, lambda: route.addresses("nobody.example", socket.AF_UNSPEC))
    assert nat64.nat64() == nat64.WELL_KNOWN, "most networks have no such name"
