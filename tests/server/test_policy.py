"""The policy that the set-up makes of root's files, and the records that the root helper refuses by it."""

import ipaddress
from pathlib import Path

import pytest

from knockknock.errors import ConfigError, GrantError
from knockknock.root import policy
from knockknock.root.policy import Policy, Scan, limits
from knockknock.root.record import Grant, Order
from knockknock.server import policy_reader as reader

from ..helpers import profile, write_profile

POLICY = Policy(((6, 4242),), ((6, 22, 22), (6, 8000, 8010), (17, 51820, 51820)), 15)


def ask(order: Order = Order.OPEN_ONCE, address: str = "198.51.100.7", protocol: int = 6, port: int = 22) -> Grant:
    """A grant that the policy allows unless one thing is changed."""
    return Grant(order, ipaddress.ip_address(address).packed, protocol, port, 0 if order is Order.CLOSE else 15)


ALLOWED = [
    ask(),
    ask(Order.OPEN),
    ask(Order.CLOSE),
    ask()._replace(seconds=1),
    ask(port=8000),
    ask(port=8010),
    ask(protocol=17, port=51820),
    ask(address="2001:db8::7"),
    ask(address="10.1.2.3"),
    ask(address="1.0.0.0"),
    ask(address="223.255.255.254"),
    ask(address="128.0.0.1"),
    ask(address="126.255.255.255"),
]


@pytest.mark.parametrize("good", ALLOWED, ids=str)
def test_allowed(good: Grant) -> None:
    """And what a field too much would do is shown below: the same grants with one thing changed."""
    limits(POLICY).check(good)
    with pytest.raises(GrantError):
        limits(POLICY._replace(doors=())).check(good)


@pytest.mark.parametrize(
    ("protocol", "port"),
    [(6, 21), (6, 23), (6, 7999), (6, 8011), (17, 22), (6, 51820), (17, 51819), (6, 65535), (6, 1)],
)
@pytest.mark.parametrize("order", [Order.OPEN_ONCE, Order.OPEN, Order.CLOSE])
def test_doors_that_no_profile_names(order: Order, protocol: int, port: int) -> None:
    with pytest.raises(GrantError, match=f"no profile may open protocol {protocol} port {port}$"):
        limits(POLICY).check(ask(order, protocol=protocol, port=port))


@pytest.mark.parametrize("order", [Order.OPEN_ONCE, Order.OPEN])
@pytest.mark.parametrize("seconds", [16, 65535])
def test_too_long(order: Order, seconds: int) -> None:
    with pytest.raises(GrantError, match=f"{seconds} seconds are more than the 15"):
        limits(POLICY).check(ask(order)._replace(seconds=seconds))


def test_a_profiles_own_time_is_for_its_own_doors() -> None:
    """Of several profiles that open a port the one with the longest time counts; of other ports it says nothing."""
    timed = POLICY._replace(doors=((6, 22, 22), (6, 80, 80)), timed=((6, 22, 23, 60), (6, 80, 80, 5), (6, 23, 23, 7)))
    for port, seconds in ((22, 60), (23, 60), (80, 15)):
        limits(timed).check(ask(port=port)._replace(seconds=seconds))
        with pytest.raises(GrantError, match=f"^{seconds + 1} seconds are more than the {seconds} that"):
            limits(timed).check(ask(port=port)._replace(seconds=seconds + 1))
    with pytest.raises(GrantError, match="no profile may open"):
        limits(timed).check(ask(port=24))
    with pytest.raises(GrantError, match=r"^8 seconds are more than the 7 that"):
        limits(timed._replace(doors=(), timed=((6, 23, 23, 7),))).check(ask(port=23)._replace(seconds=8))


NO_HOSTS = [
    "0.0.0.0",
    "0.1.2.3",
    "127.0.0.1",
    "127.255.255.255",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "ff02::1",
    "ff0e::101",
    "::ffff:198.51.100.7",
    "::ffff:127.0.0.1",
    "::ffff:0.0.0.0",
]


@pytest.mark.parametrize("address", NO_HOSTS)
@pytest.mark.parametrize("order", [Order.OPEN_ONCE, Order.OPEN, Order.CLOSE])
def test_addresses_that_are_no_hosts(order: Order, address: str) -> None:
    with pytest.raises(GrantError, match="is not the unicast address of a host"):
        limits(POLICY).check(ask(order, address))


SCAN = Scan(3, 60, 600, 64, ("192.0.2.0/24", "2001:db8::/32"), False, by_daemon=True)


