"""Profiles in one SQLite file: what is written is read, what is broken is named, who may not read it cannot."""

import contextlib
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knockknock.core.events import Accepted
from knockknock.errors import CounterError, KnockError, ProfileError
from knockknock.profiles import counters, database, enrolment, files, mint
from knockknock.profiles.text import check_name, named, write_config
from knockknock.schemes.syn.profile import Profile
from knockknock.server import instance, loading, policy_reader
from knockknock.server.config import Config
from knockknock.server.gatekeeper import Gatekeeper

from ..helpers import KNOCK_PORT, ROOT, command, knock, let_in, load_profiles, profile, tree

ME = (-1, -1)
KEYS = bytes(range(32)), bytes(range(32, 64))


@pytest.fixture
def place(tmp_path: Path) -> Config:
    """A configuration whose profiles are in a database that is not there yet."""
    return Config(profiles=f"{tmp_path}/etc/profiles.db", state=f"{tmp_path}/var")


def new(name: str = "alice", ports: str = "tcp/22", knock_port: int = KNOCK_PORT) -> Profile:
    """With keys of its own: no two names may have the same."""
    keys = KEYS if name == "alice" else [name.encode().ljust(32, fill) for fill in (b"c", b"m")]
    return profile(name, ports=ports, cipher_key=keys[0], mac_key=keys[1], knock_port=knock_port)


def put(place: Config, *names: str) -> None:
    for name in names:
        mint.mint(place.profiles, place.state, new(name), ME, instance.reload)


def write(place: Config, statement: str, *values: object) -> None:
    with contextlib.closing(sqlite3.connect(place.profiles)) as connection:
        connection.execute(statement, values)
        connection.commit()


def test_what_is_minted_is_read(place: Config) -> None:
    put(place, "bob", "alice")
    assert load_profiles(place.profiles) == ([new("alice"), new("bob")], {})
    assert counters.server_memory(place.state, place.profiles, new("bob")) == 0
    assert stat.S_IMODE(os.stat(place.profiles).st_mode) == 0o640
    assert os.listdir(os.path.dirname(place.profiles)) == ["profiles.db"]


def test_a_name_is_given_once_and_its_counter_stays(place: Config) -> None:
    put(place, "alice")
    counters.store_counter(f"{place.state}/alice", 77)
    with pytest.raises(ProfileError, match=r"there is a profile alice in .*already"):
        put(place, "alice")
    assert counters.read_counter(f"{place.state}/alice") == 77


def test_a_mint_that_fails_leaves_no_row(place: Config, tmp_path: Path) -> None:
    put(place, "alice")
    os.mkdir(f"{place.state}/bob")
    with pytest.raises(CounterError, match="cannot be stored"):
        mint.mint(place.profiles, place.state, new("bob"), ME, instance.reload)
    assert load_profiles(place.profiles) == ([new("alice")], {})
    assert sorted(os.listdir(tmp_path)) == ["etc", "var"]


def test_no_file_and_an_empty_one_hold_no_profiles(place: Config) -> None:
    assert load_profiles(place.profiles) == ([], {})
    os.mkdir(os.path.dirname(place.profiles))
    os.close(os.open(place.profiles, os.O_CREAT, 0o640))
    assert load_profiles(place.profiles) == ([], {})
    assert list(database.configs(place.profiles)) == []
    put(place, "alice")
    assert load_profiles(place.profiles) == ([new("alice")], {})


BROKEN = [
    ("cipher_key = x'00'", "alice", "cipher_key of alice is not a blob of 16 or 32 bytes"),
    ("mac_key = 4", "alice", "mac_key of alice is not a blob"),
    ("mac_key = NULL", "alice", "mac_key of alice is not a blob"),
    ("config = '[main]'", "alice", "config of alice: there must be a line knock_port"),
    ("config = '[main]' || char(10) || 'knock_prot = 1'", "alice", "config of alice:2: there is no key 'knock_prot'"),
    ("config = x'ff00'", "alice", "profiles.db, config of alice:"),
    ("config = NULL", "alice", "profiles.db, config of alice:"),
    ("name = '../alice'", "../alice", "cannot name a profile"),
    ("name = 'al' || char(10) || 'ice'", r"al\nice", "cannot name a profile"),
    ("name = cast(x'ff' as text)", "\ufffd", "cannot name a profile"),
    ("name = NULL", "", "'' cannot name a profile"),
]


