"""The client's configuration by host: grammar, patterns, which value wins."""

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knockknock.client import host_config
from knockknock.client.host_config import Host
from knockknock.errors import ConfigError

WHERE = "/home/alice/.knockknock/config"
names = st.from_regex(r"[a-z0-9]{1,6}(\.[a-z0-9]{1,4}){0,2}", fullmatch=True)
spaces = st.sampled_from([" ", "\t", "  ", "=", " = "])
ports = st.builds("{}{}".format, st.integers(1, 65535), st.sampled_from(["", "/udp", "/tcp"]))
values = {
    "HostName": names,
    "Profile": names,
    "Ports": st.lists(ports, min_size=1).map(" ".join),
    "Timeout": st.integers(1, 3600).map(str),
    "Source": st.sampled_from(["192.0.2.7", "2001:db8::7"]),
    "AddressFamily": st.sampled_from(["any", "inet", "inet6"]),
}


@st.composite
def settings(draw: st.DrawFn) -> tuple[str, str]:
    """A keyword and its value."""
    keyword = draw(st.sampled_from(sorted(values)))
    return keyword, draw(values[keyword])


@given(names, st.lists(st.tuples(st.booleans(), st.lists(settings(), max_size=4)), max_size=4), st.data())
def test_the_first_value_that_applies_wins(
    host: str, blocks: list[tuple[bool, list[tuple[str, str]]]], data: st.DataObject
) -> None:
    lines: list[str] = []
    expected: dict[str, str] = {}
    for applies, block in blocks:
        lines.append(f"Host {host if applies else 'another.host'}")
        for keyword, value in block:
            spelling = data.draw(st.sampled_from([keyword, keyword.lower(), keyword.upper()]))
            lines += [f"  {spelling}{data.draw(spaces)}{value}", data.draw(st.sampled_from(["", "# more", "\t"]))]
            if applies:
                expected.setdefault(keyword, value)
    found = host_config.parse("\n".join(lines), WHERE, host)
    alone = "\n".join(f"{keyword} {value}" for keyword, value in expected.items())
    assert found == host_config.parse(alone, WHERE, host)
    assert sum(value is not None for value in found) == len(expected)


def test_each_value() -> None:
    text = "HostName a.example\nProfile p\nPorts 22 51820/udp\nTimeout 2.5\nSource ::1\nAddressFamily inet6\n"
    assert host_config.parse(text, WHERE, "x") == Host("a.example", "p", ((6, 22), (17, 51820)), 2.5, "::1", "inet6")


@given(st.text("ab.*?", max_size=12), st.text("ab.", max_size=12))
def test_patterns(pattern: str, host: str) -> None:
    """As the standard library understands * and ?; nothing else is special."""
    if pattern and host:
        found = host_config.parse(f'Host "{pattern}"\nProfile p', WHERE, host)
        assert (found.profile == "p") is fnmatch.fnmatchcase(host, pattern)


def test_a_pattern_that_excludes() -> None:
    text = "Host *.example !bad.example\nProfile p"
    assert host_config.parse(text, WHERE, "good.example").profile == "p"
    assert host_config.parse(text, WHERE, "GOOD.Example").profile == "p"
    assert host_config.parse(text, WHERE, "bad.example").profile is None
    assert host_config.parse("Host !bad.example\nProfile p", WHERE, "good.example").profile is None, "as in ssh_config"


def test_a_pattern_that_takes_long_elsewhere() -> None:
    assert host_config.parse(f"Host {'*a' * 200}b\nProfile p", WHERE, "a" * 255).profile is None


WRONG = [
    ("Host", "Host: a pattern is expected"),
    ("Ports", "Ports: ports are expected"),
    ("Ports 0", "Ports: '0' is not a port number"),
    ("Ports 22/icmp", "Ports: 'icmp' is not a protocol"),
    ("Timeout 0", "Timeout: '0' is not a number of seconds"),
    ("Timeout 1 2", "Timeout: one word is expected"),
    ("Timeout nan", "Timeout: 'nan' is not"),
    ("Source server", "Source: 'server' is not an IP address"),
    ("AddressFamily ipv4", "AddressFamily: 'ipv4' is not any, inet or inet6"),
    ("Profile ../other", "Profile: '../other' is not the name of a profile"),
    ("HostName -x", "HostName: '-x' is not a host name"),
    ("Colour red", "there is no keyword 'colour'; there are Host, HostName, "),
    ('Profile "a', "a quotation mark is not closed"),
    ("= 3", "not of the form Keyword value"),
]


@pytest.mark.parametrize(("line", "says"), WRONG, ids=[line for line, _ in WRONG])
def test_complaints(line: str, says: str) -> None:
    """With its line, also in a block that does not apply."""
    with pytest.raises(ConfigError) as caught:
        host_config.parse(f"# mine\nHost other\n{line}\n", WHERE, "server")
    complaint = str(caught.value)
    assert complaint.startswith(f"{WHERE}:3: {says}")


@given(
    st.text()
    | st.lists(st.sampled_from(["Host", "Ports", "Timeout", " ", "=", "*", "!", '"', "#", "\n", "22"])).map("".join)
)
def test_any_text_is_read_or_refused_with_its_place(text: str) -> None:
    try:
        host_config.parse(text, WHERE, "server")
    except ConfigError as error:
        complaint = str(error)
        assert complaint.startswith(f"{WHERE}:")
