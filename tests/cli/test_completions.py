"""Shell completion, as the shells themselves do it when somebody types and presses Tab."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ..helpers import ROOT

COMMANDS = ("knockknock", "knockknock-daemon", "knockknock-genprofile", "knockknock-proxy")
SHELLS = {
    "bash": (
        ["bash", "--norc", "--noprofile", "-i"],
        "source /usr/share/bash-completion/bash_completion",
        "share/bash-completion/completions/{}",
    ),
    "zsh": (
        ["zsh", "-f", "-i"],
        "unsetopt zle_bracketed_paste; fpath=({share}/zsh/site-functions $fpath); autoload -U compinit; compinit -u -D",
        "share/zsh/site-functions/_{}",
    ),
    "fish": (["fish"], "", "share/fish/vendor_completions.d/{}.fish"),
}
"""How to start it without a user's own settings, what those would have done, where it looks."""
TYPED = [
    ("knockknock --dry", "knockknock --dry-run"),
    ("knockknock -p 22 serv", "knockknock -p 22 server.example"),
    ("knockknock-daemon che", "knockknock-daemon check"),
    ("knockknock-daemon --config ./dae", "knockknock-daemon --config ./daemon.conf"),
    ("knockknock-genprofile --format ste", "knockknock-genprofile --format stealth"),
    ("knockknock-proxy --vers", "knockknock-proxy --version"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's home, with a profile, a file, and what scripts/completions writes in share/."""
    made = tmp_path_factory.mktemp("home")
    (made / ".knockknock" / "server.example").mkdir(parents=True)
    (made / ".knockknock" / "serving-no-host").touch()
    (made / "daemon.conf").touch()
    (made / "bin").mkdir()
    for name in COMMANDS:  # shells ask for the completion of a command that there is
        (made / "bin" / name).touch(mode=0o755)
    subprocess.run(
        [str(ROOT / "scripts" / "completions"), str(made / "share")],
        env=os.environ | {"PYTHON": sys.executable},
        check=True,
    )
    return made


@pytest.mark.parametrize("shell", SHELLS)
def test_there_for_each_command(shell: str, home: Path) -> None:
    assert all((home / SHELLS[shell][2].format(name)).read_text() for name in COMMANDS)


@pytest.mark.parametrize(("typed", "expected"), TYPED)
@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_tab(shell: str, typed: str, expected: str, home: Path) -> None:
    words, setting, _ = SHELLS[shell]
    assert expected in on_terminal(words, setting.format(share=home / "share"), typed, expected, home)


@pytest.mark.parametrize(("typed", "expected"), TYPED)
def test_fish(typed: str, expected: str, home: Path) -> None:
    done = subprocess.run(
        [*SHELLS["fish"][0], "-c", f"complete --do-complete '{typed}'"],
        env=surroundings(home),
        cwd=home,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == [expected.split()[-1]]


def surroundings(home: Path) -> dict[str, str]:
    return {
        "HOME": str(home),
        "PATH": f"{home}/bin:/usr/bin:/bin",
        "XDG_DATA_DIRS": f"{home}/share:/usr/share",
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
        "PS1": "> ",
    }


def on_terminal(words: list[str], setting: str, typed: str, expected: str, home: Path) -> str:
    """Type text and Tab in a shell; return what it shows until the expected text is there, within 10 s."""
    program = shutil.which(words[0])
    assert program, f"{words[0]} is not installed: scripts/prepare test"
    child, fd = pty.fork()
    if child == 0:
        os.chdir(home)
        os.execve(program, words, surroundings(home))
    try:
        os.write(fd, f"{setting}; echo rea''dy\n".encode())
        wait_for(fd, "ready\r\n")
        os.write(fd, f"{typed}\t".encode())
        return wait_for(fd, expected)
    finally:
        os.close(fd)  # hangs up
        os.waitpid(child, 0)


def wait_for(fd: int, text: str) -> str:
    shown, end = "", time.monotonic() + 10
    while text not in shown and (left := end - time.monotonic()) > 0 and select.select([fd], [], [], left)[0]:
        shown += os.read(fd, 4096).decode(errors="replace")
    return shown