@pytest.mark.parametrize(("change", "name", "says"), BROKEN)
def test_a_broken_row_is_named_and_the_others_go_on(place: Config, change: str, name: str, says: str) -> None:
    put(place, "alice", "bob")
    write(place, f"UPDATE profile SET {change} WHERE name = 'alice'")
    good, bad = load_profiles(place.profiles)
    assert good == [new("bob")]
    assert list(bad) == [name]
    assert says in str(next(iter(bad.values())))


def test_no_key_in_any_complaint(place: Config) -> None:
    put(place, "alice")
    write(place, "UPDATE profile SET cipher_key = 'secretsecret'")
    assert "secret" not in str(load_profiles(place.profiles)[1]["alice"])


def says(place: Config, text: str) -> None:
    """Reading it ends with one sentence, in the daemon and in the policy."""
    for read in (lambda: list(files.profiles(place.profiles)), lambda: list(database.configs(place.profiles))):
        with pytest.raises(ProfileError) as caught:
            read()
        assert str(caught.value).startswith(place.profiles)
        assert text in str(caught.value)
        assert "\n" not in str(caught.value)


def test_files_that_are_none(place: Config) -> None:
    os.mkdir(os.path.dirname(place.profiles))
    Path(place.profiles).write_bytes(b"no database" * 100)
    os.chmod(place.profiles, 0o640)
    says(place, "is not a database of profiles, or a damaged one: file is not a database")
    os.chmod(place.profiles, 0o644)
    says(place, f"is a secret that everybody on this machine may read: chmod o= {place.profiles}")
    os.unlink(place.profiles)
    os.mkdir(place.profiles, 0o700)
    says(place, "is not a database of profiles")


def test_wrong_schema(place: Config) -> None:
    os.mkdir(os.path.dirname(place.profiles))
    os.close(os.open(place.profiles, os.O_CREAT, 0o640))
    write(place, "CREATE TABLE other (name)")
    says(place, "no such table: profile")
    write(place, "CREATE TABLE profile (name)")
    says(place, "no such column: ")


def test_a_damaged_page_is_no_reason_to_take_half(place: Config) -> None:
    put(place, "first")
    with contextlib.closing(sqlite3.connect(place.profiles)) as connection:
        text = write_config(new())
        connection.executemany("INSERT INTO profile VALUES (?, ?, ?, ?)", [(f"p{n}", *KEYS, text) for n in range(300)])
        connection.commit()
    data = bytearray(Path(place.profiles).read_bytes())
    size = len(data) // 2 // 4096 * 4096
    data[size : size + 4 * 4096] = b"\xaa" * 4 * 4096
    Path(place.profiles).write_bytes(data)
    says(place, "malformed")
    with pytest.raises(ProfileError, match="malformed"):
        loading.look(place, frozenset())


