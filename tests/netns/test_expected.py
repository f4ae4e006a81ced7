"""The kernel tells of knocks alone, and of nothing else at a knock port."""

import random
import re
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from knockknock.core.headers import Carried
from knockknock.core.request import Request, Verb
from knockknock.profiles import files
from knockknock.root import ruleset
from knockknock.schemes.syn import seal
from knockknock.schemes.syn.profile import Profile
from knockknock.server import policy_reader

from .lab import KNOCK_PORT, Lab, until
from .test_floods import TIMESTAMPS, cpu, forged, in_64, send, syns

HOST, HOST6 = "10.77.0.1", "fd77:0::1"
CLIENTS = {HOST: socket.inet_aton("10.77.0.2"), HOST6: socket.inet_pton(socket.AF_INET6, "fd77:0::2")}
"""The client's address for each of the server's."""
AHEAD = 1020
"""Counters: the default error_window and resync_window."""


def elements(lab: Lab, name: str) -> int:
    """Number of elements in a set of the daemon's table."""
    listed = lab.run("server", "nft", "list", "set", "inet", "knockknock", name, check=False).stdout
    return listed.count(",") + ("elements" in listed)


def counted(lab: Lab, name: str) -> int:
    """Number of packets that a counter of the daemon's table has counted."""
    listed = lab.run("server", "nft", "list", "counter", "inet", "knockknock", name).stdout
    found = re.search(r"packets (\d+)", listed)
    assert found
    return int(found[1])


def sealed(lab: Lab, counter: int, name: str = "laptop") -> Carried:
    """Fields of a profile's knock to open port 22, with some counter."""
    profile = files.load_profile(f"{lab.settings['profiles']}/{name}")
    assert isinstance(profile, Profile)
    return seal.carry(profile.format, seal.seal(profile, counter, Request(Verb.OPEN, 6, 22), CLIENTS[HOST]))


def say(lab: Lab, fields: Carried, port: int = KNOCK_PORT, sender: str = "other", host: str = HOST) -> None:
    """Send a SYN with some fields, from the client's address."""
    options = b"" if fields.timestamp is None else TIMESTAMPS
    send(lab, syns(port, [CLIENTS[host]], lambda: fields, options), sender=sender)


def junk() -> Carried:
    bits = random.getrandbits
    return Carried(bits(16), bits(32), 0, bits(16), bits(32))


@pytest.mark.parametrize("format", ["compact", "stealth", "classic"])
@pytest.mark.parametrize("host", [HOST, HOST6])
def test_knocks_open(lab: Lab, format: str, host: str) -> None:
    lab.mint("laptop", "--format", format)
    lab.listen(22)
    daemon = lab.daemon()
    daemon.says("the kernel expects the next 1020 knocks of 1 profile(s)")
    assert elements(lab, "every_syn") == 0
    each = 1 if format == "classic" else 2
    assert elements(lab, format) == AHEAD * each
    for number in range(1, 4):
        assert not lab.connects(host)
        lab.knock(host)
        assert lab.opens(host)
        assert counted(lab, "told") == number
        until(lambda: elements(lab, format) == AHEAD * each)


@pytest.mark.parametrize(("format", "host"), [("compact", HOST), ("stealth", HOST6), ("classic", HOST)])
def test_a_flood_is_not_even_told_of(lab: Lab, format: str, host: str) -> None:
    """Of any source, also the client's own, at full speed; it costs the daemon nothing."""
    lab.mint("laptop", "--format", format)
    lab.listen(22)
    daemon = lab.daemon()
    before, passed = cpu(daemon), counted(lab, "passed")
    strangers = forged(20000) if host == HOST else in_64(forged(20000))
    junk_syns = syns(KNOCK_PORT, [*strangers, *[CLIENTS[host]] * 5000], junk, TIMESTAMPS)
    flooder = threading.Thread(target=send, args=(lab, junk_syns))
    flooder.start()
    for _ in range(3):
        lab.knock(host)
        assert lab.opens(host), daemon.log()
    flooder.join()
    assert counted(lab, "told") == 3
    assert 25000 <= counted(lab, "passed") - passed < 25100, "the rest are tries to connect"
    assert cpu(daemon) - before < 0.25
    assert "refused" not in daemon.log()


