"""Events as one line of text for people and programs, and as fail2ban reads it."""

import re
import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knockknock.core.events import Accepted, Quiet, Reason, Refused
from knockknock.core.request import TCP, UDP, Request, Verb
from knockknock.root.record import Grant, Order
from knockknock.server import event_text

from ..helpers import OPEN_22, ROOT, SOURCE, SOURCE6, knock, profile

PACKET = knock(profile(), 7)
SIX = PACKET._replace(source=SOURCE6)
OPENED = event_text.obeyed("laptop", Grant(Order.OPEN_ONCE, SOURCE, TCP, 22, 15))
HEARD = event_text.of(Accepted("laptop", 7, OPEN_22, Grant(Order.OPEN_ONCE, SOURCE, TCP, 22, 15)))
DOOR = "profile=laptop source=192.0.2.7 protocol=tcp port=22"
LINES = [
    (
        OPENED,
        f"laptop: open tcp/22 for 192.0.2.7, 15 s, one connection [event=opened {DOOR} seconds=15 use=one]",
    ),
    (
        event_text.obeyed("p", Grant(Order.OPEN, SOURCE6, UDP, 53, 1)),
        "p: open udp/53 for 2001:db8::7, 1 s, any connection "
        "[event=opened profile=p source=2001:db8::7 protocol=udp port=53 seconds=1 use=any]",
    ),
    (
        event_text.obeyed("laptop", Grant(Order.CLOSE, SOURCE, TCP, 22, 0)),
        f"laptop: close tcp/22 for 192.0.2.7 [event=closed {DOOR} reason=asked]",
    ),
    (
        event_text.revoked("laptop", Grant(Order.CLOSE, SOURCE, TCP, 22, 0)),
        "laptop: close tcp/22 for 192.0.2.7, as the profile was removed [event=closed reason=revoked "
        "profile=laptop source=192.0.2.7 protocol=tcp port=22]",
    ),
    (
        event_text.of(Refused(Reason.UNKNOWN, PACKET)),
        "refused unknown: knock from 192.0.2.7 at port 4242 "
        "[event=refused reason=unknown source=192.0.2.7 knock_port=4242]",
    ),
    (
        event_text.of(Refused(Reason.REPLAY, SIX, "laptop", None, Request(Verb.CLOSE, TCP, 22))),
        "refused replay: knock from 2001:db8::7 at port 4242, laptop asked to close tcp/22 [event=refused "
        "reason=replay source=2001:db8::7 knock_port=4242 profile=laptop verb=close protocol=tcp port=22]",
    ),
    (
        event_text.of(Refused(Reason.NOT_PERMITTED, PACKET, "laptop", 7, OPEN_22)),
        "refused not permitted: knock from 192.0.2.7 at port 4242, laptop asked to open tcp/22 [event=refused "
        'reason="not permitted" source=192.0.2.7 knock_port=4242 profile=laptop verb=open protocol=tcp port=22]',
    ),
    (event_text.of(Quiet(120)), "120 more packets at knock ports opened nothing [event=ignored packets=120]"),
    (
        event_text.failed(HEARD, "the disk is full"),
        "knock of laptop not obeyed: the disk is full "
        "[event=failed profile=laptop source=192.0.2.7 verb=open protocol=tcp port=22 counter=7]",
    ),
    (
        event_text.blocked("192.0.2.7", 3),
        "192.0.2.7 is shut out: it tried more than 3 port(s) [event=blocked source=192.0.2.7 ports=3]",
    ),
]


@pytest.mark.parametrize(("told", "line"), LINES, ids=[str(told["event"]) for told, _ in LINES])
def test_line(told: event_text.Facts, line: str) -> None:
    assert event_text.line(told) == line


def test_a_door_that_has_ended() -> None:
    door = {"profile": "laptop", "source": "192.0.2.7", "protocol": "tcp", "port": 22}
    assert event_text.ended(OPENED) == {"event": "closed", "reason": "ended", **door}


@given(st.dictionaries(st.sampled_from(["profile", "source", "packets"]), st.text(max_size=20), min_size=3))
def test_what_is_in_a_line_can_be_read_back_and_breaks_nothing(values: dict[str, str]) -> None:
    line = event_text.line({"event": "ignored", **values})
    pairs = line[line.index(" [event=") + 2 : -1]
    assert pairs.isascii()
    assert pairs.isprintable()
    found = re.fullmatch(r'event=ignored((?: \w+=(?:[^ "=\[\]\\]+|"(?:[^"\\]|\\.)*"))*)', pairs)
    assert found, pairs


def test_a_shell_splits_the_pairs() -> None:
    line = LINES[6][1]
    pairs = dict(word.split("=", 1) for word in shlex.split(line[line.index("[") + 1 : -1]))
    assert pairs["reason"] == "not permitted"
    assert pairs["port"] == "22"


def written(line: str) -> list[str]:
    """A line as the journal hands it out, as syslog writes it, and as the daemon does with log = stderr."""
    return [
        f"Nov 20 22:00:00 host knockknock-daemon[123]: {line}",
        f"2026-11-20T22:00:00.123456+00:00 host knockknock-daemon[123]: {line}",
        f"2026-11-20 22:00:00,123 WARNING {line}",
    ]


@pytest.mark.parametrize(("told", "line"), LINES, ids=[str(told["event"]) for told, _ in LINES])
def test_fail2ban(told: event_text.Facts, line: str) -> None:
    """The filter in config/ takes strangers and replays, and nobody whose knock is good."""
    bad = told["event"] == "refused" and told["reason"] != "not permitted"
    for text in written(line):
        words = ["fail2ban-regex", "-o", "ip", text, str(ROOT / "config" / "knockknock-fail2ban.conf")]
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
        assert done.stdout.split() == ([told["source"]] if bad else []), (text, done.stderr)
