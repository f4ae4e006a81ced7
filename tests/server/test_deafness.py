"""A daemon that hears nothing, though the firewall logs."""

from hypothesis import given
from hypothesis import strategies as st

from knockknock.errors import FirewallError
from knockknock.server.deafness import LATE, OFTEN, SELDOM, Deafness
from knockknock.sources.kernel_line import FRONT, Lines, parse

LINE = (
    b"knockknock IN=eth0 OUT= MAC=02:00:5e:10:00:01:02:00:5e:10:00:02:08:00 SRC=192.0.2.7 DST=192.0.2.1 LEN=60 "
    b"TOS=0x00 PREC=0x00 TTL=57 ID=28345 DF PROTO=TCP SPT=40822 DPT=4242 SEQ=2961047362 ACK=0 WINDOW=50102 "
    b"RES=0x00 SYN URGP=0 "
)
GOOD, BAD = b"Nov 26 08:14:14 host kernel: [  412.345678] ", b"at a quarter past eight the kernel said: "
NOTHING, HEARD, STRANGE = (False, ""), (True, ""), (False, BAD.decode())


class Rule:
    """The rule's counter."""

    def __init__(self) -> None:
        self.logged = self.asked = 0

    def __call__(self) -> int:
        self.asked += 1
        return self.logged


def listening() -> tuple[Deafness, Rule]:
    rule = Rule()
    return Deafness("/var/log/kern.log", rule), rule


def test_lines_that_are_not_understood_are_said_at_once_and_once() -> None:
    deafness, rule = listening()
    rule.logged = 2
    assert deafness.notice(STRANGE, 0.0) == (
        "deaf at /var/log/kern.log: the firewall has logged 2 packet(s) to knock ports, but their lines are not "
        f'understood there, one begins "{BAD.decode()}"'
    )
    for second in range(1, 1000):
        rule.logged += 1
        assert deafness.notice(STRANGE, float(second)) == ""
    assert rule.asked <= 1 + 1000 / SELDOM


def test_a_strange_line_right_after_a_look() -> None:
    deafness, rule = listening()
    assert deafness.notice(NOTHING, 0.0) == ""
    rule.logged = 1
    assert deafness.notice(STRANGE, 0.1)


def test_a_file_that_nobody_writes_to() -> None:
    """It is woken by something else: twice, because a line may be late."""
    deafness, rule = listening()
    assert deafness.notice(NOTHING, 0.0) == ""
    rule.logged = 3
    assert deafness.notice(NOTHING, SELDOM) == ""
    assert deafness.notice(NOTHING, SELDOM + LATE / 2) == ""
    said = deafness.notice(NOTHING, SELDOM + max(LATE, OFTEN))
    assert said.endswith("the firewall has logged 3 packet(s) to knock ports, but none came there")


def test_who_asks_for_the_status_is_told_at_once_and_whenever_he_asks() -> None:
    deafness, rule = listening()
    assert deafness.now(0.0) == ""
    rule.logged = 1
    assert deafness.now(1.0).endswith("none came there yet")
    assert deafness.now(2.0).endswith("none came there yet")
    assert "none came there" in deafness.notice(NOTHING, 1.0 + LATE), "and the log says it, too"
    assert deafness.now(100.0).endswith("none came there")


def test_what_is_heard_is_no_deafness_and_ends_one() -> None:
    deafness, rule = listening()
    rule.logged = 1
    assert deafness.notice(STRANGE, 0.0)
    rule.logged = 2
    assert deafness.notice(HEARD, SELDOM) == deafness.now(SELDOM) == ""
    rule.logged = 3
    assert deafness.notice(STRANGE, 2 * SELDOM), "it is said once more when it has begun anew"


def test_a_late_line_is_no_deafness() -> None:
    deafness, rule = listening()
    rule.logged = 1
    assert deafness.notice(NOTHING, 0.0) == ""
    assert deafness.notice(HEARD, 1.0) == ""
    assert deafness.notice(NOTHING, SELDOM) == deafness.notice(NOTHING, 2 * SELDOM) == ""


def test_strange_lines_that_the_rule_did_not_write() -> None:
    """Anybody can have a line written in which its words stand."""
    deafness, rule = listening()
    for second in range(1000):
        assert deafness.notice(STRANGE, float(second)) == ""
    assert rule.asked <= 1000 / OFTEN


def test_rules_that_were_placed_again_count_anew() -> None:
    deafness, rule = listening()
    rule.logged = 100
    assert deafness.notice(HEARD, 0.0) == ""
    rule.logged = 1
    assert deafness.notice(NOTHING, SELDOM) == ""
    rule.logged = 2
    assert deafness.notice(STRANGE, 2 * SELDOM)


def test_a_kernel_that_cannot_be_asked() -> None:
    def broken() -> int:
        raise FirewallError("no table")

    assert Deafness("/dev/kmsg", broken).notice(STRANGE, 0.0) == ""


def heard(*lines: bytes) -> tuple[bool, str]:
    reader = Lines()
    assert list(reader.packets(list(lines))) == [parse(line) for line in lines]
    found = reader.hearing()
    assert reader.hearing() == (False, "")
    return found


def test_what_is_told_of_lines() -> None:
    other = b"Nov 26 08:14:14 host kernel: [  412.345678] usb 1-1: new device"
    assert heard(GOOD + LINE) == heard(other, GOOD + LINE, BAD + LINE) == (True, "")
    assert heard(other) == heard() == (False, "")
    assert heard(other, BAD + LINE, other) == (False, BAD.decode())
    assert heard(*[other] * 1000, BAD + LINE) == (False, BAD.decode())


def test_a_packet_that_is_strange_in_itself_makes_nobody_deaf() -> None:
    """Or a stranger could have it said."""
    assert parse(GOOD + LINE.replace(b"PROTO=TCP", b"PROTO=132")) is None
    assert heard(GOOD + LINE.replace(b"PROTO=TCP", b"PROTO=132")) == (True, "")


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_nothing_of_a_packet_is_shown_and_nothing_that_does_something_to_a_terminal(front: bytes, rest: bytes) -> None:
    _, text = heard(front + b"knockknock IN=" + rest)
    assert text.isprintable()
    assert len(text) <= FRONT
    assert "knockknock IN=" not in text
