"""The examples in docs/operation.md that no walk through the pages runs: each is what the code makes, or takes."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from knockknock.cli.status import page
from knockknock.server import config, event_text

from ..cli.test_status import SAID
from ..helpers import ROOT
from ..netns.test_pages import blocks


def example(*words: str) -> str:
    """The block of code that has all of these words."""
    text = (ROOT / "docs" / "operation.md").read_text()
    (found,) = [block.text for block in blocks(text) if all(word in block.text for word in words)]
    return found


def test_profiles_in_a_database() -> None:
    found = config.parse("[main]\n" + example("profiles = "), "config")
    assert found.profiles.endswith(".db")


def test_the_page_of_status() -> None:
    """With other values, the same words in the same order."""
    of_today = [page(SAID, one=False).split("\n\n")[number].split("\n") for number in range(3)]
    shown = [part.split("\n") for part in example("PROFILE", "OPEN FOR").strip().split("\n\n")]
    assert [line.split()[0] for line in shown[0]] == [line.split()[0] for line in of_today[0]]
    assert [part[0].split() for part in shown[1:]] == [part[0].split() for part in of_today[1:]]


def test_lines_of_the_log() -> None:
    for line in example("[event=opened", "[event=refused").splitlines():
        pairs = dict(word.split("=", 1) for word in shlex.split(line[line.index("[") + 1 : -1]))
        numbers = {key: int(value) for key, value in pairs.items() if value.isdigit()}
        assert event_text.line({**pairs, **numbers}) == line


def test_the_hook(tmp_path: Path) -> None:
    script, logger = tmp_path / "hook", tmp_path / "logger"
    script.write_text(example("#!/bin/sh", "logger"))
    logger.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/logged\n')
    for one in script, logger:
        one.chmod(0o755)
    told = {"PROFILE": "laptop", "PROTOCOL": "tcp", "PORT": "22", "SOURCE": "192.0.2.7"}
    environment = {f"KNOCKKNOCK_{key}": value for key, value in told.items()}
    subprocess.run([script], env={**environment, "PATH": f"{tmp_path}:/usr/bin:/bin"}, check=True)
    assert (tmp_path / "logged").read_text() == "-t\nknock\nlaptop opened tcp/22 for 192.0.2.7\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="fail2ban's own configuration is root's")
def test_the_jail(tmp_path: Path) -> None:
    place = tmp_path / "fail2ban"
    shutil.copytree("/etc/fail2ban", place)
    shutil.copy(ROOT / "config" / "knockknock-fail2ban.conf", place / "filter.d" / "knockknock.conf")
    (place / "jail.d" / "knockknock.conf").write_text(example("[knockknock]"))
    done = subprocess.run(["fail2ban-client", "-c", place, "-d"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"'add', 'knockknock', 'systemd'", done.stdout), done.stdout
    assert re.search(r"'set', 'knockknock', 'maxretry', 10", done.stdout)
