"""Thousands of profiles, in a directory and in a database: they change and are read again while knocks go on."""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from knockknock.core.key_text import write_key
from knockknock.core.request import parse_ports
from knockknock.profiles.counters import read_counter
from knockknock.profiles.text import write_config
from knockknock.schemes.syn.profile import Profile

from .lab import DELAY, KNOCK_PORT, Daemon, Lab, until

HOST, OTHER = "10.77.0.1", "10.77.1.1"
MANY = {"profiles": 600, "profiles.db": 3000}
"""A directory takes longer to be made than to be read."""
TEXT = write_config(Profile("x", b"", b"", KNOCK_PORT, "compact", parse_ports("tcp/22")))


@pytest.fixture(params=list(MANY))
def place(lab: Lab, request: pytest.FixtureRequest) -> Path:
    """Place of the profiles, one of them minted. In the sandbox; by nflog, as everybody's packets are in kmsg."""
    lab.listen(22)
    place = lab.directory / "etc" / str(request.param)
    lab.configure(profiles=str(place), source="nflog", sandbox="required")
    mint(lab, "laptop", HOST)
    return place


def mint(lab: Lab, name: str, host: str, *options: str) -> None:
    """Make a profile; the client enrols."""
    words = [name, str(KNOCK_PORT), "--config", lab.configure(), "--for", host, *options]
    printed = lab.run("server", *lab.program("knockknock-genprofile"), *words).stdout
    assert "Made" in printed
    lab.run("client", *lab.program("knockknock"), "--enroll", "--replace", text=printed.splitlines()[-1])


