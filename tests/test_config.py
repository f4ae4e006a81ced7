"""The daemon's configuration: defaults, every key, every refusal."""

import pytest

from knockknock.config import KEYS, Config, parse
from knockknock.errors import ConfigError

WHERE = "/etc/knockknock.d/config"


def test_defaults() -> None:
    config = parse("[main]\n", WHERE)
    assert config == Config()
    assert (config.delay, config.error_window, config.single_use) == (15, 20, True)
    assert (config.user, config.profiles, config.state) == (
        "knockknock",
        "/etc/knockknock.d/profiles",
        "/var/lib/knockknock",
    )
    assert (config.source, config.firewall, config.log) == ("auto", "auto", "stderr")


def test_every_field_has_its_key() -> None:
    assert set(KEYS) == set(Config._fields)


TAKEN = [
    ("delay", "1", 1),
    ("delay", "3600", 3600),
    ("error_window", "1", 1),
    ("error_window", "1000", 1000),
    ("resync_window", "0", 0),
    ("resync_window", "10000", 10000),
    ("clock_skew", "1", 1),
    ("clock_skew", "600", 600),
    ("single_use", "no", False),
    ("source", "kmsg", "kmsg"),
    ("source", "file", "file"),
    ("source", "nflog", "nflog"),
    ("nflog_group", "1", 1),
    ("nflog_group", "65535", 65535),
    ("log_file", "/var/log/my log", "/var/log/my log"),
    ("firewall", "iptables", "iptables"),
    ("firewall", "nftables", "nftables"),
    ("user", "_some-user", "_some-user"),
    ("profiles", "/p", "/p"),
    ("state", "/s/t", "/s/t"),
    ("log", "syslog", "syslog"),
    ("doors_per_minute", "1", 1),
    ("doors_per_minute", "60000", 60000),
    ("sandbox", "required", "required"),
    ("sandbox", "off", "off"),
    ("control", "off", "off"),
    ("control", "/run/k/" + "c" * 100, "/run/k/" + "c" * 100),
    ("control_group", "adm", "adm"),
    ("on_open", "/usr/local/bin/tell", "/usr/local/bin/tell"),
    ("on_close", "/usr/local/bin/tell", "/usr/local/bin/tell"),
    (
        "textfile",
        "/var/lib/prometheus/node-exporter/knockknock.prom",
        "/var/lib/prometheus/node-exporter/knockknock.prom",
    ),
]


@pytest.mark.parametrize(("key", "text", "value"), TAKEN)
def test_taken(key: str, text: str, value: object) -> None:
    assert parse(f"[main]\n{key} = {text}\n", WHERE) == Config(**{key: value})  # type: ignore[arg-type]  # of all kinds


@pytest.mark.parametrize("table", ["inet filter", "ip my_table", "ip6 t-1.2"])
def test_table_and_chain(table: str) -> None:
    config = parse(f"[main]\nnft_table = {table}\nnft_chain = input\n", WHERE)
    assert (config.nft_table, config.nft_chain) == (table, "input")


REFUSED = [
    ("delay", "0"),
    ("delay", "3601"),
    ("delay", "15s"),
    ("delay", ""),
    ("error_window", "0"),
    ("error_window", "1001"),
    ("resync_window", "10001"),
    ("clock_skew", "0"),
    ("clock_skew", "601"),
    ("single_use", "perhaps"),
    ("source", "journal"),
    ("source", ""),
    ("nflog_group", "0"),
    ("nflog_group", "65536"),
    ("nflog_group", "a"),
    ("log_file", "kern.log"),
    ("log_file", "/"),
    ("firewall", "pf"),
    ("nft_table", "filter"),
    ("nft_table", "bridge filter"),
    ("nft_table", "inet filter input"),
    ("nft_table", "inet a;flush"),
    ("nft_chain", "a b"),
    ("nft_chain", "{"),
    ("user", "a b"),
    ("user", "0"),
    ("profiles", "profiles"),
    ("profiles", "/profiles/"),
    ("profiles", "~/profiles"),
    ("profiles", "/a\0b"),
    ("log_file", "/a\0b"),
    ("state", "./state"),
    ("state", "/a\0b"),
    ("log", "journal"),
    ("control", "control"),
    ("control", "no"),
    ("control", "/run/k/" + "c" * 101),
    ("control_group", "a b"),
    ("on_open", "tell me"),
    ("on_close", "tell"),
    ("textfile", "/var/lib/knockknock.txt"),
    ("textfile", "knockknock.prom"),
]


@pytest.mark.parametrize(("key", "text"), REFUSED)
def test_refused(key: str, text: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{WHERE}:3: {key}: '.*' is "):
        parse(f"[main]\n# a comment\n{key} = {text}\n", WHERE)


@pytest.mark.parametrize("line", ["nft_table = inet filter", "nft_chain = input"])
def test_half_a_chain(line: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{WHERE}.*: nft_table and nft_chain are given together"):
        parse(f"[main]\n{line}\n", WHERE)
