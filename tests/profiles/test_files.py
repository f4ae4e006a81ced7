"""Profiles and counters on disk: permissions from the first moment, durable writes, one counter for one knock."""

import contextlib
import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from knockknock.core.counter_text import MAX_COUNTER, slot
from knockknock.errors import ConfigError, CounterError, KnockError, ProfileError
from knockknock.profiles import counters, files, mint
from knockknock.schemes.syn.profile import Profile
from knockknock.server import instance
from knockknock.server.config import load_config

from ..helpers import ROOT, load_profiles, profile, take, tree, write_profile

KEYS = bytes(range(32)), bytes(range(32, 64))
ME = (-1, -1)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


def new(name: str = "alice") -> Profile:
    return profile(name, cipher_key=KEYS[0], mac_key=KEYS[1])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two pages."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a file system")
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "small", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)


def traced(script: str, directory: Path, calls: str, umask: int = 0o022) -> list[str]:
    """The system calls of a script that concern a directory, as strace -y writes them, with @ for the directory."""
    log = directory.parent / "strace"
    words = ["strace", "-f", "-y", "-s", "200", "-e", f"trace={calls}", "-o", str(log)]
    subprocess.run(
        [*words, sys.executable, "-c", f"import os; from knockknock.profiles import counters, mint\n{script}"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        umask=umask,
        check=True,
    )
    lines = (line.partition(" ")[2].strip() for line in log.read_text().splitlines())
    return [line.replace(str(directory), "@") for line in lines if str(directory) in line]


def short(call: str) -> str:
    """A call's name and the paths in it, from the directory on."""
    name = call.partition("(")[0].removesuffix("2").removesuffix("at")
    paths = re.findall(r'@/?([^>"]*)', call.partition(" = ")[0])
    return " ".join([name, *(path or "." for path in paths)])


@needs_strace
def test_durable_order(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "counter").write_text("41\n")
    calls = traced(f"with counters.taking({str(place)!r}): pass", place, "/^(open|write|fsync|fdatasync|rename)")
    begin = next(at for at, call in enumerate(calls) if "O_CREAT" in call)
    order = [short(call) for call in calls[begin:] if "O_RDONLY" not in call]
    assert order == [
        "open .counter.new",
        "write .counter.new",
        "fsync .counter.new",
        "rename .counter.new counter",
        "fsync .",
    ]
    assert "O_EXCL" in calls[begin]
    assert (place / "counter").read_text() == "42\n"


@needs_strace
def test_durable_order_of_the_server(tmp_path: Path) -> None:
    """The first time a whole file, then a slot of it: in each case nothing is left to be written on return."""
    place = tmp_path / "place"
    place.mkdir()
    (place / "alice").write_text("41\n")
    script = f"for one in (42, 43): counters.remember({str(place / 'alice')!r}, one); os.stat({str(place)!r})"
    calls = traced(script, place, "/^(write|pwrite|fsync|fdatasync|rename|newfstatat)")
    order = [short(call) for call in calls if "ENOENT" not in call]
    marks = [at for at, call in enumerate(order) if call.startswith("newfstat")][-2:]
    assert order[marks[0] - 4 : marks[0]] == [
        "write .alice.new",
        "fsync .alice.new",
        "rename .alice.new alice",
        "fsync .",
    ]
    assert order[marks[0] + 1 : marks[1]] == ["pwrite64 alice", "fdatasync alice"]


@needs_strace
def test_a_counter_is_read_under_the_lock(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "counter").write_text("41\n")
    calls = traced(f"with counters.taking({str(place)!r}): pass", place, "/^(open|flock|rename|close)")
    order = [short(call) for call in calls]
    lock, read, renamed = (
        order.index("flock ."),
        order.index("open counter"),
        order.index("rename .counter.new counter"),
    )
    assert "LOCK_EX" in calls[lock]
    assert lock < read < renamed < len(order) - 1 - order[::-1].index("close .")


MINT = """
from knockknock.schemes.syn.profile import Profile
from knockknock.core.request import parse_ports
from knockknock.server import instance
one = Profile("alice", bytes(32), bytes(range(32)), 4242, "compact", parse_ports("tcp/22"))
mint.mint({base!r} + "/etc/profiles", {base!r} + "/var", one, ({uid}, {gid}), instance.reload)
"""


@needs_root
@needs_strace
@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o777], ids=oct)
def test_nothing_is_ever_open_to_all(tmp_path: Path, daemon_user: pwd.struct_passwd, umask: int) -> None:
    base = tmp_path / "base"
    base.mkdir(mode=0o755)
    script = MINT.format(base=str(base), uid=daemon_user.pw_uid, gid=daemon_user.pw_gid)
    calls = traced(script, base, "/^(open|creat|mkdir|mknod|f?chmod)", umask)
    made = [call for call in calls if call.startswith("mkdir") or "O_CREAT" in call]
    modes = [int(found[1], 8) for call in made if (found := re.search(r", (0\d+)\)", call))]
    assert len(modes) == len(made) >= 9
    assert [call for call in made if int(re.findall(r", (0\d+)\)", call)[0], 8) & 0o007] == []
    assert [call for call in calls if "chmod" in call or call.startswith(("creat", "mknod"))] == []
    assert all("O_EXCL" in call for call in made if "O_CREAT" in call)

    def facts(path: str) -> tuple[str, int, int]:
        status = (base / path).stat()
        return oct(status.st_mode & 0o7777), status.st_uid, status.st_gid

    uid, gid = daemon_user.pw_uid, daemon_user.pw_gid
    expected = {"etc": ("0o750", 0, gid), "etc/profiles": ("0o750", 0, gid), "etc/profiles/alice": ("0o750", 0, gid)}
    expected |= {f"etc/profiles/alice/{file}": ("0o640", 0, gid) for file in ("cipher.key", "mac.key", "config")}
    expected |= {"etc/profiles/alice/counter": ("0o640", 0, gid)}
    expected |= {"var": ("0o700", uid, gid), "var/alice": ("0o600", uid, gid)}
    assert {path: facts(path) for path in (name.rstrip("/") for name in tree(base))} == expected