@pytest.mark.parametrize("format", ["compact", "stealth", "classic"])
@pytest.mark.parametrize("host", [HOST, HOST6])
def test_what_is_used_up_or_has_a_field_of_another_is_not_told_of(lab: Lab, format: str, host: str) -> None:
    """Each sealed field by itself makes the difference, by its lowest bit."""
    lab.mint("laptop", "--format", format)
    lab.listen(22)
    lab.daemon()
    lab.knock(host)
    assert lab.opens(host)
    until(lambda: elements(lab, format) == AHEAD * (1 if format == "classic" else 2))
    good = sealed(lab, 5)
    present = {name: value for name, value in good._asdict().items() if value is not None}
    assert len(present) == 4
    changed = [good._replace(**{name: value ^ 1}) for name, value in present.items()]
    changed += [sealed(lab, 0), sealed(lab, 1 + AHEAD)]
    passed = counted(lab, "passed")
    for fields in changed:
        say(lab, fields, host=host)
    until(lambda: counted(lab, "passed") - passed == len(changed))  # the first waits for its neighbour's address
    assert counted(lab, "told") == 1
    say(lab, good, sender="client", host=host)
    assert lab.opens(host)
    assert counted(lab, "told") == 2


NFT = {
    "flushed": "flush ruleset",
    "deleted": "delete table inet knockknock",
    "saved and restored": "flush ruleset\n{saved}",
    "replaced by one like it": "delete table inet knockknock\n{like}",
}
"""What somebody else does to our table before everything has to be handed over."""


@pytest.mark.parametrize("what", NFT)
def test_everything_is_handed_over_to_a_new_table(lab: Lab, what: str) -> None:
    lab.mint("laptop")
    lab.listen(22)
    daemon = lab.daemon()
    saved, used = lab.run("server", "nft", "list", "ruleset").stdout, sealed(lab, 0)
    like = ruleset.table(policy_reader.policy(lab.configure()), {})
    lab.knock(HOST)
    daemon.says("open tcp/22")
    (lab.directory / "commands").write_text(NFT[what].format(saved=saved, like=like))
    lab.run("server", "nft", "-f", str(lab.directory / "commands"))
    daemon.says("placed again")
    until(lambda: (elements(lab, "compact"), elements(lab, "every_syn")) == (AHEAD * 2, 0))
    lab.guard("nftables")
    lab.knock(HOST)
    assert lab.opens(HOST), daemon.log()
    assert counted(lab, "told") == 1
    passed = counted(lab, "passed")
    for fields in (junk(), used):
        say(lab, fields)
    assert (counted(lab, "told"), counted(lab, "passed") - passed) == (1, 2)


def test_a_reload_hands_over_what_is_new(lab: Lab) -> None:
    """Test that a new profile's knocks are heard, and that the kernel no longer tells of knocks of one that is gone."""
    lab.mint("laptop")
    lab.listen(22)
    daemon = lab.daemon()
    gone = sealed(lab, 0)
    lab.mint("phone", port=KNOCK_PORT + 1)
    lab.run("server", "rm", "-r", f"{lab.settings['profiles']}/laptop")
    daemon.reload()
    daemon.says("reloaded")
    until(lambda: (elements(lab, "compact"), elements(lab, "every_syn")) == (AHEAD * 2, 0))
    lab.knock(HOST)
    assert lab.opens(HOST), daemon.log()
    passed = counted(lab, "passed")
    for port in (KNOCK_PORT, KNOCK_PORT + 1):
        say(lab, gone, port)
    assert (counted(lab, "told"), counted(lab, "passed") - passed) == (1, 2)


@pytest.mark.parametrize("settings", [{"expected_size": "3000"}, {"expected_size": "20"}, {}])
def test_ports_of_which_every_syn_is_told(lab: Lab, settings: dict[str, str]) -> None:
    """Those of a profile that cannot be listed, or has no room: its knocks are heard, as are those at other ports."""
    lab.mint("bound", "--bind-source", port=KNOCK_PORT + 1, hosts=(HOST6,))
    lab.mint("laptop", hosts=(HOST,))
    lab.configure(**settings)
    lab.listen(22)
    daemon = lab.daemon()
    daemon.says(f"every SYN to tcp/{KNOCK_PORT + 1} is logged, because knocks of bound cannot be listed")
    assert elements(lab, "compact") == {"3000": 2040, "20": 0}.get(settings.get("expected_size", ""), 2040)
    every = [KNOCK_PORT, KNOCK_PORT + 1] if settings.get("expected_size") == "20" else [KNOCK_PORT + 1]
    assert elements(lab, "every_syn") == len(every)
    for host in (HOST, HOST6):
        lab.knock(host)
        assert lab.opens(host), daemon.log()
    said = lab.run("server", *lab.program("knockknock-daemon"), "--config", lab.configure(), "--status").stdout
    assert f"every SYN to {', '.join(f'tcp/{port}' for port in every)} is logged" in said