def change(place: Path, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
    with contextlib.closing(sqlite3.connect(place)) as connection:
        connection.executemany(statement, rows)
        connection.commit()


def fill(lab: Lab, place: Path, first: int) -> None:
    """Put profiles and their counters in as that many mints would."""
    names = [f"client-{number}" for number in range(first, first + MANY[place.name])]
    state = os.stat(lab.settings["state"])
    for name in names:
        file = Path(lab.settings["state"]) / name
        file.write_text("0\n")
        os.chown(file, state.st_uid, state.st_gid)
    if place.suffix:
        change(
            place,
            "INSERT INTO profile VALUES (?, ?, ?, ?)",
            [(name, os.urandom(32), os.urandom(32), TEXT) for name in names],
        )
        return
    for name in names:
        (place / name).mkdir(0o750)
        for kind in ("config", "cipher.key", "mac.key"):
            (place / name / kind).write_text(TEXT if kind == "config" else write_key(os.urandom(32)))
            (place / name / kind).chmod(0o640)
    subprocess.run(["chgrp", "-R", str(place.stat().st_gid), str(place)], check=True)


def remove(place: Path, *names: str) -> None:
    if place.suffix:
        change(place, "DELETE FROM profile WHERE name = ?", [(name,) for name in names])
    else:
        for name in names:
            shutil.rmtree(place / name)


def reconfigure(place: Path, name: str, before: str, after: str) -> None:
    """Change a profile's config on the server."""
    if place.suffix:
        change(place, "UPDATE profile SET config = replace(config, ?, ?) WHERE name = ?", [(before, after, name)])
    else:
        config = place / name / "config"
        config.write_text(config.read_text().replace(before, after))


def reloaded(daemon: Daemon) -> int:
    return daemon.log().count("reloaded")


def reload(daemon: Daemon) -> None:
    """Reload, and wait until it is done."""
    before = reloaded(daemon)
    daemon.reload()
    until(lambda: reloaded(daemon) > before, 60)


def opens(lab: Lab, daemon: Daemon, host: str = HOST) -> None:
    lab.knock(host)
    assert lab.opens(host), daemon.log()


def test_added_changed_removed(lab: Lab, place: Path) -> None:
    lab.tell_all()
    daemon = lab.daemon()
    opens(lab, daemon)
    mint(lab, "phone", OTHER)
    reload(daemon)
    daemon.says(f"2 profile(s), knock port(s) tcp/{KNOCK_PORT}")
    opens(lab, daemon, OTHER)
    opens(lab, daemon)
    reconfigure(place, "laptop", "tcp/22", "tcp/23")
    reload(daemon)
    lab.knock(HOST)
    daemon.says("refused not permitted")
    assert not lab.connects(HOST)
    reconfigure(place, "laptop", "tcp/23", "tcp/22")
    reload(daemon)
    opens(lab, daemon)
    remove(place, "phone")
    reload(daemon)
    daemon.says(f"1 profile(s), knock port(s) tcp/{KNOCK_PORT}")
    lab.knock(OTHER)
    time.sleep(0.2)
    assert not lab.connects(OTHER)
    assert read_counter(f"{lab.settings['state']}/laptop") == 4
    assert daemon.stop() == 0


def test_no_knock_is_lost_during_a_reload(lab: Lab, place: Path) -> None:
    """Half of the profiles go, as many come, and a wider window touches each that stays."""
    lab.configure(log="stderr")
    many = MANY[place.name]
    fill(lab, place, 0)
    daemon = lab.daemon()
    daemon.says(f"{many + 1} profile(s), knock port(s) tcp/{KNOCK_PORT}", 30)
    fill(lab, place, many)
    remove(place, *(f"client-{number}" for number in range(0, many, 2)))
    lab.configure(error_window="30")
    daemon.reload()
    knocks = 0
    while not reloaded(daemon) or knocks < 5:
        opens(lab, daemon)
        knocks += 1
    daemon.says(f"{2 * many + 1 - many // 2} profile(s), knock port(s) tcp/{KNOCK_PORT}")
    until(lambda: daemon.log().count("laptop: open tcp/22") == knocks)  # it is told of after it is open
    opens(lab, daemon)
    assert ", laptop asked to" not in daemon.log(), "none of its knocks was refused"


@pytest.mark.parametrize("place", ["profiles.db"], indirect=True)
def test_stops_at_once_during_a_reload_and_reloads_again_after_one(lab: Lab, place: Path) -> None:
    fill(lab, place, 0)
    daemon = lab.daemon()
    lab.configure(error_window="60")
    daemon.reload()
    time.sleep(0.1)
    lab.configure(error_window="20", delay=str(DELAY + 1))
    daemon.reload()
    until(lambda: reloaded(daemon) == 2, 60)
    opens(lab, daemon)
    daemon.says(f"{DELAY + 1} s, one connection")
    lab.configure(error_window="200")
    daemon.reload()
    time.sleep(0.3)
    begin = time.monotonic()
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(10) == 0
    assert time.monotonic() - begin < 5
    assert reloaded(daemon) == 2, "it was not done yet"
    assert "knockknock" not in lab.ruleset()


def test_a_reload_that_fails_changes_nothing(lab: Lab) -> None:
    lab.listen(22)
    place = lab.directory / "etc" / "profiles.db"
    lab.configure(profiles=str(place), source="nflog", sandbox="required")
    mint(lab, "laptop", HOST)
    daemon = lab.daemon()
    mint(lab, "phone", OTHER)
    good = place.rename(f"{place}.good")
    place.write_text("no database " * 100)
    place.chmod(0o640)
    os.chown(place, -1, good.stat().st_gid)
    daemon.reload()
    daemon.says(f"not reloaded, the old configuration stays: {place} is not a database of profiles")
    opens(lab, daemon)
    good.rename(place)
    place.chmod(0o600)
    daemon.reload()
    daemon.says(f"{place} cannot be read: Permission denied; it must be root's, and its group the daemon's")
    opens(lab, daemon)
    place.chmod(0o640)
    reload(daemon)
    opens(lab, daemon, OTHER)


def test_check_and_an_empty_start(lab: Lab) -> None:
    """A daemon starts before the first mint; --check names what is wrong with a row."""
    lab.listen(22)
    place = lab.directory / "etc" / "profiles.db"
    lab.configure(profiles=str(place), source="nflog", sandbox="required")
    daemon = lab.daemon()
    daemon.says("nobody can knock yet: mint a profile")
    mint(lab, "laptop", HOST)
    reload(daemon)
    opens(lab, daemon)
    lab.guard("nftables")
    words = [*lab.program("knockknock-daemon"), "--check", "--config", lab.configure()]
    done = lab.run("server", *words)
    assert f"profile laptop: knock port tcp/{KNOCK_PORT}, compact, may open tcp/22" in done.stdout
    reconfigure(place, "laptop", "ports", "prots")
    done = lab.run("server", *words, check=False)
    assert done.returncode == 1
    assert f"profile laptop: {place}, config of laptop:4: there is no key 'prots'" in done.stderr
