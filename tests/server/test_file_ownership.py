"""Files that make the policy: one that others than root could change is refused, with its name and how to mend it."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from knockknock.errors import ProfileError
from knockknock.server import file_ownership, policy_reader
from knockknock.server.config import Config, load_config

from ..helpers import NOBODY, command, profile, write_profile

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, whose files these must be")


@pytest.fixture
def base(tmp_path: Path, daemon_user: pwd.struct_passwd) -> Path:
    """The documented layout: root's own, for the daemon's group to read."""
    etc = tmp_path / "etc"
    write_profile(etc / "profiles", profile())
    (etc / "config").write_text(f"[main]\nprofiles = {etc}/profiles\nstate = {tmp_path}/var/state\nsource = nflog\n")
    subprocess.run(["chgrp", "-R", str(daemon_user.pw_gid), str(etc)], check=True)
    subprocess.run(["chmod", "-R", "g+rX", str(etc)], check=True)
    return tmp_path


def complaints(base: Path) -> list[str]:
    path = str(base / "etc" / "config")
    return list(file_ownership.complaints(path, load_config(path)))


def give(path: str, *, user: bool = False) -> Callable[[Path], None]:
    return lambda base: os.chown(base / path, pwd.getpwnam("knockknock").pw_uid if user else NOBODY, -1)


def mode(path: str, bits: int) -> Callable[[Path], None]:
    return lambda base: (base / path).chmod(bits)


def linked(base: Path) -> None:
    """A profile that lies in somebody's home."""
    home = base / "home"
    home.mkdir()
    os.chown(home, NOBODY, -1)
    (base / "etc" / "profiles" / "alice").rename(home / "alice")
    (base / "etc" / "profiles" / "alice").symlink_to("../../home/alice")


def links_to_a_file(base: Path) -> None:
    (base / "theirs").write_text("[main]\nknock_port = 1\n")
    os.chown(base / "theirs", NOBODY, -1)
    (base / "etc" / "profiles" / "alice" / "config").unlink()
    (base / "etc" / "profiles" / "alice" / "config").symlink_to(base / "theirs")


def moved(base: Path) -> None:
    """The configuration by a link in somebody's directory."""
    (base / "etc" / "config").rename(base / "real")
    (base / "etc" / "config").symlink_to("../real")
    os.lchown(base / "etc" / "config", NOBODY, -1)


def above_the_state(base: Path) -> None:
    (base / "var").mkdir()
    (base / "var").chmod(0o1777)


WRONG = [
    # what is done, and which file is named
    (give("etc/config", user=True), "etc/config"),
    (mode("etc/config", 0o660), "etc/config"),
    (mode("etc/config", 0o646), "etc/config"),
    (give("etc"), "etc"),
    (mode("etc", 0o770), "etc"),
    (mode("etc", 0o707), "etc"),
    (give("etc/profiles"), "etc/profiles"),
    (mode("etc/profiles", 0o770), "etc/profiles"),
    (mode("etc/profiles", 0o1777), "etc/profiles"),
    (give("etc/profiles/alice"), "etc/profiles/alice"),
    (mode("etc/profiles/alice", 0o770), "etc/profiles/alice"),
    (give("etc/profiles/alice/config"), "etc/profiles/alice/config"),
    (give("etc/profiles/alice/mac.key", user=True), "etc/profiles/alice/mac.key"),
    (mode("etc/profiles/alice/cipher.key", 0o660), "etc/profiles/alice/cipher.key"),
    (give(""), ""),
    (mode("", 0o777), ""),
    (linked, "home"),
    (links_to_a_file, "theirs"),
    (above_the_state, "var"),
    (moved, "etc/config"),
]


@pytest.mark.parametrize(("change", "named"), WRONG, ids=range(len(WRONG)))
def test_refused_named_and_mended(base: Path, change: Callable[[Path], None], named: str) -> None:
    assert complaints(base) == []
    change(base)
    (complaint,) = complaints(base)
    path = str(base / named).rstrip("/")
    status = os.lstat(path)
    assert complaint.startswith(f"{path} belongs to {pwd.getpwuid(status.st_uid).pw_name} and has mode ")
    assert f"{status.st_mode & 0o7777:04o}, so others than root could change what may be opened: " in complaint
    with pytest.raises(ProfileError, match="so others than root could change"):
        policy_reader.policy(str(base / "etc" / "config"))
    subprocess.run(complaint.partition("may be opened: ")[2], shell=True, check=True)
    assert complaints(base) == []
    assert policy_reader.policy(str(base / "etc" / "config")).knock_ports


