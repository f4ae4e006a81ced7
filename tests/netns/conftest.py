"""Fixtures of the scenarios in network namespaces.

The scenarios run side by side. Each lab has networks, files and a daemon of its own, which hears by NFLOG, as an NFLOG
group belongs to one namespace. The kernel's log is one for all: a test whose daemon reads it (source kmsg, file or
auto) is marked kernel_log, and such tests wait for each other.
"""

import fcntl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import lab as labs
from .lab import FIREWALLS, Lab


@pytest.fixture(autouse=True)
def _kernel_log(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lets a test that is marked have the kernel's log for itself, whoever else tests on this machine."""
    if not request.node.get_closest_marker("kernel_log"):
        yield
        return
    monkeypatch.setattr(labs, "KERNEL_LOG", True)
    with open(Path(tempfile.gettempdir()) / "knockknock-tests.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Three hosts; the server's own firewall is nftables."""
    one = Lab()
    try:
        one.guard("nftables")
        yield one
    finally:
        one.close()


@pytest.fixture(scope="module", params=FIREWALLS)
def walled(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Three hosts, once for each kind of firewall on the server."""
    one = Lab()
    try:
        one.guard(request.param)
        yield one
    finally:
        one.close()
