"""Fixtures that several test files share."""

import os
import pwd
import socket
import subprocess
import sys

import pytest

from .helpers import NOBODY

USER = "knockknock"


@pytest.fixture(scope="session")
def daemon_user() -> pwd.struct_passwd:
    """The account that the daemon becomes; made if this machine has none."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    try:
        return pwd.getpwnam(USER)
    except KeyError:
        subprocess.run(
            ["useradd", "--system", "--user-group", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", USER],
            check=True,
        )
        return pwd.getpwnam(USER)


@pytest.fixture(scope="session")
def nobody() -> int:
    """The id of an unprivileged user that can run this Python."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody else")
    words = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", sys.executable, "-c", ""]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip(f"others than root cannot run {sys.executable}")
    return NOBODY


@pytest.fixture(scope="session")
def reachable() -> str:
    """An address that a knock could be sent to, not this machine's own where there is a route to another."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.7", 9))
        except OSError:
            return "127.0.0.1"
        return "198.51.100.7"
