"""A knock opens its port, at the first try, while others flood the knock port."""

import random
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import cast

import pytest

from knockknock.core.headers import Carried
from knockknock.core.headers import knock as packet_of
from knockknock.core.request import Request, Verb
from knockknock.profiles import files
from knockknock.root.ruleset import BURST, SET_SIZE
from knockknock.schemes.syn import seal
from knockknock.schemes.syn.profile import Profile

from .lab import Daemon, Lab, inside, until

HOST, HOST6 = "10.77.0.1", "fd77:0::1"
PORTS = {"kmsg": 4721, "nflog": 4722}
"""Knock ports that only this file uses, as the log of the kernel is one for all who test on a machine."""
RATE, SECONDS = 2000, 1.5
TIMESTAMPS = bytes.fromhex("0101080a0000000000000000")
"""TCP's option (RFC 7323), behind two for alignment."""
NEIGHBOUR, LAST = (socket.inet_aton(f"10.77.1.{last}") for last in (2, 3))


def syns(
    port: int,
    sources: list[bytes],
    fields: Callable[[], Carried] = lambda: Carried(7, 7, 0, 7),
    options: bytes = b"",
) -> list[bytes]:
    """One SYN from each source, all of one family, with some TCP options; fields: those of the next one."""
    size = 20 + len(options)
    tcp = struct.pack("!HHIIBBHHH", 4000, 1, 1, 0, size // 4 << 4, 2, 1024, 0, 0) + options
    if len(sources[0]) == 16:
        head, server = struct.pack("!IHBB32x", 0x60000000, size, 6, 64), socket.inet_pton(socket.AF_INET6, HOST6)
    else:
        head, server = struct.pack("!BBHHHBBH8x", 0x45, 0, 20 + size, 7, 0, 64, 6, 0), socket.inet_aton(HOST)
    return [packet_of(head + tcp, source, server, port, fields()) for source in sources]


def send(lab: Lab, packets: list[bytes], rate: int = 0, sender: str = "other") -> None:
    """Send packets of one family to the server; rate: in a second, 0 for as fast as it goes."""
    family, host = (socket.AF_INET6, HOST6) if packets[0][0] >> 4 == 6 else (socket.AF_INET, HOST)
    # The kernel asks for a neighbour's address from that of the packet that waits for it: the first one is not forged.
    with inside(lab.ns(sender)), socket.socket(family, socket.SOCK_DGRAM) as honest:
        honest.sendto(b"", (host, 9))
    with inside(lab.ns(sender)), socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        start = time.monotonic()
        for number, packet in enumerate(packets):
            if rate:
                time.sleep(max(0, start + number / rate - time.monotonic()))
            raw.sendto(packet, (host, 0))


def flood(lab: Lab, port: int, sources: list[bytes], rate: int = 0) -> None:
    """One SYN from each source."""
    send(lab, syns(port, sources), rate)


def forged(count: int) -> list[bytes]:
    """Addresses, from 10.78.0.0 on."""
    return [struct.pack("!I", 0x0A4E0000 + number) for number in range(count)]


def cpu(daemon: Daemon) -> float:
    """Seconds of CPU time."""
    return int(Path(f"/proc/{daemon.process.pid}/schedstat").read_text().split()[0]) / 1e9


def size(daemon: Daemon) -> int:
    """KiB of memory."""
    return int(Path(f"/proc/{daemon.process.pid}/smaps_rollup").read_text().partition("Rss:")[2].split()[0])


@pytest.fixture(params=[pytest.param("kmsg", marks=pytest.mark.kernel_log), "nflog"])
def daemon(request: pytest.FixtureRequest, lab: Lab) -> Daemon:
    lab.tell_all()
    return start(lab, request.param)


def start(lab: Lab, source: str) -> Daemon:
    lab.configure(source=source)
    lab.mint("laptop", port=PORTS[source])
    lab.listen(22)
    return lab.daemon()


@pytest.mark.parametrize("spoofed", [False, True], ids=["one source", "spoofed sources"])
def test_knocks_open_during_a_flood(lab: Lab, daemon: Daemon, spoofed: bool) -> None:
    count = int(RATE * SECONDS)
    sources = forged(count) if spoofed else [NEIGHBOUR] * count
    port = PORTS[lab.settings["source"]]
    flood(lab, port, sources[:1000], RATE)
    before = size(daemon)
    flooder = threading.Thread(target=flood, args=(lab, port, sources, RATE))
    flooder.start()
    for _ in range(3):
        lab.knock(HOST)
        assert lab.opens(HOST), daemon.log()
    flooder.join()
    assert size(daemon) < before + 1024, "it keeps something of what it refuses"


@pytest.fixture(scope="module")
def listening(walled: Lab) -> Iterator[Daemon]:
    walled.tell_all()
    one = start(walled, "nflog")
    yield one
    assert one.stop() == 0


@pytest.mark.parametrize("known", [10, 25], ids=["used", "unused"])
def test_knocks_open_while_values_of_one_that_was_seen_are_repeated(lab: Lab, known: int) -> None:
    """Ten in a flood of random junk, and ten in one with all of a knock but its window, which costs little more."""
    lab.tell_all()
    daemon = start(lab, "nflog")
    profile = cast(Profile, files.load_profile(f"{lab.settings['profiles']}/laptop"))
    port, client = PORTS["nflog"], socket.inet_aton("10.77.0.2")

    def sealed(counter: int) -> Carried:
        return seal.carry(profile.format, seal.seal(profile, counter, Request(Verb.OPEN, 6, 22), client))

    def knock(counter: int) -> None:
        send(lab, syns(port, [client], lambda: sealed(counter)), sender="client")
        assert lab.opens(HOST), f"{counter}: {daemon.log()}"

    bits, seen, costs = random.getrandbits, sealed(known), []
    assert seen.window is not None
    others = [window for window in range(1 << 16) if window != seen.window]
    for first, fields in (
        (0, lambda: Carried(bits(16), bits(32), 0, bits(16))),
        (11, lambda: seen._replace(window=random.choice(others))),
    ):
        before, packets = cpu(daemon), syns(port, forged(20000), fields)
        flooder = threading.Thread(target=send, args=(lab, packets))
        flooder.start()
        for counter in range(first, first + 10):
            knock(counter)
        flooder.join()
        knock(first + 10)  # behind all others
        costs.append(cpu(daemon) - before)
    assert costs[1] < 2.5 * costs[0], costs


def in_64(sources: list[bytes], number: int | None = None) -> list[bytes]:
    """IPv6 addresses: of one /64, which has a number, or each in a /64 of its own."""
    head = bytes.fromhex("fd78")
    if number is None:
        return [head + source + bytes(10) for source in sources]
    return [head + struct.pack("!IxxI", number, 0) + source for source in sources]


def test_each_source_is_limited_for_itself(walled: Lab, listening: Daemon) -> None:
    """Counted in what the daemon says of each flood when the next packet comes after a second."""

    def grown(known: int) -> Callable[[], bool]:
        return lambda: heard() > known

    few, all_of_them = range(1, 3 * BURST), range(200, 201)
    counted, before = [], 0

    def heard() -> int:
        log = listening.log()
        return log.count("refused unknown") + sum(map(int, re.findall(r"(\d+) more packets", log)))

    for sources in ([], [NEIGHBOUR] * 300, forged(200), in_64(forged(300), 1), in_64(forged(200))):
        if sources:
            flood(walled, PORTS["nflog"], sources)
        time.sleep(1.1)
        more = grown(heard())
        flood(walled, PORTS["nflog"], [LAST])
        until(more)
        counted.append(heard() - before - 1)
        before = heard()
    _, one_address, addresses, one_network, networks = counted
    assert one_address in few
    assert addresses in all_of_them
    assert one_network in few, "addresses of one /64 count as one"
    assert networks in all_of_them


def fill(lab: Lab, family: int) -> None:
    """Put as many sources as are counted into the firewall's own set, for longer than a flood would."""
    addresses = forged(SET_SIZE) if family == 4 else in_64(forged(SET_SIZE))
    texts = [str(ip_address(address)) for address in addresses]
    name = f"inet knockknock rate{family}"
    lab.run("server", "nft", f"flush set {name}")
    orders = [f"add element {name} {{ {text} timeout 60s }}" for text in texts]
    lab.run("server", "nft", "-f", "-", text="\n".join(orders))
    order = f"add element {name} {{ {'10.1.2.3' if family == 4 else 'fd77:9::'} }}"
    assert lab.run("server", "nft", order, check=False).returncode != 0, "the set is not full"


@pytest.mark.parametrize("family", [4, 6])
def test_more_sources_than_are_counted_silence_nobody(walled: Lab, listening: Daemon, family: int) -> None:
    host = HOST if family == 4 else HOST6
    # The client has the profile under two names, which do not know each other's counter.
    counter = Path(f"{walled.settings['state']}/laptop").read_text()
    (walled.home / ".knockknock" / host / "counter").write_text(counter)
    fill(walled, family)
    walled.knock(host)
    assert walled.opens(host), listening.log()
