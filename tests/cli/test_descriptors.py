"""Every command with standard descriptors that are closed or full, and with ^C at any moment: no traceback, ever."""

import os
import pwd
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ..helpers import ROOT, profile, traceback_of_ours, write_profile

HOST = "127.0.0.1"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def place(tmp_path: Path, daemon_user: pwd.struct_passwd) -> Path:
    """A home with a profile, and a configuration with a profile."""
    (tmp_path / ".knockknock").mkdir(mode=0o700)
    write_profile(tmp_path / ".knockknock", profile(HOST), 5)
    (tmp_path / "etc").mkdir()
    settings = f"profiles = {tmp_path}/etc/profiles\nstate = {tmp_path}/state\nsource = nflog\ncontrol = off\n"
    (tmp_path / "etc/config").write_text(f"[main]\n{settings}")
    assert run(tmp_path, "knockknock-genprofile phone 4242 --config etc/config").returncode == 0
    return tmp_path


def words(line: str) -> list[str]:
    name, *rest = shlex.split(line)
    return [sys.executable, str(ROOT / "bin" / name), *rest]


def environment(place: Path) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("SUDO_", "PYTHON"))}
    return clean | {"HOME": str(place), "PYTHONDONTWRITEBYTECODE": "1"}


def run(place: Path, line: str, redirect: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command by a shell, with its redirections; what it prints to /dev/null's neighbours is kept in a file."""
    full = f"exec {shlex.join(words(line))} {redirect}"
    return subprocess.run(
        ["sh", "-c", full],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        env=environment(place) | more,
        cwd=place,
        check=False,
    )


COMMANDS = [
    "knockknock --help",
    "knockknock --list",
    f"knockknock --dry-run -p 22 {HOST}",
    f"knockknock --doctor {HOST}",
    "knockknock --enroll",
    "knockknock-genprofile --list --config etc/config",
    "knockknock-genprofile laptop 4243 --config etc/config",
    "knockknock-genprofile --show-line phone --config etc/config",
    "knockknock-daemon --check --config etc/config",
    "knockknock-daemon --status --config etc/config",
    "knockknock-proxy --print-pac",
]


@needs_root
@pytest.mark.parametrize("line", COMMANDS)
@pytest.mark.parametrize("redirect", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full"])
def test_closed_and_full(place: Path, line: str, redirect: str) -> None:
    done = run(place, line, redirect)
    said = done.stdout + done.stderr
    assert "Traceback" not in said, said
    assert "Exception ignored" not in said, said
    assert done.returncode in (0, 1, 2), said
    prints = "--enroll" not in line and "knockknock-daemon" not in line
    if redirect in (">&-", ">/dev/full") and prints:
        assert done.returncode == 1
        assert "standard output cannot be written" in done.stderr


@needs_root
@pytest.mark.parametrize("redirect", [">&-", ">/dev/full"])
@pytest.mark.parametrize("line", ["knockknock-genprofile laptop 4243", "knockknock-genprofile --rotate phone"])
def test_a_line_that_could_not_be_printed_is_had_again(place: Path, line: str, redirect: str) -> None:
    """Until the profile knocks."""
    done = run(place, f"{line} --config etc/config", redirect)
    name = "laptop" if "laptop" in line else "phone"
    assert done.returncode == 1
    assert f"{name} is made, and until it knocks its line is shown again by knockknock-genprofile show-line" in (
        done.stderr
    )
    again = run(place, f"knockknock-genprofile --show-line {name} --config etc/config")
    assert again.stdout.splitlines()[-1].startswith("knockknock1:")
    (place / "state" / name).write_text("7\n")
    used = run(place, f"knockknock-genprofile --show-line {name} --config etc/config")
    assert (used.returncode, used.stdout) == (1, "")
    assert f"{name} was used already" in used.stderr


@needs_root
@pytest.mark.parametrize("line", COMMANDS)
def test_interrupted_at_any_moment(place: Path, line: str) -> None:
    """But while Python itself starts, before a line of ours runs: what it says then names no file of ours."""
    begin = time.monotonic()
    run(place, line)
    whole = time.monotonic() - begin
    for number in range(20):
        process = subprocess.Popen(
            words(line),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(place),
            cwd=place,
        )
        time.sleep(whole * number / 20)
        process.send_signal(signal.SIGINT)
        said = "".join(process.communicate(timeout=30))
        assert not traceback_of_ours(said)
        assert process.returncode in (0, 1, 2, 130, -signal.SIGINT), said


@needs_root
@pytest.mark.parametrize("line", ["knockknock --doctor bücher.example", "knockknock -p 22 bücher.example"])
def test_a_terminal_that_knows_ascii_alone(place: Path, line: str) -> None:
    done = run(place, line, LC_ALL="C", PYTHONIOENCODING="ascii", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert "Traceback" not in done.stderr
    assert done.returncode == 1


INTERRUPTED = """
import io, sys
sys.path[:0] = [sys.argv.pop(1)]
from knockknock.cli import run
from knockknock.errors import KnockError
class Dying:
    def __del__(self):
        raise KeyboardInterrupt
class Output(io.StringIO):
    def flush(self):
        sys.stdout = before
        raise KeyboardInterrupt
def command(arguments):
    global before
    before = sys.stdout
    {}
run("knockknock", command)
"""


@pytest.mark.parametrize(
    "moment",
    [
        'raise RuntimeError("Error calling __set_name__") from KeyboardInterrupt()',  # as Python 3.11 hides it
        "Dying(); print(1)",
        "sys.stdout = Output()",
        "sys.stdout = Output(); sys.exit(0)",
        'sys.stdout = Output(); raise KnockError("no")',
    ],
    ids=["while a class is made", "in a destructor", "at the end", "behind the help", "behind an error"],
)
def test_interrupted_at_a_rare_moment(moment: str) -> None:
    words = [sys.executable, "-c", INTERRUPTED.format(moment), str(ROOT)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (130, "")