def test_a_lock_that_stays_ends_in_a_sentence(place: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    put(place, "alice")
    monkeypatch.setattr(database, "PATIENCE", 0.05)
    with contextlib.closing(sqlite3.connect(place.profiles)) as other:
        other.execute("BEGIN EXCLUSIVE")
        says(place, "is locked: end the program")
        with pytest.raises(ProfileError, match="is locked: end the program"):
            put(place, "bob")


def test_a_reader_waits_for_a_writer_in_small_steps(place: Config) -> None:
    put(place, "alice")
    with contextlib.closing(sqlite3.connect(place.profiles)) as other:
        other.execute("BEGIN EXCLUSIVE")
        reading = files.profiles(place.profiles)
        assert [next(reading) for _ in range(3)] == [None] * 3
        other.rollback()
        assert list(reading) == [("alice", new())]


def killed_in_the_middle(place: Config) -> None:
    """A database whose writer was killed after it had begun to change the file."""
    put(place, "alice")
    with contextlib.closing(sqlite3.connect(place.profiles)) as connection:
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM profile")
        text = write_config(new())
        for number in range(500):
            connection.execute("INSERT INTO profile VALUES (?, ?, ?, ?)", (f"p{number}", *KEYS, text))
        for end in ("", "-journal"):
            shutil.copy(f"{place.profiles}{end}", f"{place.profiles}{end}.copy")
        connection.rollback()
    for end in ("", "-journal"):
        os.rename(f"{place.profiles}{end}.copy", f"{place.profiles}{end}")
        os.chmod(f"{place.profiles}{end}", 0o640)


def test_what_a_killed_mint_left_is_taken_back_by_root(place: Config) -> None:
    killed_in_the_middle(place)
    assert load_profiles(place.profiles) == ([new()], {})
    assert os.listdir(os.path.dirname(place.profiles)) == ["profiles.db"]


READER = """
import os, sys
sys.path.insert(0, {root!r})
from knockknock.profiles import database, files
from knockknock.errors import ProfileError
os.setgroups([]); os.setgid({group}); os.setuid({user})
try:
    print(len(list(files.profiles({path!r}))))
except ProfileError as error:
    print(error)
"""


def as_reader(place: Config, user: int, group: int) -> str:
    code = READER.format(root=str(ROOT), group=group, user=user, path=place.profiles)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_group_reads_and_writes_nothing(place: Config, nobody: int, tmp_path: Path) -> None:
    let_in(tmp_path)
    mint.mint(place.profiles, place.state, new(), (nobody, nobody), instance.reload)
    before = tree(Path(place.profiles).parent)
    assert as_reader(place, nobody, nobody) == "1\n"
    assert "Permission denied" in as_reader(place, nobody, nobody - 1)
    os.chmod(place.profiles, 0o600)
    assert f"chown root:GROUP {place.profiles} && chmod 640" in as_reader(place, nobody, nobody)
    assert tree(Path(place.profiles).parent) == before


def test_a_reader_cannot_take_back_what_a_killed_mint_left(place: Config, nobody: int, tmp_path: Path) -> None:
    let_in(tmp_path)
    killed_in_the_middle(place)
    os.chmod(os.path.dirname(place.profiles), 0o755)
    for end in ("", "-journal"):
        os.chown(f"{place.profiles}{end}", 0, nobody)
    assert "was left in the middle of a change: run knockknock-daemon check" in as_reader(place, nobody, nobody)


def test_a_config_without_format_brings_no_counter_along(place: Config) -> None:
    put(place, "old")
    write(place, "UPDATE profile SET config = '[main]' || char(10) || 'knock_port = 7'")
    os.unlink(f"{place.state}/old")
    found = loading.look(place, frozenset())
    assert not found.changes
    assert "remove old and mint it anew" in str(found.bad["old"])


def test_policy_reads_each_config_once(place: Config, tmp_path: Path) -> None:
    put(place, "a", "b", "c")
    mint.mint(place.profiles, place.state, new("d", ports="udp/53", knock_port=99), ME, instance.reload)
    write(place, "UPDATE profile SET config = 'broken' WHERE name = 'c'")
    texts = {write_config(one) for one in load_profiles(place.profiles)[0]}
    assert sorted(database.configs(place.profiles)) == sorted({"broken", *texts})
    path = tmp_path / "config"
    path.write_text(f"[main]\nprofiles = {place.profiles}\nstate = {place.state}\n")
    limits = policy_reader.policy(str(path))
    assert (limits.knock_ports, limits.doors) == (((6, 99), (6, 4242)), ((6, 22, 22), (17, 53, 53)))


@pytest.fixture
def config(tmp_path: Path, place: Config, daemon_user: object) -> Path:
    path = tmp_path / "config"
    path.write_text(f"[main]\nprofiles = {place.profiles}\nstate = {place.state}\n")
    return path


def test_genprofile_needs_no_directory(tmp_path: Path, place: Config, config: Path) -> None:
    words, out = ["--config", str(config)], tmp_path / "line"
    done = command(
        "knockknock-genprofile", "laptop", "4242", "--for", "server", "--out", str(out), *words, home=tmp_path
    )
    assert done.returncode == 0, done.stderr
    made, counter = enrolment.decode(out.read_text())
    assert counter == 0
    assert load_profiles(place.profiles) == ([named(made, "laptop", {})], {})
    keeper = loading.start(place, loading.look(place, frozenset()))
    assert isinstance(keeper.hear(knock(made, 0), 1.0), Accepted)
    for other in (str(out), f"{out}2", f"{tmp_path}/nowhere/line"):
        again = command("knockknock-genprofile", "laptop", "4242", "--out", other, *words, home=tmp_path)
        assert (again.returncode, again.stdout, again.stderr.count("\n")) == (1, "", 1), again.stderr
    assert sorted(os.listdir(tmp_path)) == ["config", "etc", "line", "var"]


def windows_of(keeper: Gatekeeper) -> dict[str, Any]:
    listener: Any = keeper._listeners["syn"]
    return cast(dict[str, Any], listener._windows)


def reload(keeper: Gatekeeper, config: Config) -> dict[str, KnockError]:
    work = loading.find(config, frozenset(), keeper)
    while True:
        try:
            next(work)
        except StopIteration as done:
            found: loading.Found = done.value
            break
    keeper.settings = loading.settings(config)
    assert set(loading.apply(keeper, found, config.state)) <= {None}
    return found.bad


def test_differences_alone_are_applied(place: Config) -> None:
    put(place, "alice", "bob", "carol")
    keeper = loading.start(place, loading.look(place, frozenset()))
    windows = dict(windows_of(keeper))
    packet = knock(new("carol", knock_port=KNOCK_PORT), 0)
    assert isinstance(keeper.hear(packet, 1.0), Accepted)
    write(place, "DELETE FROM profile WHERE name = 'alice'")
    write(place, "UPDATE profile SET config = replace(config, 'tcp/22', 'tcp/23') WHERE name = 'bob'")
    put(place, "dora")
    assert reload(keeper, place) == {}
    assert sorted(keeper.names()) == ["bob", "carol", "dora"]
    assert windows_of(keeper)["carol"] is windows["carol"]
    assert windows_of(keeper)["bob"] is not windows["bob"]
    assert reload(keeper, place._replace(error_window=30)) == {}
    assert {window.reach for window in windows_of(keeper).values()} == {30}
    write(place, "UPDATE profile SET mac_key = x'00' WHERE name = 'carol'")
    assert set(reload(keeper, place._replace(error_window=30))) == {"carol"}
    assert sorted(keeper.names()) == ["bob", "dora"]


columns = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(), st.binary(max_size=40))
configs = columns | st.sampled_from([write_config(new()), "[main]\nknock_port = 1", "[main]\nknock_port = 0"])
keys = st.binary(min_size=16, max_size=16) | st.binary(min_size=32, max_size=32) | columns
rows = st.tuples(st.sampled_from(["alice", "bob"]) | columns, keys, keys, configs)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Config:
    directory = tmp_path_factory.mktemp("template")
    place = Config(profiles=f"{directory}/profiles.db", state=f"{directory}/var")
    put(place, "alice")
    return place


