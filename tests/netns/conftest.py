"""Fixtures of the scenarios in network namespaces."""

from collections.abc import Iterator

import pytest

from .lab import FIREWALLS, Lab


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
