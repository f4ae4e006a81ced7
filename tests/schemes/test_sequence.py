"""Port sequences: a table of cases, a model, and what a crowd of sources costs."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knockknock.core.events import Accepted, Event, Several
from knockknock.core.packet import ACK, FIN, SYN, TCP, UDP, Packet
from knockknock.core.profile import Settings
from knockknock.core.request import Request, Verb
from knockknock.errors import ConfigError, CounterError
from knockknock.profiles.text import named, parse_config, write_config
from knockknock.root.record import Grant, Order
from knockknock.schemes.sequence import automaton
from knockknock.schemes.sequence import listener as sequences
from knockknock.schemes.sequence import profile as sequence
from knockknock.schemes.sequence.profile import Profile
from knockknock.server.gatekeeper import Gatekeeper

from ..helpers import SOURCE, SOURCE6, knock
from ..helpers import profile as syn_profile

WHERE = "/etc/knockknock.d/profiles/alice/config"
OTHER = bytes([192, 0, 2, 8])
USUAL = "ports = tcp/2002, udp/2001, tcp/2004\nopens = tcp/22\n"


def profile(lines: str = USUAL, name: str = "alice") -> Profile:
    made = named(parse_config(f"[main]\nscheme = sequence\n{lines}", WHERE), name, {})
    assert isinstance(made, Profile)
    return made


def keeper(*profiles: Profile) -> Gatekeeper:
    made = Gatekeeper(Settings(15, 20, True))
    for one in profiles:
        made.add(one, 0 if one.one_time else None)
    return made


_COUNT = iter(range(1, 10**9))


def packet(text: str, source: bytes = SOURCE, again: int = 0) -> Packet:
    """A packet of its own to `tcp/2002`; again: the number of an earlier one, of which it is a copy."""
    protocol, _, port = text.partition("/")
    number = again or next(_COUNT)
    if protocol == "udp":
        return Packet(source, 30000 + number % 30000, int(port), number & 0xFFFF, 0, 0, 0, b"", b"", UDP, 0)
    flags = {"tcp": SYN, "fin": FIN, "syn+ack": SYN | ACK}[protocol]
    return Packet(source, 30000 + number % 30000, int(port), 7, number, 0, 1024, b"", b"", TCP, flags)


def opened(event: Event | None) -> list[str]:
    events = event.events if isinstance(event, Several) else (event,) if event else ()
    assert all(isinstance(one, Accepted) for one in events)
    return [f"{one.profile} {one.request}" for one in events if isinstance(one, Accepted)]


def run(listener: Gatekeeper, *steps: str) -> list[str]:
    """Return what packets open; `+9`: 9 seconds pass, one second passes by itself; `=`: a copy of what went before."""
    now, found, before = 1000.0, [], packet("tcp/1")
    for step in steps:
        if step.startswith("+"):
            now += float(step[1:])
            continue
        now += 0 if step == "=" else 1
        before = before if step == "=" else packet(step)
        found += opened(listener.hear(before, now))
    return found


A, B, C = "tcp/2002", "udp/2001", "tcp/2004"
DOOR, SHUT = "alice open tcp/22", "alice close tcp/22"
LENIENT = USUAL + "strict = no\n"
CASES: list[tuple[str, str, list[str], list[str]]] = [
    # name, config, packets, what they open
    ("in order", USUAL, [A, B, C], [DOOR]),
    ("twice", USUAL, [A, B, C, A, B, C], [DOOR, DOOR]),
    ("wrong order", USUAL, [B, A, C], []),
    ("last missing", USUAL, [A, B], []),
    ("first missing", USUAL, [B, C], []),
    ("another protocol", USUAL, [A, "tcp/2001", C], []),
    ("strict: a wrong port between", USUAL, [A, C, B, C], []),
    (
        "strict: the wrong port is a first knock (knockd cancels, and does not look again)",
        USUAL,
        [A, B, A, B, C],
        [DOOR],
    ),
    ("strict: the first port twice", USUAL, [A, A, B, C], [DOOR]),
    ("strict: what nobody watches is not seen", USUAL, [A, "tcp/9", B, C], [DOOR]),
    ("not strict: wrong ports are passed over (knockd and xt_pknock without strict)", LENIENT, [A, C, B, A, C], [DOOR]),
    ("not strict: the order still counts", LENIENT, [C, B, A], []),
    ("copies of every knock", USUAL, [A, "=", B, "=", "=", C, "=", "="], [DOOR]),
    ("a copy is no second knock", "ports = 7, 7, 7\nopens = tcp/22\n", ["tcp/7", "=", "="], []),
    ("the same port again is", "ports = 7, 7, 7\nopens = tcp/22\n", ["tcp/7", "tcp/7", "tcp/7"], [DOOR]),
    ("in time", USUAL, [A, "+9", B, "+9", C], [DOOR]),
    ("too late in between", USUAL, [A, "+9.5", B, C], []),
    ("too late for the last one (xt_pknock forgets to ask)", USUAL, [A, B, "+9.5", C], []),
    ("too late in all (knockd's seq_timeout)", USUAL + "total_time = 15\n", [A, "+8", B, "+8", C], []),
    ("too late, but a first knock", USUAL, [A, "+20", A, B, C], [DOOR]),
    ("control bits", USUAL, [A, B, "syn+ack/2004", C], [DOOR]),
    ("other flags", USUAL + "flags = fin, !syn\n", ["fin/2002", A, B, "fin/2004"], [DOOR]),
    ("flags: one bit", USUAL + "flags = syn\n", ["syn+ack/2002", B, C], [DOOR]),
    ("a sequence that closes", USUAL + "close = 2004, 2002\n", [A, B, C, C, A], [DOOR, SHUT]),
    ("one that closes begins alike", USUAL + "close = 2002, udp/2001, udp/2001\n", [A, B, B, A, B, C], [SHUT, DOOR]),
    ("two doors", "ports = 7, 8\nopens = tcp/22, udp/53\n", ["tcp/7", "tcp/8"], [DOOR, "alice open udp/53"]),
    ("two steps, the first again", "ports = 7, 8\nopens = tcp/22\n", ["tcp/7", "tcp/7", "tcp/8"], [DOOR]),
    ("knockd's notation", "ports = 2002, 2001:udp, 2004:tcp\nopens = tcp/22\n", [A, B, C], [DOOR]),
]


@pytest.mark.parametrize(("name", "lines", "packets", "expected"), CASES, ids=[case[0] for case in CASES])
def test_case(name: str, lines: str, packets: list[str], expected: list[str]) -> None:
    assert run(keeper(profile(lines)), *packets) == expected


def test_what_is_granted() -> None:
    listener = keeper(profile())
    for source in (SOURCE, SOURCE6):
        assert [listener.hear(packet(step, source), 1.0) for step in (A, B)] == [None, None]
        door = Grant(Order.OPEN_ONCE, source, TCP, 22, 15)
        assert listener.hear(packet(C, source), 1.0) == Accepted("alice", None, Request(Verb.OPEN, TCP, 22), door)


def test_sources_do_not_mix() -> None:
    listener = keeper(profile())
    for source in (SOURCE, OTHER, SOURCE6):
        assert opened(listener.hear(packet(A, source), 1.0)) == []
    assert [opened(listener.hear(packet(B, OTHER), 2.0)), opened(listener.hear(packet(C, SOURCE), 3.0))] == [[], []]
    assert opened(listener.hear(packet(C, OTHER), 4.0)) == [DOOR]


def test_sequences_that_share_a_beginning() -> None:
    bob = profile("ports = 2002, udp/2001, 2005\nopens = tcp/80\n", "bob")
    both = profile("ports = 2002, udp/2001, 2004\nopens = tcp/443\n", "both")
    listener = keeper(profile(), bob, both)
    assert run(listener, A, B, C) == [DOOR, "both open tcp/443"]
    assert run(listener, A, B, "tcp/2005") == ["bob open tcp/80"]
    listener.remove("bob")
    assert run(listener, A, B, "tcp/2005") == []


def test_beside_an_encrypted_syn_at_the_same_port() -> None:
    other = syn_profile("syn", knock_port=2004)
    listener = keeper(profile())
    listener.add(other, 0)
    assert opened(listener.hear(knock(other, 0), 1.0)) == ["syn open tcp/22"]
    for step in (A, B):
        listener.hear(packet(step), 2.0)
    assert opened(listener.hear(packet(C), 3.0)) == [DOOR]


ONE_TIME = "one_time = list\nopens = tcp/22\n"
LIST = "# for alice\n7, 8\n8:udp, 7:tcp   # knockd's notation\n\ntcp/9, udp/9\n8, 9\n9, 9, 9\n"


def one_time() -> Profile:
    return sequence.complete(profile(ONE_TIME), LIST, "list")


def test_one_time_sequences() -> None:
    one = one_time()
    assert [len(steps) for steps in one.sequences] == [2, 2, 2, 2, 3]
    assert one.knock_ports == {(TCP, 7), (TCP, 8), (UDP, 8), (TCP, 9), (UDP, 9)}
    listener = keeper(one)
    knocks = [["tcp/7", "tcp/8"], ["udp/8", "tcp/7"], ["tcp/9", "udp/9"], ["tcp/8", "tcp/9"], ["tcp/9"] * 3]
    warnings = []
    for number, steps in enumerate(knocks):
        for step in steps:
            event = listener.hear(packet(step), 2000.0 + 100 * number)
        assert isinstance(event, Accepted)
        assert (event.counter, event.memory) == (number, number + 1)
        warnings.append(event.warning)
        assert run(listener, *steps) == [], "used up"
    assert [bool(warning) for warning in warnings] == [False, True, True, True, True]
    assert "no one-time sequences are left" in warnings[-1]


def test_one_time_sequences_that_got_lost() -> None:
    """A later one counts, within the look-ahead window, and uses up all before it."""
    one = one_time()
    for window, skipped, expected in ((3, 2, [DOOR]), (2, 2, [])):
        listener = keeper(one)
        listener.settings = listener.settings._replace(window=window)
        listener.add(one, 0)
        steps = [f"{'tcp' if protocol == TCP else 'udp'}/{port}" for protocol, port in one.sequences[skipped]]
        assert run(listener, *steps) == expected
        if expected:
            assert run(listener, "udp/8", "tcp/7") == [], "used up, too"
            assert run(listener, *steps) == []
            assert run(listener, "tcp/8", "tcp/9") == [DOOR], "the next one"


def test_one_time_memory() -> None:
    one = one_time()
    assert sequence.first(one) == "0\n"
    assert sequence.first(profile()) is None
    assert sequence.recall(profile(), None, "x", 0) is None
    assert sequence.recall(one, "4\n", "x", 0) == 4
    for text, says in ((None, "x is gone"), ("5\n", "all 5 sequences of list are used up"), ("x", "does not hold")):
        with pytest.raises(CounterError, match=says):
            sequence.recall(one, text, "x", 0)
    listener = keeper(one)
    listener.add(one, 3)
    assert run(listener, "tcp/9", "udp/9") == []
    assert run(listener, "tcp/8", "tcp/9") == [DOOR]
    listener.add(one, None)
    assert run(listener, "tcp/8", "tcp/9") == [], "memory knows more than the disk"


REFUSED = [
    ("opens = tcp/22\n", "must be a line ports = SEQUENCE"),
    (USUAL + ONE_TIME.partition("\n")[0], "must be a line ports = SEQUENCE"),
    ("ports = 1, 2\n", "must be a line opens = PORTS"),
    ("ports = 1\nopens = tcp/22\n", "2 to 32 ports, not 1"),
    ("ports = 1, x\nopens = tcp/22\n", "'x' is not a port number"),
    ("ports = 1, icmp/2\nopens = tcp/22\n", "'icmp' is not a protocol"),
    ("ports = 1, 2\nopens = tcp/1-100\n", "at most 16 ports"),
    (USUAL + "close = 2002, 2001:udp, 2004\n", "the same sequence"),
    (USUAL + "flags = syn, !syn\n", "is not a list of TCP flags"),
    (USUAL + "time = 0\n", "'0' is not a whole number"),
    (USUAL + "one_time = ../x\n", "is not the name of a file"),
    (USUAL + "knock_port = 1\n", "there is no key 'knock_port'"),
    (USUAL + "format = compact\n", "there is no key 'format'"),
]


@pytest.mark.parametrize(("lines", "says"), REFUSED)
def test_refused_config(lines: str, says: str) -> None:
    with pytest.raises(ConfigError, match=f"^{WHERE}:.*{says}") as caught:
        profile(lines)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "says"), [("", "no sequence"), ("7\n", "list:1: "), ("1,2\n\n3,x\n", "list:3: ")])
def test_refused_list(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        sequence.complete(profile(ONE_TIME), text, "list")


@pytest.mark.parametrize("lines", [case[1] for case in CASES] + [ONE_TIME])
def test_round_trip(lines: str) -> None:
    one = profile(lines)
    assert named(parse_config(write_config(one), WHERE), "alice", {}) == one


def test_no_secret_in_any_text() -> None:
    one = profile()
    listener = keeper(one)
    events = [listener.hear(packet(step), 1.0) for step in (A, B, C)]
    for text in map(repr, [one, [one], *events, one.where, one.kind, *listener.places]):
        assert not {number for number in ("2001", "2002", "2004") if number in text}


numbers = st.integers(1, 4)
timed = st.tuples(st.sampled_from([0.0, 0.5, 2.0, 4.0, 6.0]), numbers, st.booleans())


@given(st.lists(numbers, min_size=2, max_size=4), st.booleans(), st.lists(timed, max_size=40))
def test_as_the_model_says(steps: list[int], strict: bool, knocks: list[tuple[float, int, bool]]) -> None:
    """One source, one sequence of ports 1 to 4; pauses, and copies of an earlier knock to the same port."""
    text = f"ports = {','.join(map(str, steps))}\nopens = tcp/22\ntime = 5\ntotal_time = 9\n"
    filler = profile("ports = 1, 2, 3, 4\nopens = tcp/1\n", "filler")  # so that all four are watched
    listener = keeper(profile(text + f"strict = {'yes' if strict else 'no'}\n"), filler)
    now, got, old, last = 0.0, list[tuple[float, int]](), set[int](), 0.0
    latest: dict[int, int] = {}
    for pause, port, copy in knocks:
        now += pause
        number = latest.get(port, 0) if copy else 0
        sent = packet(f"tcp/{port}", again=number)
        number = latest[port] = sent.sequence
        expected = False
        if got and (now - got[-1][0] > 5 or now - got[0][0] > 9):
            got = []
        if old and now - last > 5:
            old = set()
        if number not in {one for _, one in got} | old:
            if port == steps[len(got)]:
                old = old if got else set()
                got.append((now, number))
                if len(got) == len(steps):
                    expected, old, last, got = True, {one for _, one in got}, now, []
            elif strict and got:
                got = [(now, number)] if port == steps[0] else []
        assert (DOOR in opened(listener.hear(sent, now))) == expected


def test_the_table_is_whole() -> None:
    """Test that each state has entries and is reached by one, and that each arrival has an entry."""
    for table in (automaton.STRICT, automaton.LENIENT):
        states = {state for state, _ in table}
        assert {state for state, _ in table.values()} == states == set(automaton.State)
        assert {arrival for _, arrival in table} == set(automaton.Arrival)


def crowd(number: int) -> bytes:
    return bytes([10]) + number.to_bytes(3, "big")


def test_a_flood_of_first_knocks_is_bounded_and_pushes_nobody_out_who_is_half_way() -> None:
    listener = keeper(profile())
    hearing: Any = listener._listeners["sequence"]
    for step in (A, B):
        listener.hear(packet(step), 1.0)
    for number in range(100_000):
        listener.hear(packet(A, crowd(number)), 1.0 + number / 100_000)
    begun, further = hearing._sources
    assert (len(begun), len(further)) == (sequences.MAX_BEGUN, 1)
    assert opened(listener.hear(packet(C), 2.0)) == [DOOR]
    late = crowd(99_999)
    assert opened(listener.hear(packet(B, late), 2.5)) + opened(listener.hear(packet(C, late), 3.0)) == [DOOR]


def test_what_is_over_is_forgotten() -> None:
    listener = keeper(profile())
    hearing: Any = listener._listeners["sequence"]
    for number in range(1000):
        listener.hear(packet(A, crowd(number)), 1.0)
    for number in range(1000):
        listener.hear(packet(C, crowd(5000 + number)), 12.0)
    assert [len(one) for one in hearing._sources] == [0, 0]


def test_junk_leaves_nothing() -> None:
    listener = keeper(profile())
    hearing: Any = listener._listeners["sequence"]
    for number in range(1000):
        listener.hear(packet(C, crowd(number)), 1.0)
    assert [len(one) for one in hearing._sources] == [0, 0]


def test_a_sequence_that_stands_twice_in_the_list_is_refused() -> None:
    """It would be good twice."""
    with pytest.raises(ConfigError, match="list:3: this is the sequence of line 1, and each is good once"):
        sequence.complete(profile(ONE_TIME), "7, 8\n8, 7\ntcp/7, tcp/8 # again\n", "list")


def test_a_sequence_of_the_list_that_closes_too_is_refused() -> None:
    """A knock would open and close at once, and use the sequence up."""
    with pytest.raises(ConfigError, match="list:2: this is also the sequence of close: change one of them"):
        sequence.complete(profile(ONE_TIME + "close = 8, 7\n"), "7, 8\n8, 7\n", "list")
