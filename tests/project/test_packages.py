"""The wheel and the Debian packages, built, installed and used as a user would."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import knockknock

from ..fake_debian import Debian
from ..helpers import ROOT

RELEASES = ("bookworm", "trixie")
"""Debian 12 and 13."""
COMMANDS = ("knockknock", "knockknock-daemon", "knockknock-genprofile", "knockknock-proxy")
PAGES = [f"share/man/man{page.suffix[1:]}/{page.name}" for page in (ROOT / "docs" / "man").iterdir()]
COMPLETIONS = [
    place.format(name)
    for name in COMMANDS
    for place in (
        "share/bash-completion/completions/{}",
        "share/zsh/site-functions/_{}",
        "share/fish/vendor_completions.d/{}.fish",
    )
]


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return subprocess.run(
        [str(word) for word in words],
        env=environment | {"PYTHON": sys.executable, "COLUMNS": "100"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )


def good(*words: str | Path) -> str:
    """Run a command, which must succeed; return what it prints."""
    done = run(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment, with a wheel of ours in it, that was built from our source archive."""
    place = tmp_path_factory.mktemp("wheel")
    leave = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "completions")
    compiled = shutil.ignore_patterns("__pycache__")  # others write there at this moment
    shutil.copytree(
        ROOT,
        place / "tree",
        ignore=lambda at, names: compiled(at, names) | (leave(at, names) if at == str(ROOT) else set()),
    )
    good(sys.executable, "-m", "build", "-o", place, place / "tree")
    (wheel,) = place.glob("knockknock_spa-*.whl")
    good(sys.executable, "-m", "venv", place / "venv")
    good(place / "venv" / "bin" / "pip", "install", "-q", f"{wheel}[sandbox]")
    return place / "venv"


def test_wheel_brings_little(installed: Path) -> None:
    """inotify_simple and cryptography, what these need, and pyseccomp, which the installation asked for."""
    listed = good(installed / "bin" / "pip", "list", "--format=freeze", "--disable-pip-version-check").split()
    names = {line.partition("==")[0].lower().replace("_", "-") for line in listed} - {"pip", "setuptools", "wheel"}
    ours = {"knockknock-spa", "cryptography", "cffi", "pycparser", "inotify-simple", "pyseccomp"}
    assert names <= ours | {"typing-extensions"}


@pytest.mark.parametrize("name", COMMANDS)
def test_wheel_has_commands(name: str, installed: Path) -> None:
    assert good(installed / "bin" / name, "--version") == f"{name} {knockknock.__version__}\n"
    assert good(installed / "bin" / name, "--help").startswith(f"usage: {name} ")


def test_wheel_checks_a_configuration(installed: Path, tmp_path: Path) -> None:
    """Its own example, but for where the profiles are, and what a container may lack."""
    example = (installed / "share" / "doc" / "knockknock" / "examples" / "knockknock.conf").read_text()
    changes = {"source": "nflog", "profiles": f"{tmp_path}/profiles", "state": f"{tmp_path}/state"}
    for key, value in changes.items():
        example, found = re.subn(rf"^#{key} = .*$", f"{key} = {value}", example, flags=re.MULTILINE)
        assert found == 1
    path = tmp_path / "config"
    path.write_text(example)
    good(installed / "bin" / "knockknock-genprofile", "laptop", "4242", "--config", path)
    said = run("unshare", "--net", installed / "bin" / "knockknock-daemon", "--check", "--config", path)
    assert f"configuration {path}: good" in said.stdout
    assert "profile laptop: knock port tcp/4242" in said.stdout
    assert "no chain refuses input" in said.stderr, "which is so in a network of its own, and found out in the end"


@pytest.mark.parametrize("file", [*PAGES, *COMPLETIONS, "share/doc/knockknock/examples/knockknock.service"])
def test_wheel_has_files(file: str, installed: Path) -> None:
    assert (installed / file).stat().st_size > 0


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The Debian packages: ours, and those of what Debian 12 does not have."""
    before = good("git", "-C", ROOT, "status", "--porcelain") if (ROOT / ".git").exists() else ""
    made = [Path(line) for line in good(ROOT / "scripts" / "build-deb", tmp_path_factory.mktemp("deb")).splitlines()]
    if before:
        assert good("git", "-C", ROOT, "status", "--porcelain") == before, "the tree stays as it was"
    return made


def test_packages_have_their_versions(packages: list[Path]) -> None:
    wheels = (ROOT / "packaging" / "debian-missing" / "wheels.txt").read_text()
    missing = {
        f"python3-{name.replace('_', '-')}_{version}-0knockknock1_all.deb"
        for name, version in re.findall(r"^(\w+)==(\S+)", wheels, re.MULTILINE)
    }
    assert {path.name for path in packages} == missing | {f"knockknock_{knockknock.__version__}_all.deb"}


def test_lintian_finds_nothing(packages: list[Path]) -> None:
    changes = sorted(packages[0].parent.glob("*.changes"))
    assert len(changes) == 2
    assert good("lintian", "--allow-root", "--display-info", "--pedantic", *changes) == ""


@pytest.fixture(scope="module", params=RELEASES)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Debian:
    """A new server with Python, as Debian's installer leaves it."""
    made = Debian(request.param, tmp_path_factory.mktemp(request.param))
    made.install_server()
    return made


def test_packages_bring_little(packages: list[Path], server: Debian) -> None:
    """With what they recommend, as apt does by itself."""
    brought = server.would_install(*packages, recommends=True)
    assert {path.name.partition("_")[0] for path in packages} <= brought
    assert len(brought) < 15, brought


def test_prepare_brings_what_a_build_needs(server: Debian) -> None:
    script = (ROOT / "scripts" / "prepare").read_text()
    names = re.findall(r'^deb="(.*)"$', script, re.MULTILINE)[0].split()
    server.install(*names, recommends=False)
    for control in (ROOT / "debian" / "control", ROOT / "packaging" / "debian-missing" / "debian" / "control"):
        good("dpkg-checkbuilddeps", f"--admindir={server.admin}", control)


@pytest.mark.parametrize("release", RELEASES)
def test_packages_in_a_fresh_debian(packages: list[Path], release: str) -> None:
    """Installed, used, upgraded, removed, purged."""
    assert good("env", f"RELEASE={release}", ROOT / "scripts" / "check-deb", *packages).endswith("all is well\n")


def test_rpm_spec() -> None:
    """It is read, and has our version."""
    parsed = good("rpmspec", "--parse", ROOT / "packaging" / "knockknock.spec")
    assert f"Version:        {knockknock.__version__}\n" in parsed