def test_a_doctor_has_everything_told_for_its_time(lab: Lab) -> None:
    lab.mint("laptop")
    daemon = lab.daemon()
    words = ["--config", lab.configure(), "--doctor", "--wait", "2"]
    doctor = lab.start("server", *lab.program("knockknock-daemon"), *words, stdout=subprocess.PIPE)
    assert doctor.stdout
    while "knock now" not in doctor.stdout.readline():
        pass
    say(lab, junk())
    daemon.says("refused unknown: knock from 10.77.0.2")
    said = doctor.communicate(timeout=20)[0]
    assert "knock" in said
    until(lambda: elements(lab, "doctor") == 0, 10)
    passed = counted(lab, "passed")
    say(lab, junk())
    assert counted(lab, "passed") - passed == 1


def test_a_doctor_leaves_what_cannot_be_listed_as_it_is(lab: Lab) -> None:
    lab.mint("bound", "--bind-source")
    lab.listen(22)
    daemon = lab.daemon()
    words = ["--config", lab.configure(), "--doctor", "--wait", "0.5"]
    lab.run("server", *lab.program("knockknock-daemon"), *words, check=False)
    until(lambda: elements(lab, "doctor") == 0, 10)
    assert elements(lab, "every_syn") == 1
    lab.knock(HOST)
    assert lab.opens(HOST), daemon.log()


def test_what_is_beyond_the_window_is_limited_for_each_source(lab: Lab) -> None:
    """It uses nothing up, so whoever has seen it may repeat it."""
    lab.mint("laptop")
    lab.daemon()
    ahead = sealed(lab, 500)
    send(lab, syns(KNOCK_PORT, [CLIENTS[HOST]] * 2000, lambda: ahead))
    assert 1 <= counted(lab, "told") <= 100


def test_addresses_of_the_server_are_not_told_of(lab: Lab) -> None:
    """Neither that of the interface nor another one, nor the network's broadcast address, whoever forges them."""
    lab.mint("bound", "--bind-source")
    lab.daemon()
    for source in ("10.77.0.1", "10.77.1.1", "10.77.0.255", "10.77.0.9"):
        send(lab, syns(KNOCK_PORT, [socket.inet_aton(source)], junk, TIMESTAMPS), sender="client")
    assert counted(lab, "told") == 1
    for source in ("fd77:0::1", "fd77:1::1", "fd77:0::9"):
        send(lab, syns(KNOCK_PORT, [socket.inet_pton(socket.AF_INET6, source)], junk, TIMESTAMPS), sender="client")
    until(lambda: counted(lab, "told") == 2)  # the last of them


def test_a_reload_that_fails_half_way(lab: Lab) -> None:
    """The sets were emptied by then; they are filled again."""
    lab.mint("laptop")
    lab.configure(protect="tcp/22")
    lab.listen(22)
    daemon = lab.daemon()
    lab.gate.unlink()
    lab.gate.mkdir()
    daemon.reload()
    daemon.says("not reloaded")
    until(lambda: (elements(lab, "compact"), elements(lab, "every_syn")) == (AHEAD * 2, 0))
    lab.knock(HOST)
    assert lab.opens(HOST), daemon.log()
    lab.gate.rmdir()


def test_values_are_roots_alone(lab: Lab) -> None:
    lab.mint("laptop")
    lab.daemon()
    asked = ["nft", "list", "set", "inet", "knockknock", "compact"]
    assert "elements" in lab.run("server", *asked).stdout
    done = lab.run("server", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *asked, check=False)
    assert done.returncode != 0
    assert "elements" not in done.stdout
    shown = lab.run("server", "nft", "-t", "list", "ruleset").stdout
    assert "set compact" in shown
    assert "elements" not in shown.partition("set compact")[2].partition("}")[0]


def test_a_restart_expects_what_comes_next(lab: Lab) -> None:
    lab.mint("laptop")
    lab.listen(22)
    daemon = lab.daemon()
    for _ in range(2):
        lab.knock(HOST)
        assert lab.opens(HOST)
    assert daemon.stop() == 0
    lab.daemon()
    assert elements(lab, "compact") == AHEAD * 2
    say(lab, sealed(lab, 1))
    assert counted(lab, "told") == 0
    lab.knock(HOST)
    assert lab.opens(HOST)
    assert Path(lab.settings["state"], "laptop").exists()
