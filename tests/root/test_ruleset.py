"""The text of our table: nft takes it, whatever the configuration says."""

import os

import pytest

from knockknock.errors import FirewallError
from knockknock.root import accept_rule, firewall, iptables_legacy, libnftables, ruleset
from knockknock.root.policy import Policy

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


def test_a_step_of_the_removal_that_fails_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def fails(*_: object) -> None:
        raise FirewallError("legacy iptables is broken")

    monkeypatch.setattr(firewall, "connect", lambda: None)
    monkeypatch.setattr(iptables_legacy, "look", fails)
    monkeypatch.setattr(accept_rule, "remove", lambda *_: done.append("accept rules"))
    monkeypatch.setattr(libnftables, "run", lambda _: done.append("table"))
    with pytest.raises(FirewallError, match="is broken"):
        firewall.Firewall(Policy((), (), 15, "/s", 75)).remove()
    assert done == ["accept rules", "table"]
