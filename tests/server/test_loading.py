"""Profiles with the same secrets: a copy is refused, whichever way it came, and the older one stays usable."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from knockknock.core.counter_text import slot
from knockknock.core.events import Accepted
from knockknock.core.profile import Profile
from knockknock.errors import KnockError
from knockknock.profiles import counters, mint
from knockknock.schemes.otp import profile as otp
from knockknock.schemes.sequence import profile as sequence
from knockknock.schemes.syn.profile import Profile as SynProfile
from knockknock.server import instance, loading
from knockknock.server.config import Config
from knockknock.server.gatekeeper import Gatekeeper

from ..helpers import knock, profile

ME = (-1, -1)
GIVES = frozenset({"payload", "tcp timestamps"})


def syn(name: str) -> SynProfile:
    return profile(name, cipher_key=name.encode().ljust(32), mac_key=name.encode().rjust(32))


def one_time_password(name: str) -> otp.Profile:
    opens, closes = (f"{verb} {name}".encode().ljust(20) for verb in ("open", "close"))
    return otp.Profile(name, opens, closes, 99, "portable", profile().ports)


def one_time_sequence(name: str) -> sequence.Profile:
    steps = tuple(((6, ord(name[0])), (6, port)) for port in range(1000, 1003))
    return sequence.Profile(name, (), profile().ports, one_time="list", sequences=steps)


@pytest.fixture
def place(tmp_path: Path) -> Config:
    return Config(profiles=f"{tmp_path}/etc/profiles", state=f"{tmp_path}/var")


def put(place: Config, *profiles: Profile) -> None:
    for one in profiles:
        mint.mint(place.profiles, place.state, one, ME, instance.reload)


def copy(place: Config, name: str, other: str, *, counter: bool = True) -> None:
    """As an administrator does who wants to be safe, or has restored too much."""
    shutil.copytree(f"{place.profiles}/{name}", f"{place.profiles}/{other}")
    if counter:
        shutil.copy(f"{place.state}/{name}", f"{place.state}/{other}")


def heard(found: loading.Found) -> list[str]:
    return sorted(one.name for one, _ in found.changes)


def reload(keeper: Gatekeeper, config: Config) -> dict[str, KnockError]:
    work = loading.find(config, GIVES, keeper)
    while True:
        try:
            next(work)
        except StopIteration as done:
            found: loading.Found = done.value
            break
    assert set(loading.apply(keeper, found, config.state)) <= {None}
    return found.bad


@pytest.mark.parametrize("make", [syn, one_time_password, one_time_sequence])
@pytest.mark.parametrize("name", ["moxie.bak", "a", "z"])
def test_a_copy_is_refused_and_the_older_one_stays(place: Config, make: Callable[[str], Profile], name: str) -> None:
    put(place, make("moxie"), make("other"))
    copy(place, "moxie", name)
    found = loading.look(place, GIVES)
    assert heard(found) == ["moxie", "other"]
    assert list(found.bad) == [name]
    assert "it has the secrets of moxie, and a recorded knock would open once for each of the two" in str(
        found.bad[name]
    )


def test_no_knock_is_good_twice(place: Config) -> None:
    put(place, syn("moxie"))
    keeper = loading.start(place, loading.look(place, GIVES))
    copy(place, "moxie", "a copy")
    copy(place, "moxie", "acopy")
    assert set(reload(keeper, place)) == {"a copy", "acopy"}
    packet = knock(syn("moxie"), 0)
    assert [isinstance(keeper.hear(packet, 60.0 * at), Accepted) for at in range(3)] == [True, False, False]


def test_the_one_that_is_heard_stays_whatever_the_files_say(place: Config) -> None:
    put(place, syn("moxie"))
    keeper = loading.start(place, loading.look(place, GIVES))
    copy(place, "moxie", "older")
    os.utime(f"{place.profiles}/older/cipher.key", (1, 1))
    assert list(reload(keeper, place)) == ["older"]
    assert keeper.names() == {"moxie"}


def test_at_a_start_the_older_key_file_counts(place: Config) -> None:
    put(place, syn("moxie"))
    copy(place, "moxie", "older")
    os.utime(f"{place.profiles}/older/cipher.key", (1, 1))
    found = loading.look(place, GIVES)
    assert (heard(found), list(found.bad)) == (["older"], ["moxie"])


def test_one_without_a_counter_never_takes_the_place_of_one_that_has_one(place: Config) -> None:
    """It would begin anew, and all that was recorded would be good again: profiles of 0.8 bring a counter along."""
    old = profile("moxie", "classic", legacy=True)
    put(place, old)
    (Path(place.profiles) / "moxie" / "config").write_text("[main]\nknock_port = 4242\n")
    copy(place, "moxie", "a", counter=False)
    os.utime(f"{place.profiles}/a/cipher.key", (1, 1))
    found = loading.look(place, GIVES)
    assert (heard(found), list(found.bad)) == (["moxie"], ["a"])


def test_three_of_a_kind(place: Config) -> None:
    put(place, syn("m"))
    for name in ("a", "b", "x", "y"):
        copy(place, "m", name)
    for at, name in enumerate(("y", "a", "m", "b", "x")):
        os.utime(f"{place.profiles}/{name}/cipher.key", (at + 1, at + 1))
    found = loading.look(place, GIVES)
    assert (heard(found), sorted(found.bad)) == (["y"], ["a", "b", "m", "x"])


def test_the_other_one_counts_when_the_first_is_gone(place: Config) -> None:
    put(place, syn("moxie"))
    keeper = loading.start(place, loading.look(place, GIVES))
    copy(place, "moxie", "renamed")
    shutil.rmtree(f"{place.profiles}/moxie")
    assert reload(keeper, place) == {}
    assert keeper.names() == {"renamed"}


@pytest.mark.parametrize("legacy", [False, True])
def test_a_renamed_profile_goes_on_with_its_counter(place: Config, legacy: bool) -> None:
    """Whatever was put aside with it before: what was obeyed under the old name is not good under the new one."""
    one = profile("moxie", "classic", legacy=True) if legacy else syn("moxie")
    put(place, one)
    if legacy:
        (Path(place.profiles) / "moxie" / "config").write_text("[main]\nknock_port = 4242\n")
    else:
        shutil.copy(f"{place.state}/moxie", f"{place.state}/maxie")
    keeper = loading.start(place, loading.look(place, GIVES))
    for counter in range(3):
        event = keeper.hear(knock(one, counter), 60.0 * counter)
        assert isinstance(event, Accepted)
        assert isinstance(event.memory, int)
        counters.remember(f"{place.state}/moxie", event.memory)
    os.rename(f"{place.profiles}/moxie", f"{place.profiles}/maxie")
    assert reload(keeper, place) == {}
    assert keeper.names() == {"maxie"}
    heard_again = [isinstance(keeper.hear(knock(one, counter), 600.0 + counter), Accepted) for counter in range(4)]
    assert heard_again == [False, False, False, True]
    assert counters.read_counter(f"{place.state}/maxie") == 3


def test_rows_of_a_database(place: Config) -> None:
    place = place._replace(profiles=f"{place.profiles}.db")
    put(place, syn("moxie"))
    keeper = loading.start(place, loading.look(place, GIVES))
    with sqlite3.connect(place.profiles) as connection:
        connection.execute("INSERT INTO profile SELECT 'a', cipher_key, mac_key, config FROM profile")
    connection.close()
    shutil.copy(f"{place.state}/moxie", f"{place.state}/a")
    assert list(reload(keeper, place)) == ["a"]
    found = loading.look(place, GIVES)
    assert (heard(found), list(found.bad)) == (["moxie"], ["a"])


@pytest.mark.parametrize("kind", ["profiles", "profiles.db"])
def test_a_rotation_makes_no_twins(place: Config, kind: str) -> None:
    """Whatever a reload in the middle of it finds: before, with NAME.old alone, and with both."""
    place = place._replace(profiles=f"{os.path.dirname(place.profiles)}/{kind}")
    put(place, syn("moxie"))
    keeper = loading.start(place, loading.look(place, GIVES))
    fresh = syn("moxie")._replace(cipher_key=bytes(32), mac_key=bytes(32))
    mint.rotate(place.profiles, place.state, syn("moxie"), fresh, 2**33, 1, ME, instance.reload)
    assert reload(keeper, place) == {}
    assert keeper.names() == {"moxie", "moxie.old"}
    assert loading.look(place, GIVES).bad == {}
    mint.revoke(place.profiles, "moxie")
    assert reload(keeper, place) == {}
    assert keeper.names() == {"moxie.old"}


def test_a_flipped_bit_opens_nothing_twice_and_is_said(place: Config, caplog: pytest.LogCaptureFixture) -> None:
    """Whichever bit of the counter file it is: after a restart no knock that was obeyed is good again."""
    one = syn("moxie")
    put(place, one)
    path, obeyed = Path(place.state) / "moxie", [0, 1, 2, 7, 8, 20, 21, 22]
    for counter in obeyed:
        counters.remember(str(path), counter + 1)
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        caplog.clear()
        keeper = loading.start(place, loading.look(place, GIVES))
        assert f"profile moxie: a part of {path} is damaged" in caplog.text
        for at, counter in enumerate(obeyed):
            assert not isinstance(keeper.hear(knock(one, counter), 60.0 * at), Accepted), (bit, counter)
        assert isinstance(keeper.hear(knock(one, 24), 600.0), Accepted), "one knock is lost at most"


def test_what_a_crash_leaves_is_not_said_twice(place: Config, caplog: pytest.LogCaptureFixture) -> None:
    """A write that did not come to its end: the next knock mends the file, and is obeyed."""
    one = syn("moxie")
    put(place, one)
    path = Path(place.state) / "moxie"
    for counter in (1, 2, 3):
        counters.remember(str(path), counter)
    assert path.read_bytes() == slot(2) + slot(3)
    path.write_bytes(slot(4)[:20] + slot(2)[20:] + slot(3))
    keeper = loading.start(place, loading.look(place, GIVES))
    assert "is damaged" in caplog.text
    event = keeper.hear(knock(one, 4), 1.0)
    assert isinstance(event, Accepted)
    assert isinstance(event.memory, int)
    counters.remember(str(path), event.memory)
    caplog.clear()
    loading.start(place, loading.look(place, GIVES))
    assert caplog.text == ""


def test_a_one_time_sequence_is_not_good_again_either(place: Config) -> None:
    one = one_time_sequence("moxie")
    one = one._replace(sequences=tuple(((6, 7), (6, port)) for port in range(1000, 1010)))
    put(place, one)
    path = Path(place.state) / "moxie"
    for used in (1, 2, 3):
        counters.remember(str(path), used)
    for data in (b"x" + path.read_bytes()[1:], path.read_bytes()[:-1] + b"x"):
        path.write_bytes(data)
        (change,) = loading.look(place, GIVES).changes
        assert change[1] in (3, 4)


def test_bad_secrets_of_one_profile_stop_no_start(place: Config) -> None:
    """The daemon looks as root and recalls later: only then it sees that the two passwords are one."""
    put(place, syn("moxie"), one_time_password("tablet"))
    secrets = Path(place.profiles) / "tablet"
    shutil.copy(secrets / "opensecret", secrets / "closesecret")
    found = loading.look(place, GIVES, recall=False)
    keeper = loading.start(place, found)
    assert list(keeper.names()) == ["moxie"]
    assert set(found.bad) == {"tablet"}
