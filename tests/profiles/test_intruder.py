"""Attacks of the daemon's user on the commands of root, with locks and in his state directory."""

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from knockknock.errors import CounterError, KnockError, ProfileError
from knockknock.profiles import command_lock, counters, database, database_write, mint
from knockknock.schemes.syn.profile import Profile
from knockknock.server import instance
from knockknock.server.config import Config

from ..helpers import let_in, load_profiles, profile, tree

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, and another user")


def new(name: str = "phone", key: bytes = b"k") -> Profile:
    return profile(name, cipher_key=key * 32, mac_key=name.encode().ljust(32))


FRESH = new(key=b"f")


@pytest.fixture(params=["profiles", "profiles.db"])
def place(request: pytest.FixtureRequest, tmp_path: Path, daemon_user: pwd.struct_passwd) -> Config:
    """Two profiles, where the daemon's user may read them."""
    let_in(tmp_path)
    made = Config(profiles=f"{tmp_path}/etc/{request.param}", state=f"{tmp_path}/var")
    for name in ("phone", "laptop"):
        mint.mint(made.profiles, made.state, new(name), (daemon_user.pw_uid, daemon_user.pw_gid), instance.reload)
    counters.store_slots(f"{made.state}/phone", 41, (daemon_user.pw_uid, daemon_user.pw_gid))
    return made


@pytest.fixture
def owner(daemon_user: pwd.struct_passwd) -> mint.Owner:
    return daemon_user.pw_uid, daemon_user.pw_gid


HOLD = """
import fcntl, glob, os, sys
os.setgroups([]); os.setgid({1}); os.setuid({0})
for path in sys.argv[1:]:
    held = os.open(path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_SH)
    if not os.path.isdir(path):
        fcntl.lockf(held, fcntl.LOCK_SH, 512, 0x40000000)
print("held", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def held(owner: mint.Owner, *paths: str) -> Iterator[None]:
    """Hold all kinds of locks, as the daemon's user, on files and directories that he may read."""
    words = [sys.executable, "-c", HOLD.format(*owner), *paths]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield
        process.kill()


def names(place: Config) -> list[str]:
    found, bad = load_profiles(place.profiles)
    assert bad == {}
    return [one.name for one in found]


def test_no_lock_prevents_a_revocation_a_mint_or_a_rotation(place: Config, owner: mint.Owner) -> None:
    reachable = [place.profiles, os.path.dirname(place.profiles)]
    with held(owner, *reachable):
        begun = time.monotonic()
        mint.revoke(place.profiles, "laptop")
        assert names(place) == ["phone"]
        mint.mint(place.profiles, place.state, new("tablet"), owner, instance.reload)
        mint.rotate(place.profiles, place.state, new(), FRESH, 2**33, 1, owner, instance.reload)
        assert names(place) == ["phone", "phone.old", "tablet"]
        assert time.monotonic() - begun < 25
    assert [name for name in tree(Path(place.profiles).parent) if "/." in name or name.startswith(".")] == []
    status = os.stat(place.profiles)
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (
        0,
        owner[1],
        0o640 if "db" in place.profiles else 0o750,
    )
    mint.revoke(place.profiles, "tablet")
    assert names(place) == ["phone", "phone.old"]


def test_a_lock_file_that_others_could_open_is_replaced(place: Config, owner: mint.Owner) -> None:
    """As `chmod -R g+rX profiles` makes one that was left behind."""
    above, name = os.path.split(place.profiles)
    path = Path(f"{above}/.{name}.lock" if name.endswith(".db") else f"{place.profiles}/.lock")
    path.touch()
    os.chown(path, 0, owner[1])
    path.chmod(0o640)
    with held(owner, str(path)):
        mint.revoke(place.profiles, "laptop")
    assert names(place) == ["phone"]
    assert not path.exists()


def test_commands_of_root_wait_for_each_other(place: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_lock, "PATIENCE", 0.1)
    with (
        command_lock.held(place.profiles),
        pytest.raises(ProfileError, match=rf"another command \(process {os.getpid()}\)"),
    ):
        mint.revoke(place.profiles, "laptop")
    mint.revoke(place.profiles, "laptop")


WRITER = """
import sqlite3, sys
other = sqlite3.connect(sys.argv[1], isolation_level=None)
other.execute("BEGIN IMMEDIATE")
other.execute("UPDATE profile SET config = config || '# mine'")
print("begun", flush=True)
sys.stdin.readline()
other.execute("COMMIT")
"""


