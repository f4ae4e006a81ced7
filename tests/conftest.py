"""Fixtures that several test files share."""

import gc
import os
import pwd
import resource
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadFileScheduling

from .helpers import NOBODY, ROOT, VIEW

USER = "knockknock"
# How long hypothesis looks: long enough to find something, short enough to run before every commit.
settings.register_profile("short", max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("short")


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
def nobody() -> Iterator[int]:
    """The id of an unprivileged user that can run our commands, even from a checkout in a home closed to others."""
    place = Path(tempfile.mkdtemp(prefix="knockknock-checkout-"))
    place.chmod(0o755)
    subprocess.run(["mount", "--bind", str(ROOT), str(place)], check=True)
    try:
        python = Path(sys.executable)
        VIEW["root"] = place
        VIEW["python"] = place / python.relative_to(ROOT) if python.is_relative_to(ROOT) else python
        yield NOBODY
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
        place.rmdir()


@pytest.fixture(scope="session")
def reachable() -> str:
    """An address that a knock could be sent to, not this machine's own where there is a route to another."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.7", 9))
        except OSError:
            return "127.0.0.1"
        return "198.51.100.7"


LONG = ("test_pages.py", "test_packages.py", "test_targets.py")
"""Files that take longest: begun first."""
APART = ("test_targets.py", "test_kernel_line.py")
"""Files whose tests share nothing and take long: each test may run in another process."""


class ByFile(LoadFileScheduling):  # type: ignore[misc]  # xdist ships no types
    """Gives the files of tests to the processes of `pytest -n`, as a file's tests may share what they are run in."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if nodeid.partition("::")[0].endswith(APART) else str(super()._split_scope(nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByFile:
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)


MOST = 500
"""MiB that the process of the tests may take at most."""


def pytest_runtest_setup() -> None:
    """The commands turn the collector off when they are imported; this process stays, and would grow without it."""
    gc.enable()


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Fails the test that makes this process too large, and none after it."""
    global MOST
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    if peak > MOST:
        most, MOST = MOST, peak
        pytest.fail(f"the process of the tests has grown to {peak} MiB, of which {most} are allowed")