def test_whom_the_daemon_may_shut_out() -> None:
    """Hosts, and none where the kernel counts by itself or nobody does."""
    block = Grant(Order.BLOCK, ipaddress.ip_address("198.51.100.7").packed, 0, 0, 0)
    limits(POLICY._replace(scan=SCAN)).check(block)
    for scan in (None, SCAN._replace(by_daemon=False)):
        with pytest.raises(GrantError, match="no profile may open"):
            limits(POLICY._replace(scan=scan)).check(block)
    for address in ("127.0.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1", "::1"):
        with pytest.raises(GrantError, match="not the unicast address"):
            limits(POLICY._replace(scan=SCAN)).check(block._replace(address=ipaddress.ip_address(address).packed))


def test_dump_and_load() -> None:
    full = Policy(
        ((6, 1), (17, 65535)),
        ((6, 1, 65535), (17, 53, 53)),
        3600,
        "/var/lib/knockknock",
        100,
        ((6, 22, 22), (17, 1, 9)),
        True,
        ("192.0.2.0/24",),
        any_flags=(1,),
        scan=SCAN,
        timed=((17, 53, 53, 9),),
    )
    for one in (POLICY, full, Policy((), (), 1)):
        assert policy.load(policy.dump(one)) == one


def write_config(directory: Path, lines: str = "") -> Path:
    config = directory / "config"
    config.write_text(f"[main]\nprofiles = {directory}/profiles\n{lines}")
    return config


def test_the_union_of_what_profiles_may(tmp_path: Path) -> None:
    config = write_config(
        tmp_path, "delay = 30\nstate = /s\nct_label = 7\nprotect = tcp/22, udp/5-6\nprotect_allow = 10.0.0.0/8\n"
    )
    write_profile(tmp_path / "profiles", profile("alice", ports="tcp/22,udp/53"))
    write_profile(tmp_path / "profiles", profile("bob", ports="tcp/22,tcp/80-81", knock_port=7))
    assert reader.policy(str(config)) == Policy(
        ((6, 7), (6, 4242)),
        ((6, 22, 22), (6, 80, 81), (17, 53, 53)),
        30,
        "/s",
        7,
        ((6, 22, 22), (17, 5, 6)),
        False,
        ("10.0.0.0/8",),
    )


def test_times_of_profiles(tmp_path: Path) -> None:
    config = write_config(tmp_path, "delay = 30\n")
    write_profile(tmp_path / "profiles", profile("alice", ports="tcp/22"))
    write_profile(tmp_path / "profiles", profile("bob", ports="tcp/22,tcp/80-81", delay=3600))
    found = reader.policy(str(config))
    assert (found.doors, found.seconds) == (((6, 22, 22),), 30)
    assert found.timed == ((6, 22, 22, 3600), (6, 80, 81, 3600))


def test_a_config_of_old_may_open_any_tcp_port(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    (write_profile(tmp_path / "profiles", profile()) / "config").write_text("[main]\nknock_port = 9\n")
    assert reader.policy(str(config)) == Policy(((6, 9),), ((6, 1, 65535),), 15, "/var/lib/knockknock")


BROKEN = ["", "knock_port = 1\n", "[main]\nknock_port = 1\nports = all\n", "[main]\nknock_port = 1\nport = 9\n", None]


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_profile_adds_nothing_and_takes_nothing_away(tmp_path: Path, text: str | None) -> None:
    config = write_config(tmp_path)
    write_profile(tmp_path / "profiles", profile("alice"))
    broken = write_profile(tmp_path / "profiles", profile("broken", ports="tcp/1-65535", knock_port=1)) / "config"
    broken.unlink()
    if text is not None:
        broken.write_text(text)
    assert reader.policy(str(config)) == Policy(((6, 4242),), ((6, 22, 22),), 15, "/var/lib/knockknock")


def test_hidden_and_badly_named_profiles_do_not_count(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    for name in (".alice.new", "a b", "_a", "a\nb"):
        write_profile(tmp_path / "profiles", profile(name))
    (tmp_path / "profiles" / "file").write_text("[main]\nknock_port = 1\n")
    assert reader.policy(str(config)) == Policy((), (), 15, "/var/lib/knockknock")


def test_no_profiles_at_all(tmp_path: Path) -> None:
    assert reader.policy(str(write_config(tmp_path))) == Policy((), (), 15, "/var/lib/knockknock")


def test_a_bad_configuration_names_its_line(tmp_path: Path) -> None:
    config = write_config(tmp_path, "delay = 0\n")
    with pytest.raises(ConfigError, match=f"^{config}:3: "):
        reader.policy(str(config))


def test_keys_are_not_read(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    place = write_profile(tmp_path / "profiles", profile())
    for file in ("cipher.key", "mac.key", "counter"):
        (place / file).unlink()
    assert reader.policy(str(config)).doors == ((6, 22, 22),)