@pytest.mark.parametrize("place", ["profiles.db"], indirect=True)
def test_a_writer_is_not_passed_by(place: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes that root makes with another program in the same file are not lost."""
    monkeypatch.setattr(database_write, "HASTE", 0.1)
    words = [sys.executable, "-c", WRITER, place.profiles]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "begun\n"
        with pytest.raises(ProfileError, match="is locked: end the program"):
            mint.revoke(place.profiles, "laptop")
        process.communicate("\n")
    mint.revoke(place.profiles, "laptop")
    assert names(place) == ["phone"]
    assert [text.endswith("# mine") for text in database.configs(place.profiles)] == [True]


@pytest.mark.parametrize("place", ["profiles.db"], indirect=True)
def test_what_a_killed_change_left_is_taken_back_under_a_lock(place: Config, owner: mint.Owner) -> None:
    code = WRITER.replace('"BEGIN', '"PRAGMA cache_size = 1").close()\nother.execute("BEGIN').replace(
        "config || '# mine'", "zeroblob(9000)"
    )
    for number in range(40):
        mint.mint(place.profiles, place.state, new(f"p{number}"), owner, instance.reload)
    before = load_profiles(place.profiles)
    words = [sys.executable, "-c", code, place.profiles]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "begun\n"
        process.kill()
    assert os.path.exists(f"{place.profiles}-journal")
    with held(owner, place.profiles):
        mint.revoke(place.profiles, "laptop")
        assert load_profiles(place.profiles) == ([one for one in before[0] if one.name != "laptop"], {})
    assert os.listdir(os.path.dirname(place.profiles)) == ["profiles.db"]


# The state directory


def planted(path: str, target: str) -> Callable[[Path], None]:
    return lambda state: (state / path).symlink_to(target)


def in_the_way(path: str) -> Callable[[Path], None]:
    def make(state: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            (state / path).unlink()
        (state / path / "x").mkdir(parents=True)

    return make


PLANTED = [
    in_the_way(".phone.new"),
    in_the_way(".phone.old.new"),
    in_the_way("phone"),
    in_the_way("phone.old"),
    planted(".phone.new", "/etc/passwd"),
    planted("phone.old", "/etc/passwd"),
]


@pytest.mark.parametrize("grace", [2**33, 0])
@pytest.mark.parametrize("plant", PLANTED, ids=range(len(PLANTED)))
def test_a_rotation_is_whole_or_undone(
    place: Config, owner: mint.Owner, plant: Callable[[Path], None], grace: int
) -> None:
    plant(Path(place.state))
    before = Path("/etc/passwd").read_bytes(), os.stat("/etc/passwd").st_uid
    config = mint.load(place.profiles, "phone")
    try:
        mint.rotate(place.profiles, place.state, new(), FRESH, grace, 1, owner, instance.reload)
    except KnockError:
        assert mint.load(place.profiles, "phone") == config
        assert names(place) == ["laptop", "phone"]
    else:
        assert mint.load(place.profiles, "phone") == FRESH
        assert names(place) == (["laptop", "phone", "phone.old"] if grace else ["laptop", "phone"])
        assert counters.server_memory(place.state, place.profiles, FRESH) == 0
        if grace:
            assert counters.server_memory(place.state, place.profiles, new("phone.old")) == 41
    assert (Path("/etc/passwd").read_bytes(), os.stat("/etc/passwd").st_uid) == before


@pytest.mark.parametrize("step", range(4))
def test_a_rotation_that_fails_later_is_undone(
    place: Config, owner: mint.Owner, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each thing that is written, or waited for, fails once; the keys and the counter are as they were."""
    old, calls = mint.load(place.profiles, "phone"), 0

    def failing(name: str, module: object) -> None:
        before = getattr(module, name)

        def fail(*words: object, **more: object) -> object:
            nonlocal calls
            calls += 1
            if calls == step + 1:
                raise CounterError("it cannot be")
            return before(*words, **more)

        monkeypatch.setattr(module, name, fail)

    failing("reload", instance)
    failing("store_memory", counters)
    with pytest.raises(KnockError, match="it cannot be"):
        mint.rotate(place.profiles, place.state, new(), FRESH, 2**33, 1, owner, instance.reload)
    assert mint.load(place.profiles, "phone") == old
    assert names(place) == ["laptop", "phone"]
    assert counters.server_memory(place.state, place.profiles, new()) == 41


def test_no_link_is_followed_in_the_state_directory(place: Config, owner: mint.Owner) -> None:
    """A counter that is another file's is none, whether it is reached by a link or owned by somebody else."""
    path, other = Path(place.state) / "phone", Path(place.state).parent / "other"
    other.write_text("7\n")
    other.chmod(0o600)
    ways: tuple[Callable[[], None], ...] = (
        lambda: path.symlink_to(other),
        lambda: path.hardlink_to(other),
        lambda: path.mkdir(),
    )
    for make in ways:
        path.unlink()
        make()
        with pytest.raises(CounterError, match=f"^{path} cannot be read: "):
            counters.server_memory(place.state, place.profiles, new())
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
            path.touch()
    (Path(place.state) / instance.MARK).symlink_to(other)
    assert instance._mark(place.state) == (0, False)
