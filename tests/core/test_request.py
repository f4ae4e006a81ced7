"""Ports, protocols and allow-lists as people write them."""

import pytest

from knockknock.core.request import (
    ANY_TCP,
    TCP,
    UDP,
    Ports,
    Request,
    Verb,
    parse_ports,
    permitted,
    port_number,
    protocol_number,
)
from knockknock.errors import ConfigError


@pytest.mark.parametrize(("text", "port"), [("1", 1), ("22", 22), ("00022", 22), ("65535", 65535)])
def test_port_number(text: str, port: int) -> None:
    assert port_number(text) == port


NO_PORTS = [
    "",
    "0",
    "00000",
    "65536",
    "99999",
    "000022",
    "-1",
    "+1",
    " 22",
    "22 ",
    "2_2",
    "0x16",
    "2.0",
    "٢٢",
    "²",
    "22\n",
]


@pytest.mark.parametrize("text", NO_PORTS)
def test_no_port_number(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a port number"):
        port_number(text)


def test_protocol_number() -> None:
    assert [protocol_number(text) for text in ("tcp", "TCP", "udp", "Udp")] == [TCP, TCP, UDP, UDP]
    for text in ("", "icmp", "6", "tcp ", "sctp"):
        with pytest.raises(ConfigError, match="tcp or udp"):
            protocol_number(text)


LISTS = [
    ("tcp/22", (Ports(TCP, 22, 22),)),
    ("udp/51820", (Ports(UDP, 51820, 51820),)),
    ("tcp/22,udp/51820", (Ports(TCP, 22, 22), Ports(UDP, 51820, 51820))),
    (" tcp / 22 ,\n udp/1 - 65535", (Ports(TCP, 22, 22), Ports(UDP, 1, 65535))),
    ("tcp/8000-8010", (Ports(TCP, 8000, 8010),)),
    ("tcp/8000-8000", (Ports(TCP, 8000, 8000),)),
    ("TCP/22", (Ports(TCP, 22, 22),)),
]


@pytest.mark.parametrize(("text", "ports"), LISTS)
def test_ports(text: str, ports: tuple[Ports, ...]) -> None:
    assert parse_ports(text) == ports
    assert parse_ports(", ".join(map(str, ports))) == ports


NO_LISTS = [
    ("", "''"),
    ("tcp/22,", "''"),
    (",tcp/22", "''"),
    ("tcp/22;udp/53", "'22;udp/53'"),
    ("tcp/", "''"),
    ("tcp/0", "'0'"),
    ("tcp/22-", "''"),
    ("tcp/-22", "''"),
    ("tcp/10-9", "'tcp/10-9'"),
    ("tcp/1-2-3", "'2-3'"),
    ("tcp/1-65536", "'65536'"),
    ("tcp/22/udp", "'22/udp'"),
    ("icmp/22", "'icmp'"),
    ("/22", "''"),
]


@pytest.mark.parametrize(("text", "quoted"), NO_LISTS)
def test_no_ports(text: str, quoted: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_ports(text)
    assert quoted in str(caught.value)


def test_permitted_reaches_both_ends_and_no_further() -> None:
    ports = parse_ports("tcp/22, tcp/8000-8010, udp/53")
    allowed = {(protocol, port) for protocol in (TCP, UDP) for port in range(65536) if permitted(ports, protocol, port)}
    assert allowed == {(TCP, 22), (UDP, 53), *((TCP, port) for port in range(8000, 8011))}
    assert not permitted((), TCP, 22)
    assert [permitted(ANY_TCP, TCP, port) for port in (0, 1, 65535, 65536)] == [False, True, True, False]
    assert not permitted(ANY_TCP, UDP, 22)


def test_requests_as_text() -> None:
    assert str(Request(Verb.OPEN, TCP, 22)) == "open tcp/22"
    assert str(Request(Verb.CLOSE, UDP, 51820)) == "close udp/51820"
