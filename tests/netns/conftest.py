"""Fixtures of the scenarios in network namespaces.

The scenarios run side by side. Each lab has networks, files and a daemon of its own, which hears by NFLOG, as an NFLOG
group belongs to one namespace. The kernel's log is one for all: a test whose daemon reads it (source kmsg, file or
auto) is marked kernel_log, and such tests run one after the other.
"""

from collections.abc import Iterator

import pytest

from . import lab as labs
from .lab import FIREWALLS, Lab


@pytest.fixture(autouse=True)
def _kernel_log(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a lab know whether this test may read the kernel's log."""
    monkeypatch.setattr(labs, "KERNEL_LOG", request.node.get_closest_marker("kernel_log") is not None)


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