def test_all_are_said_at_once(base: Path) -> None:
    for file in ("config", "mac.key"):
        (base / "etc" / "profiles" / "alice" / file).chmod(0o666)
    (base / "etc" / "config").chmod(0o666)
    assert len(complaints(base)) == 3


@pytest.mark.parametrize("sticky", [0o1777, 0o1770])
def test_a_sticky_directory_above_is_no_way_in(base: Path, sticky: int) -> None:
    """In /tmp nobody renames or removes what is root's; what others make there is not root's."""
    base.chmod(sticky)
    assert complaints(base) == []
    shutil.rmtree(base / "etc" / "profiles")
    (base / "etc" / "profiles").symlink_to(base / "planted")
    (base / "planted").mkdir()
    os.chown(base / "planted", NOBODY, -1)
    assert [complaint.split()[0] for complaint in complaints(base)] == [f"{base}/planted"]


def test_what_its_owner_may_not_read(base: Path) -> None:
    (base / "etc" / "profiles" / "alice" / "config").chmod(0o040)
    (complaint,) = complaints(base)
    assert complaint.endswith(f"chmod u+r {base}/etc/profiles/alice/config")


@pytest.mark.parametrize(
    ("profiles", "state"), [("var/profiles", "var"), ("var", "var"), ("p", "p/state"), ("link/x", "var")]
)
def test_profiles_and_state_apart(base: Path, profiles: str, state: str) -> None:
    """Before the state directory is there and its owner shows, too."""
    (base / "link").symlink_to("var")
    config = Config(profiles=f"{base}/{profiles}", state=f"{base}/{state}")
    (complaint,) = file_ownership.complaints(f"{base}/etc/config", config)
    assert "are one in the other" in complaint


def test_a_database(base: Path) -> None:
    place = base / "etc" / "profiles.db"
    place.touch(0o640)
    config = Config(profiles=str(place), state=f"{base}/state")

    def found() -> list[str]:
        return [one.split()[0] for one in file_ownership.complaints(f"{base}/etc/config", config)]

    assert found() == []
    place.chmod(0o660)
    assert found() == [str(place)]
    place.chmod(0o640)
    (base / "etc").chmod(0o1777)
    assert found() == [str(base / "etc")], "a journal that somebody plants would be played back by root"


def test_what_is_on_the_way_to_a_path(base: Path) -> None:
    (base / "a").symlink_to("b")
    (base / "b").symlink_to("a")
    assert [path for path, _ in file_ownership.way(f"{base}/a/x")][-1] in (f"{base}/a", f"{base}/b"), "a loop ends"
    (base / "up").symlink_to("etc/../etc/profiles")
    found = [path.removeprefix(str(base)) for path, _ in file_ownership.way(f"{base}/./up//alice")]
    assert found[found.index("/up") :] == ["/up", "/etc", "/etc", "/etc/profiles", "/etc/profiles/alice"]
    assert found[0] == "/"


@pytest.mark.parametrize("words", [["knockknock-daemon"], ["knockknock-daemon", "--check"]])
@pytest.mark.parametrize("named", ["etc/config", "etc/profiles/alice/mac.key"])
def test_start_and_check_agree(base: Path, words: list[str], named: str) -> None:
    os.chown(base / named, NOBODY, -1)
    done = command(*words, "--config", str(base / "etc" / "config"), home=base)
    assert done.returncode == 1
    assert f"{base}/{named} belongs to nobody and has mode " in done.stderr
    assert "Traceback" not in done.stderr
    assert not (base / "var").exists()


@pytest.mark.parametrize("words", [["knockknock-daemon"], ["knockknock-daemon", "--check"]])
@pytest.mark.parametrize("owner", [0, NOBODY])
def test_a_directory_with_other_things_in_it_is_not_made_the_daemons(base: Path, words: list[str], owner: int) -> None:
    """As `state = /etc` would be."""
    (base / "var" / "state").mkdir(parents=True)
    (base / "var" / "state" / "other").touch()
    os.chown(base / "var" / "state", owner, -1)
    done = command(*words, "--config", str(base / "etc" / "config"), home=base)
    assert done.returncode == 1
    assert f"the state directory {base}/var/state must be empty, or belong to the daemon's user: " in done.stderr
    assert (base / "var" / "state").stat().st_uid == owner


def test_nothing_is_minted_where_others_could_change_it(base: Path) -> None:
    (base / "etc" / "profiles").chmod(0o777)
    words = ["bob", "4242", "--config", str(base / "etc" / "config")]
    done = command("knockknock-genprofile", *words, home=base)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"chmod go-w {base}/etc/profiles" in done.stderr
    assert sorted(path.name for path in (base / "etc" / "profiles").iterdir()) == ["alice"]