@given(st.lists(rows, max_size=5))
def test_any_row_is_a_profile_or_is_named(template: Config, values: list[tuple[object, ...]]) -> None:
    with contextlib.closing(sqlite3.connect(template.profiles)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("DELETE FROM profile")
        written = [
            row
            for row in values
            if connection.execute("INSERT OR IGNORE INTO profile VALUES (?, ?, ?, ?)", row).rowcount
        ]
        connection.commit()
    found = [one for one in files.profiles(template.profiles) if one]
    assert len(found) == len(written)
    for name, one in found:
        if isinstance(one, Profile):
            assert one.name == name == check_name(name)
            assert {len(one.cipher_key), len(one.mac_key)} <= {16, 32}
            assert 1 <= one.knock_port <= 65535
        else:
            assert isinstance(one, KnockError)
            assert "\n" not in f"{name}: {one}"


@given(st.lists(st.tuples(st.integers(0, 2**20), st.binary(min_size=1, max_size=8)), min_size=1, max_size=20))
def test_any_damage_ends_in_rows_or_a_sentence(changes: list[tuple[int, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        place = Config(profiles=f"{directory}/profiles.db")
        with contextlib.closing(sqlite3.connect(place.profiles)) as connection:
            connection.execute(database.SCHEMA)
            text = write_config(new())
            for number in range(40):
                connection.execute("INSERT INTO profile VALUES (?, ?, ?, ?)", (f"p{number}", *KEYS, text))
            connection.commit()
        data = bytearray(Path(place.profiles).read_bytes())
        for at, damage in changes:
            at %= len(data) - len(damage)
            data[at : at + len(damage)] = damage
        Path(place.profiles).write_bytes(data)
        os.chmod(place.profiles, 0o640)
        for read in (lambda: list(files.profiles(place.profiles)), lambda: list(database.configs(place.profiles))):
            complaint = ""
            try:
                read()
            except ProfileError as error:
                complaint = str(error)
            assert "\n" not in complaint
