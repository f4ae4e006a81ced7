"""Profiles: keys and config as text, the config of knockknock 0.8, names."""

from typing import Any

import pytest

from knockknock.core.key_text import parse_key, write_key
from knockknock.core.request import ANY_TCP, TCP, UDP, Ports, Request, Verb
from knockknock.errors import ConfigError, ProfileError
from knockknock.profiles.text import check_name, parse_config, write_config
from knockknock.schemes.syn.profile import Profile

from ..helpers import TEXT, completed, profile

WHERE = "/etc/knockknock.d/profiles/alice/config"


def test_config_of_old() -> None:
    old = parse_config("[main]\nknock_port = 4242\n", WHERE)
    assert old == Profile("", b"", b"", 4242, "classic", legacy=True)
    assert isinstance(old, Profile)
    assert (old.ports, old.bind_source, old.single_use) == (ANY_TCP, False, None)
    assert old.permits(Request(Verb.OPEN, TCP, 1))
    assert not old.permits(Request(Verb.OPEN, UDP, 1))


def test_config_of_today() -> None:
    text = "[main]\nknock_port = 1\nformat = stealth\nports = tcp/22, udp/53\nbind_source = yes\nsingle_use = no\n"
    ports = (Ports(TCP, 22, 22), Ports(UDP, 53, 53))
    assert parse_config(text, WHERE) == Profile("", b"", b"", 1, "stealth", ports, True, False)
    assert parse_config(text + "scheme = syn\n", WHERE) == parse_config(text, WHERE)


@pytest.mark.parametrize("delay", [None, 1, 3600])
@pytest.mark.parametrize("single_use", [None, True, False])
@pytest.mark.parametrize("bind", [True, False])
@pytest.mark.parametrize("format", ["compact", "stealth"])
def test_config_round_trip(format: str, bind: bool, single_use: bool | None, delay: int | None) -> None:
    own: dict[str, Any] = {"bind_source": bind, "single_use": single_use, "delay": delay, "doors_per_minute": delay}
    one = profile(format=format, ports="tcp/22,udp/1-65535", **own)
    assert completed(parse_config(write_config(one), WHERE), one) == one


def test_a_written_classic_profile_is_not_one_of_old() -> None:
    draft = parse_config(write_config(profile(format="classic")), WHERE)
    assert draft.legacy is False
    assert draft.ports == (Ports(TCP, 22, 22),)


REFUSED = [
    ("[main]\n", "", "knock_port = PORT"),
    ("[main]\nformat = compact\n", "", "knock_port = PORT"),
    ("[main]\nknock_port = 0\n", ":2", "knock_port: '0' is not a port number"),
    ("[main]\nknock_port = 65536\n", ":2", "knock_port: '65536' is not a port number"),
    ("[main]\nknock_port =\n", ":2", "knock_port: '' is not a port number"),
    ("knock_port = 4242\n", ":1", "[main]"),
    ("[main]\nknock_port = 4242\nformat = tiny\n", ":3", "format: 'tiny' is not one of compact, classic, stealth"),
    ("[main]\nknock_port = 4242\n\nports = ssh\n", ":4", "ports: 'ssh' is not a port number"),
    ("[main]\nknock_port = 4242\nports = tcp/1-0\n", ":3", "ports: '0' is not a port number"),
    ("[main]\nknock_port = 4242\nbind_source = 2\n", ":3", "bind_source: '2' is neither yes nor no"),
    ("[main]\nknock_port = 4242\nsingle_use =\n", ":3", "single_use: '' is neither yes nor no"),
    ("[main]\nknock_port = 4242\ndelay = 3601\n", ":3", "delay: '3601' is not a whole number from 1 to 3600"),
    ("[main]\nknock_port = 4242\ndelay = 0\n", ":3", "delay: '0' is not a whole number from 1 to 3600"),
    ("[main]\nknock_port = 4242\ndoors_per_minute = 0\n", ":3", "doors_per_minute: '0' is not a whole number"),
    ("[main]\nknock_port = 4242\nport = 22\n", ":3", "there is no key 'port'"),
    ("[main]\nknock_port = 4242\nlegacy = yes\n", ":3", "there is no key 'legacy'"),
    ("[main]\nknock_port = 4242\nbind_source = yes\n", "", "classic cannot bind the source"),
    ("[main]\nknock_port = 4242\nformat = classic\nports = udp/53\n", "", "classic opens TCP ports only"),
    ("[main]\nknock_port = 4242\nports = tcp/22, udp/53\n", "", "classic opens TCP ports only"),
]


@pytest.mark.parametrize(("text", "line", "words"), REFUSED)
def test_refused(text: str, line: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, WHERE)
    assert str(caught.value).startswith(f"{WHERE}{line}: ")
    assert words in str(caught.value)


KEY = bytes(range(16))


@pytest.mark.parametrize("text", [TEXT[0], TEXT[0] + "\n", TEXT[0] + "\r\n", f"  {TEXT[0]}\n\n"])
def test_key_as_knockknock_of_old_wrote_it(text: str) -> None:
    assert parse_key(text, WHERE) == KEY


def test_long_key() -> None:
    assert parse_key("ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=\n", WHERE) == bytes(range(32, 64))
    assert write_key(bytes(range(32, 64))) == "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=\n"
    assert write_key(KEY) == TEXT[0] + "\n"


NO_KEYS = [
    "",
    "\n",
    "not a key",
    "AAECAwQFBgcICQoLDA0O",  # 15 bytes
    "AAECAwQFBgcICQoLDA0ODxA=",  # 17 bytes
    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYX",  # 24 bytes, an AES key but none of ours
    "000102030405060708090a0b0c0d0e0f",  # hexadecimal is base64 too, of 24 bytes
    "AAECAwQFBgcI\nCQoLDA0ODw==",
    "AAECAwQFBgcICQoLDA0ODw",
    "AAECAwQFBgcICQoLDA0ODw==AAEC",
    "AAECAwQFBgcICQoLDA0OD*==",
    "AAECAwQFBgcICQoLDA0ODé==",
    "\ufffd" * 24,
]


@pytest.mark.parametrize("text", NO_KEYS)
def test_no_key(text: str) -> None:
    with pytest.raises(ProfileError) as caught:
        parse_key(text, "/p/cipher.key")
    assert str(caught.value) == "/p/cipher.key: not a key: base64 of 16 or 32 bytes is expected"
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("name", ["a", "A1", "laptop", "a.b-c_d", "9", "server.example.org", "x" * 64])
def test_name(name: str) -> None:
    assert check_name(name) == name


NO_NAMES = [
    "",
    ".",
    "..",
    ".hidden",
    "-p",
    "_x",
    "a/b",
    "/a",
    "a b",
    "a\n",
    "a\0",
    "é",
    "x" * 65,
    "../x",
    "a:b",
    "~",
    "*",
]


@pytest.mark.parametrize("name", NO_NAMES)
def test_no_name(name: str) -> None:
    with pytest.raises(ProfileError, match="cannot name a profile"):
        check_name(name)


def test_a_profile_shows_its_name_only() -> None:
    one = profile()
    assert repr(one) == str(one) == f"{one}" == f"{one!r}" == "<profile alice>"
    assert repr([one]) == "[<profile alice>]"
