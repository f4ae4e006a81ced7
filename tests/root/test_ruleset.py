"""The text of our table: nft takes it, whatever the configuration says."""

import os

import pytest

from knockknock.errors import FirewallError
from knockknock.root import libnftables, ruleset

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@needs_root
@pytest.mark.parametrize("state", ["/var/lib/knockknock", '/var/"; }', "/vär/" + "é" * 200, "/" + "x" * 300, "/\\"])
def test_comment(state: str) -> None:
    """In a table that is checked and not made, as it has a chain that cannot be."""
    said = ruleset.comment(state)
    assert said.startswith("doors of the knockknock daemon with /")
    table = (
        f'table inet knockknock_text {{\n comment "{said}"\n chain no {{ type filter hook nowhere priority 0; }}\n}}\n'
    )
    with pytest.raises(FirewallError) as refused:
        libnftables.run(table)
    assert "hook" in str(refused.value), "and of nothing else is it complained"
