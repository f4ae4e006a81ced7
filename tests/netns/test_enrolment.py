"""A profile's life, from the line that is pasted to the day on which it opens nothing: real commands and packets."""

import re
import subprocess
import time
from pathlib import Path

import pytest

from knockknock.core import dates
from knockknock.profiles.counters import read_counter

from .lab import KNOCK_PORT, Daemon, Lab, until

SERVER = "10.77.0.1"


@pytest.fixture(params=["profiles", "profiles.db"])
def served(lab: Lab, request: pytest.FixtureRequest) -> Lab:
    """A lab with a service, and profiles in a directory or a database."""
    lab.listen(22)
    lab.configure(profiles=f"{lab.directory}/etc/{request.param}", sandbox="required")
    return lab


def admin(lab: Lab, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """knockknock-genprofile on the server."""
    return lab.run("server", *lab.program("knockknock-genprofile"), *words, "--config", lab.configure(), check=check)


def line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the line that is to be pasted, the last one of a command's output."""
    return done.stdout.splitlines()[-1]


def enroll(lab: Lab, text: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """knockknock --enroll on the client."""
    return lab.run("client", *lab.program("knockknock"), "--enroll", *words, text=text, check=check)


def opens(lab: Lab) -> bool:
    """Return True if a knock of the client opens the port."""
    lab.knock(SERVER)
    return lab.opens(SERVER, within=1)


def put_aside(lab: Lab) -> Path:
    """The client's profile under another name, by which it is called no more."""
    there = lab.home / ".knockknock" / SERVER
    return there.rename(there.with_name(f"{SERVER}-{time.monotonic_ns()}"))


def put_back(lab: Lab, profile: Path) -> None:
    there = lab.home / ".knockknock" / SERVER
    if there.exists():
        put_aside(lab)
    profile.rename(there)


def new(lab: Lab, *words: str) -> subprocess.CompletedProcess[str]:
    return admin(lab, "laptop", str(KNOCK_PORT), "--for", SERVER, *words)


def test_from_the_mint_to_the_revocation(served: Lab) -> None:
    enroll(served, line(new(served)))
    served.daemon()
    assert opens(served)
    listed = admin(served, "--list").stdout
    assert re.search(rf"^laptop +tcp/{KNOCK_PORT} +compact +1 +never +tcp/22$", listed, re.MULTILINE)
    assert "The daemon hears it no more" in admin(served, "--revoke", "laptop", "--reload").stdout
    assert not opens(served)
    assert not (served.directory / "state" / "laptop").exists()
    assert "laptop" not in admin(served, "--list").stdout
    enroll(served, line(new(served, "--reload")), "--replace")
    assert opens(served)


def test_a_name_is_revoked_and_made_anew_with_no_word_to_the_daemon(served: Lab) -> None:
    """The daemon would go on writing the counter of the old keys in the place of the new one's."""
    enroll(served, line(new(served)))
    served.daemon()
    for _ in range(3):
        assert opens(served)
    assert "hears it until its next reload" in admin(served, "--revoke", "laptop").stdout
    assert opens(served), "not told yet"
    second = line(new(served))
    assert not opens(served), "it was told before the new one was made"
    enroll(served, second, "--replace")
    admin(served, "other", "4243", "--reload")
    assert opens(served)
    assert read_counter(f"{served.directory}/state/laptop") == 1


def test_rotation(served: Lab) -> None:
    enroll(served, line(new(served)))
    daemon = served.daemon()
    assert opens(served)
    done = admin(served, "--rotate", "laptop", "--for", SERVER, "--grace", "1h")
    assert "--enroll --replace" in done.stdout
    assert opens(served), daemon.log()
    daemon.says("laptop.old: open tcp/22")
    old = put_aside(served)
    enroll(served, line(done))
    assert opens(served), "the new keys"
    daemon.says("reloaded")
    until(lambda: daemon.log().count(" laptop: open tcp/22") == 2)
    new_one = put_aside(served)
    put_back(served, old)
    assert opens(served), "the old ones still"
    again = admin(served, "--rotate", "laptop", check=False)
    assert (again.returncode, "which has not expired: revoke laptop.old" in again.stderr) == (1, True)
    admin(served, "--revoke", "laptop.old", "--reload")
    assert not opens(served)
    put_back(served, new_one)
    assert opens(served)
    assert read_counter(f"{served.directory}/state/laptop") == 2


def test_the_grace_ends_by_itself(served: Lab) -> None:
    enroll(served, line(new(served)))
    daemon = served.daemon()
    done = admin(served, "--rotate", "laptop", "--for", SERVER, "--grace", "3s")
    end = dates.parse(re.findall(r"good until (\S+),", done.stdout)[0])
    until(lambda: time.time() > end)
    assert not opens(served)
    daemon.says("refused expired: knock from 10.77.0.2 at port 4242, laptop.old asked to open tcp/22")
    enroll(served, line(done), "--replace")
    assert opens(served)
    admin(served, "--rotate", "laptop", "--for", SERVER, "--grace", "1h")
    assert opens(served), "the expired one is gone, and its name is free"
    said = admin(served, "revoke", "laptop", "--reload").stdout
    assert "laptop.old, and not revoked: revoke laptop.old, too" in said
    assert opens(served), "as it is said"
    assert "old" not in admin(served, "revoke", "laptop.old", "--reload").stdout.removeprefix("Revoked laptop.old.")
    assert not opens(served)


def test_a_revocation_is_silent_on_old_keys_that_have_expired(served: Lab) -> None:
    new(served)
    done = admin(served, "rotate", "laptop", "--grace", "1s")
    end = dates.parse(re.findall(r"good until (\S+),", done.stdout)[0])
    until(lambda: time.time() > end)
    assert "laptop.old" not in admin(served, "revoke", "laptop").stdout


def test_no_knock_is_good_twice_because_its_keys_were_rotated(served: Lab) -> None:
    """Knocks that were heard before a rotation are refused as replays when their keys have a new name."""
    enroll(served, line(new(served)))
    served.tell_all()
    daemon = served.daemon()
    pcap = served.directory / "knocks.pcap"
    for _ in range(3):
        served.knock(SERVER, "--pcap", str(pcap))
        assert served.opens(SERVER)
    state = served.directory / "state" / "laptop.old"
    admin(served, "--rotate", "laptop", "--for", SERVER)
    assert read_counter(str(state)) == 3
    replay(served, pcap)
    daemon.says("refused replay: knock from 10.77.0.2 at port 4242, laptop.old asked to open tcp/22")
    assert not served.connects(SERVER)


REPLAY = """
import socket, sys
from scapy.utils import rdpcap
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
for packet in rdpcap(sys.argv[1]):
    raw.sendto(bytes(packet), (sys.argv[2], 0))
"""


def replay(lab: Lab, pcap: Path) -> None:
    """Send what was recorded once more."""
    lab.run("client", lab.program("")[0], "-c", REPLAY, str(pcap), SERVER)


def test_expiry(served: Lab) -> None:
    daemon = served.daemon()
    for seconds in (3, 15, 60):  # a busy machine needs more of them to knock in time
        end = int(time.time()) + seconds
        done = new(served, "--expires", dates.show(end), "--reload")
        assert f", until {dates.show(end)}" in enroll(served, line(done)).stdout
        served.knock(SERVER, check=False)
        if served.opens(SERVER, within=1):
            break
        assert time.time() > end
        put_aside(served)
        admin(served, "revoke", "laptop", "--reload")
    else:
        raise AssertionError("it never opened")
    until(lambda: time.time() > end, seconds + 5)
    put_aside(served)
    assert "(over)" in admin(served, "--list").stdout
    assert "(this machine's clock says that it is over)" in enroll(served, line(done)).stdout
    profile = served.home / ".knockknock" / SERVER
    (profile / "counter").write_text("1\n")
    assert "opens nothing: ask for a new one" in served.knock(SERVER, check=False).stderr
    (profile / "config").write_text(re.sub("expires = .*\n", "", (profile / "config").read_text()))
    assert not opens(served), "the server goes by its own copy"
    daemon.says("refused expired: knock from 10.77.0.2 at port 4242, laptop asked to open tcp/22")
    refused = admin(served, "--rotate", "laptop", check=False)
    assert "say --expires with a later date" in refused.stderr
    renewed = admin(served, "--rotate", "laptop", "--for", SERVER, "--expires", "2100-01-01", "--grace", "0s")
    enroll(served, line(renewed), "--replace")
    assert opens(served)


def test_a_file_and_a_pipe(served: Lab) -> None:
    """Enrolment as genprofile advises: the file by standard input, as through ssh, and nothing of it in arguments."""
    out = served.directory / "line"
    done = new(served, "--out", str(out))
    assert "knockknock1:" not in done.stdout
    assert out.stat().st_mode & 0o777 == 0o600
    enroll(served, out.read_text())
    daemon: Daemon = served.daemon()
    assert opens(served)
    assert "knockknock1:" not in daemon.log()


def test_a_daemon_that_cannot_reload(served: Lab) -> None:
    """Nobody is told that a key is gone while it is still heard."""
    enroll(served, line(new(served)))
    daemon = served.daemon()
    path = served.configure()
    good = Path(path).read_text()
    Path(path).write_text(good.replace("nflog", "kmsg"))
    words = [*served.program("knockknock-genprofile"), "--revoke", "laptop", "--reload", "--config", path]
    done = served.run("server", *words, check=False)
    assert done.returncode == 1
    assert (
        f"the daemon (process {daemon.process.pid}) still uses what it read before: see why in its log, or"
        in done.stderr
    )
    daemon.says("not reloaded, the old configuration stays: a new source takes a restart")
    assert opens(served)
    Path(path).write_text(good)
    enroll(served, line(new(served)), "--replace")
    Path(path).write_text(good.replace("nflog", "kmsg"))
    words[1:] = [words[1], "--rotate", "laptop", "--config", path]
    assert "still uses what it read before" in served.run("server", *words, check=False).stderr
    Path(path).write_text(good)
    assert "laptop.old" not in admin(served, "--list").stdout, "nothing was begun"
    admin(served, "--revoke", "laptop", "--reload")
    assert not opens(served)