@pytest.mark.parametrize("umask", [0, 0o077, 0o777], ids=oct)
def test_a_profile_of_ones_own_is_for_its_owner_alone(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        mint.create_profile(str(tmp_path / "alice"), new(), -1)
        during = os.umask(umask)
    finally:
        os.umask(before)
    assert during == umask
    assert (tmp_path / "alice").stat().st_mode & 0o7777 == 0o700
    names = sorted(path.name for path in (tmp_path / "alice").iterdir())
    assert names == ["cipher.key", "config", "counter", "mac.key"]
    assert {(tmp_path / "alice" / file).stat().st_mode & 0o7777 for file in names} == {0o600}


def test_mint_and_load(tmp_path: Path) -> None:
    profiles, state = str(tmp_path / "etc" / "profiles"), str(tmp_path / "var")
    mint.mint(profiles, state, new("bob"), ME, instance.reload)
    mint.mint(profiles, state, new("alice"), ME, instance.reload)
    assert files.load_profile(f"{profiles}/alice") == new("alice")
    assert load_profiles(profiles) == ([new("alice"), new("bob")], {})
    assert counters.server_memory(state, profiles, new("alice")) == 0
    assert take(f"{profiles}/alice") == 0
    assert counters.server_memory(state, profiles, new("alice")) == 0


def test_an_existing_name_is_left_alone(tmp_path: Path) -> None:
    profiles, state = str(tmp_path / "profiles"), str(tmp_path / "var")
    mint.mint(profiles, state, new(), ME, instance.reload)
    counters.store_counter(f"{state}/alice", 77)
    before = tree(tmp_path)
    with pytest.raises(ProfileError, match=f"there is a profile {profiles}/alice already"):
        mint.mint(profiles, state, new()._replace(mac_key=bytes(32)), ME, instance.reload)
    assert tree(tmp_path) == before
    assert counters.server_memory(state, profiles, new()) == 77


@pytest.mark.parametrize("kind", ["file", "broken link", "empty directory"])
def test_whatever_has_the_name_is_left_alone(tmp_path: Path, kind: str) -> None:
    there = tmp_path / "profiles" / "alice"
    there.parent.mkdir()
    {"file": there.touch, "broken link": lambda: there.symlink_to("/nowhere"), "empty directory": there.mkdir}[kind]()
    with pytest.raises(ProfileError, match="already"):
        mint.mint(str(there.parent), str(tmp_path / "var"), new(), ME, instance.reload)
    assert sorted(path.name for path in there.parent.iterdir()) == ["alice"]


def test_a_profile_that_was_removed_is_minted_with_a_counter_of_its_own(tmp_path: Path) -> None:
    profiles, state = str(tmp_path / "profiles"), str(tmp_path / "var")
    mint.mint(profiles, state, new(), ME, instance.reload)
    counters.store_counter(f"{state}/alice", 77)
    shutil.rmtree(f"{profiles}/alice")
    mint.mint(profiles, state, new(), ME, instance.reload)
    assert counters.server_memory(state, profiles, new()) == 0


@needs_root
@pytest.mark.parametrize("inodes", range(2, 14))
def test_mint_is_whole_or_not_at_all(small_disk: Path, inodes: int) -> None:
    """Each number of files that fit stops it at another step."""
    profiles, state = small_disk / "profiles", small_disk / "var"
    remount(small_disk, f"size=1m,nr_inodes={inodes}")
    try:
        mint.mint(str(profiles), str(state), new(), ME, instance.reload)
    except KnockError as error:
        sentence = str(error)
        assert "No space left on device" in sentence
        assert load_profiles(str(profiles)) == ([], {})
        remount(small_disk, "size=1m,nr_inodes=100")
        mint.mint(str(profiles), str(state), new(), ME, instance.reload)
    assert load_profiles(str(profiles)) == ([new()], {})
    assert [name for name in tree(small_disk) if "/." in name or name.startswith(".")] == []


TAKE = """
import sys
print("ready", flush=True)
sys.stdin.readline()
for _ in range(200):
    with counters.taking(sys.argv[1]) as counter:
        print(counter)
"""


def test_two_processes_never_share_a_counter(tmp_path: Path) -> None:
    place = write_profile(tmp_path, profile(), 1000)
    words = [sys.executable, "-c", f"from knockknock.profiles import counters\n{TAKE}", str(place)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    runs = [subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) for _ in range(2)]
    for run in runs:
        assert run.stdout
        assert run.stdout.readline() == b"ready\n"
    for run in runs:
        assert run.stdin
        run.stdin.write(b"\n")
        run.stdin.flush()
    taken = [[int(number) for number in run.communicate(timeout=60)[0].split()] for run in runs]
    assert sorted(taken[0] + taken[1]) == list(range(1000, 1400))
    assert all(one == sorted(one) for one in taken)
    assert (place / "counter").read_text() == "1400\n"


def test_a_full_disk_leaves_the_counter_whole(small_disk: Path) -> None:
    (small_disk / "counter").write_text("41\n")
    with pytest.raises(OSError, match="No space"):
        (small_disk / "filler").write_bytes(bytes(1 << 20))
    for _ in range(3):
        with pytest.raises(CounterError, match=r"counter .*/counter cannot be stored: No space left on device"):
            take(str(small_disk))
        assert (small_disk / "counter").read_text() == "41\n"
    (small_disk / "filler").unlink()
    assert take(str(small_disk)) == 41
    assert tree(small_disk) == {"counter": b"42\n"}


def test_a_full_disk_does_not_stop_a_server_whose_counter_has_its_slots(small_disk: Path) -> None:
    path = str(small_disk / "alice")
    counters.remember(path, 41)
    with contextlib.suppress(OSError), open(small_disk / "filler", "wb", buffering=0) as file:
        while file.write(b"x" * 512):
            pass
    with pytest.raises(CounterError, match="No space left"):
        counters.store_counter(path, 42)
    for counter in (42, 43, 44):
        counters.remember(path, counter)
        assert counters.read_counter(path) == counter


def test_a_directory_that_is_read_only(small_disk: Path) -> None:
    (small_disk / "counter").write_text("41\n")
    remount(small_disk, "ro")
    with pytest.raises(CounterError, match="Read-only file system"):
        take(str(small_disk))
    with pytest.raises(CounterError, match="Read-only file system"):
        counters.store_counter(str(small_disk / "counter"), 42)
    with pytest.raises(ProfileError, match="Read-only file system"):
        mint.mint(str(small_disk / "profiles"), str(small_disk / "var"), new(), ME, instance.reload)
    assert tree(small_disk) == {"counter": b"41\n"}


def test_what_an_interrupted_write_left_behind_does_no_harm(tmp_path: Path) -> None:
    place = write_profile(tmp_path, profile(), 5)
    secret = tmp_path / "elsewhere"
    secret.write_text("mine")
    (place / ".counter.new").symlink_to(secret)
    assert take(str(place)) == 5
    assert secret.read_text() == "mine"
    assert counters.read_counter(str(place / "counter")) == 6
    assert not (place / ".counter.new").exists()


COUNTERS = [
    ("0", 0),
    ("5\n", 5),
    (" 7 \n", 7),
    ("007", 7),
    (str(MAX_COUNTER), MAX_COUNTER),
    (str(MAX_COUNTER + 1), 2**64),
]
NO_COUNTERS = [b"", b"\n", b"-1", b"+1", b"1.0", b"0x1", b"1 2", b"1_0", b"five", b"\xff", "٣".encode(), b"\0", b"5\0"]
NO_COUNTERS += [str(MAX_COUNTER + 2).encode(), b"0" * 21, b"9" * 20, b"1" * 5000, b"1" * (files.MAX_FILE + 1)]


@pytest.mark.parametrize(("text", "counter"), COUNTERS)
def test_counter(tmp_path: Path, text: str, counter: int) -> None:
    (tmp_path / "counter").write_text(text)
    assert counters.read_counter(str(tmp_path / "counter")) == counter


@pytest.mark.parametrize("data", NO_COUNTERS, ids=lambda data: repr(data[:24]))
def test_no_counter(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "counter").write_bytes(data)
    with pytest.raises(CounterError, match=f"^{tmp_path}/counter "):
        counters.read_counter(str(tmp_path / "counter"))
    with pytest.raises(CounterError, match=f"{tmp_path}/counter "):
        take(str(tmp_path))
    assert (tmp_path / "counter").read_bytes() == data


def test_the_last_counter_is_taken_once(tmp_path: Path) -> None:
    place = str(write_profile(tmp_path, profile(), MAX_COUNTER))
    assert take(place) == MAX_COUNTER
    for _ in range(2):
        with pytest.raises(CounterError, match="all counters are used up"):
            take(place)


def test_a_counter_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        counters.read_counter(str(tmp_path / "counter"))
    with pytest.raises(CounterError, match=r"is missing, and without it.*rotate NAME.*--enroll --replace"):
        take(str(tmp_path))
    with pytest.raises(CounterError, match="is missing, and without it"):
        take(str(tmp_path / "nowhere"))
    (tmp_path / "counter").mkdir()
    with pytest.raises(CounterError, match="Is a directory"):
        counters.read_counter(str(tmp_path / "counter"))


def test_a_lost_counter_of_the_server_is_an_error(tmp_path: Path) -> None:
    write_profile(tmp_path / "profiles", profile(), 3)
    (tmp_path / "var").mkdir()
    with pytest.raises(CounterError, match=r"is gone, and with it the memory of used knocks: remove .*alice"):
        counters.server_memory(str(tmp_path / "var"), str(tmp_path / "profiles"), profile())
    counters.adopt(str(tmp_path / "var"), str(tmp_path / "profiles"), profile(), contextlib.nullcontext)
    assert tree(tmp_path / "var") == {}


def test_a_counter_of_old_is_adopted_once(tmp_path: Path) -> None:
    profiles, state = str(tmp_path / "profiles"), str(tmp_path / "var")
    old = profile(format="classic", legacy=True)
    counter = write_profile(tmp_path / "profiles", old, 321) / "counter"
    (tmp_path / "var").mkdir()
    assert counters.server_memory(state, profiles, old) == 321
    counters.adopt(state, profiles, old, contextlib.nullcontext)
    assert tree(tmp_path / "var") == {"alice": 2 * slot(321)}
    assert (tmp_path / "var" / "alice").stat().st_mode & 0o7777 == 0o600
    counter.write_text("5\n")
    counters.adopt(state, profiles, old, contextlib.nullcontext)
    assert counters.server_memory(state, profiles, old) == 321
    counters.store_counter(f"{state}/alice", 322)
    counters.adopt(state, profiles, old, contextlib.nullcontext)
    assert counters.server_memory(state, profiles, old) == 322


def test_a_counter_of_old_that_cannot_be_adopted(tmp_path: Path) -> None:
    profiles, state = str(tmp_path / "profiles"), str(tmp_path / "var")
    old = profile(format="classic", legacy=True)
    counter = write_profile(tmp_path / "profiles", old, 321) / "counter"
    with pytest.raises(CounterError, match="No such file or directory"):
        counters.adopt(state, profiles, old, contextlib.nullcontext)
    counter.unlink()
    with pytest.raises(CounterError, match="has no counter; mint the profile anew"):
        counters.server_memory(state, profiles, old)


@pytest.mark.parametrize("file", ["cipher.key", "mac.key"])
@pytest.mark.parametrize(
    ("mode", "good"), [(0o600, True), (0o640, True), (0o400, True), (0o604, False), (0o602, False)]
)
def test_who_may_read_a_key(tmp_path: Path, file: str, mode: int, good: bool) -> None:
    place = write_profile(tmp_path, profile())
    (place / file).chmod(mode)
    if good:
        assert files.load_profile(str(place)) == profile()
    else:
        with pytest.raises(ProfileError, match=f"everybody on this machine may read: chmod o= {place}/{file}$"):
            files.load_profile(str(place))


@pytest.mark.parametrize("file", ["config", "cipher.key", "mac.key"])
@pytest.mark.parametrize("damage", ["missing", "empty", "a directory", "too long", "not text"])
def test_damaged_profiles_are_named(tmp_path: Path, file: str, damage: str) -> None:
    write_profile(tmp_path, profile("zoe"))
    path = write_profile(tmp_path, profile("alice")) / file
    path.unlink()
    if damage == "a directory":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes({"empty": b"", "too long": b"#" * (files.MAX_FILE + 1), "not text": b"\xff\xfe\0"}[damage])
        path.chmod(0o600)
    with pytest.raises(ConfigError if file == "config" and damage in ("empty", "not text") else ProfileError) as caught:
        files.load_profile(str(tmp_path / "alice"))
    assert str(path) in str(caught.value)
    good, bad = load_profiles(str(tmp_path))
    assert (good, set(bad)) == ([profile("zoe")], {"alice"})
    assert str(bad["alice"]) == str(caught.value)


def test_names(tmp_path: Path) -> None:
    assert list(files.names(str(tmp_path / "nowhere"))) == []
    for name in ("b", "a", ".hidden", "c d"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    assert sorted(files.names(str(tmp_path))) == ["a", "b", "c d"]
    with pytest.raises(ProfileError, match="Not a directory"):
        list(files.names(str(tmp_path / "file")))
    assert set(load_profiles(str(tmp_path))[1]) == {"a", "b", "c d"}


def test_configuration_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^{tmp_path}/config cannot be read: No such file or directory; .*--config"):
        load_config(str(tmp_path / "config"))
    (tmp_path / "config").write_bytes(b"[main]\n\xff = 1\n")
    with pytest.raises(ConfigError, match=f"^{tmp_path}/config:2: "):
        load_config(str(tmp_path / "config"))
    (tmp_path / "config").write_bytes(b"#" * (files.MAX_FILE + 1))
    with pytest.raises(ConfigError, match=f"{tmp_path}/config cannot be read: File too large"):
        load_config(str(tmp_path / "config"))


def test_half_written_counter_never_takes_the_old_ones_place(tmp_path: Path) -> None:
    """A limit of one byte makes write(2) write half and say so, without an error."""
    place = tmp_path / "counter"
    place.write_text("7\n")
    script = (
        "import resource, sys; from knockknock.profiles import counters; from knockknock.errors import CounterError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))\n"
        "try:\n    counters.store_counter(sys.argv[1], 12)\nexcept CounterError:\n    sys.exit(3)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(place)], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, place.read_text()) == (3, "7\n"), done.stderr
