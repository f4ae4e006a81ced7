"""The daemon's configuration: defaults, every key, every refusal."""

import pytest

from knockknock.errors import ConfigError
from knockknock.server.config import KEYS, OBSOLETE, Config, parse

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
    assert (config.source, config.protect, config.log) == ("auto", (), "stderr")


def test_every_field_has_its_key() -> None:
    assert set(KEYS) - set(OBSOLETE) == set(Config._fields) - {"obsolete"}


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
    ("protect", "tcp/22", ((6, 22, 22),)),
    ("protect", "22, udp/51820, tcp/8000-8010", ((6, 22, 22), (6, 8000, 8010), (17, 51820, 51820))),
    ("protect", "22, 20-25, 26, 26-30", ((6, 20, 30),)),
    ("protect_reject", "yes", True),
    ("protect_allow", "192.0.2.0/24, 2001:db8::1", ("192.0.2.0/24", "2001:db8::1/128")),
    ("ct_label", "0", 0),
    ("ct_label", "126", 126),
    ("scan_public", "tcp/80,tcp/443", ((6, 80, 80), (6, 443, 443))),
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


def test_keys_of_old_are_taken_and_said() -> None:
    """A daemon that is upgraded must not stay away because of them."""
    config = parse("[main]\nfirewall = iptables\nnft_table = inet filter\nnft_chain = input\n", WHERE)
    assert config == Config(obsolete=("firewall", "nft_table", "nft_chain"))


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
    ("ct_label", "127"),
    ("protect_reject", "drop"),
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


def test_ports_that_do_not_count_anyway() -> None:
    with pytest.raises(
        ConfigError, match=f"^{WHERE}:2: scan_public: only TCP ports count, so only they can be left out"
    ):
        parse("[main]\nscan_public = tcp/80, udp/53\n", WHERE)


@pytest.mark.parametrize(("key", "text"), REFUSED)
def test_refused(key: str, text: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{WHERE}:3: {key}: '.*' is "):
        parse(f"[main]\n# a comment\n{key} = {text}\n", WHERE)
