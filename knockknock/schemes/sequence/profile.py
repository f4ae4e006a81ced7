"""Port sequences: a profile's config, and the packets to send. Pure.

notation.py has their notation; PROTOCOL.md, "Port sequences", explains the keys.
"""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, NamedTuple

from ...core import ini
from ...core.counter_text import parse_counter
from ...core.key_text import parse_key
from ...core.key_text import write_key as write_key
from ...core.packet import ACK, FIN, RST, SYN
from ...core.profile import KnockPort
from ...core.request import TCP, Ports, Request, Verb, parse_ports
from ...errors import ConfigError, CounterError, SendError
from .. import door_options
from ..values import Sending
from .notation import Steps, parse_flags, parse_steps, show_flags, show_steps

SECRETS: tuple[str, ...] = ()
KEY = "nothing, as it has none"
read_key = parse_key
RAW = False
BOUND = False
MAX_DOORS = 16
"""The most ports that one sequence opens: each takes a grant of its own."""
LONGEST = 300
"""The most seconds of `time` and `total_time`, which bound how long a source is remembered."""
MOST_NEW = 1000
"""The most one-time sequences of a new profile: all of their ports are watched."""
PLAIN_SYN = FIN | SYN | RST | ACK, SYN
"""Mask and value of the control bits of a profile without `flags`."""

KEYS: ini.Keys = {
    "ports": parse_steps,
    "opens": parse_ports,
    "time": ini.whole(1, LONGEST),
    "total_time": ini.whole(1, LONGEST),
    "strict": ini.boolean,
    "flags": parse_flags,
    "close": parse_steps,
    "one_time": ini.matching(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", "the name of a file in the profile's directory"),
    **door_options.KEYS,
}


class Profile(NamedTuple):
    """One client of one server, which knocks by a port sequence. Its repr shows none."""

    name: str
    steps: Steps
    """Empty with one_time."""
    opens: tuple[Ports, ...]
    time: int = 10
    """The most seconds between two knocks, the last one included."""
    total_time: int = 25
    """The most seconds from the first knock to the last."""
    strict: bool = True
    """True if a knock at any other port of a sequence makes it begin anew."""
    flags: tuple[int, int] = PLAIN_SYN
    """Mask and value of the control bits of a TCP knock."""
    close: Steps = ()
    single_use: bool | None = None
    one_time: str = ""
    """The name of the file of one-time sequences; empty if there is none."""
    sequences: tuple[Steps, ...] = ()
    """The one-time sequences in that file."""
    delay: int | None = None
    """Seconds; None for the daemon's default."""
    doors_per_minute: int | None = None
    """None for core.profile.SHARE."""

    @property
    def scheme(self) -> str:
        return "sequence"

    @property
    def kind(self) -> str:
        return "one-time sequences" if self.one_time else "sequence"

    @property
    def ports(self) -> tuple[Ports, ...]:
        return self.opens

    @property
    def knock_ports(self) -> frozenset[KnockPort]:
        return frozenset(step for steps in (self.steps, self.close, *self.sequences) for step in steps)

    @property
    def tries(self) -> int:
        return max(
            len({step for step in steps if step[0] == TCP}) for steps in (self.steps, self.close, *self.sequences)
        )

    @property
    def where(self) -> str:
        return f"a sequence of {len(self.steps)}" if self.steps else "one-time sequences"

    @property
    def any_flags(self) -> bool:
        return self.flags != PLAIN_SYN

    @property
    def needs(self) -> frozenset[str]:
        return frozenset()

    @property
    def file(self) -> str:
        return self.one_time

    @property
    def expires(self) -> None:
        return None

    @property
    def legacy(self) -> bool:
        return False

    def requests(self, verb: Verb) -> list[Request]:
        """The requests of one sequence: one for each port that it opens."""
        return [Request(verb, one.protocol, port) for one in self.opens for port in range(one.first, one.last + 1)]

    def __repr__(self) -> str:
        return f"<profile {self.name}>"


def parse(values: Mapping[str, Any], where: str) -> Profile:
    """A profile without a name. Raises ConfigError."""
    if ("ports" in values) == ("one_time" in values):
        raise ConfigError(
            f"{where}: there must be a line ports = SEQUENCE, such as tcp/2002, udp/2001, or else one_time = FILE"
        )
    if "opens" not in values:
        raise ConfigError(f"{where}: there must be a line opens = PORTS, such as tcp/22")
    if sum(one.last - one.first + 1 for one in values["opens"]) > MAX_DOORS:
        raise ConfigError(f"{where}: a sequence opens at most {MAX_DOORS} ports")
    steps = values.get("ports", ())
    if steps and steps == values.get("close"):
        raise ConfigError(f"{where}: ports and close are the same sequence: change one of them")
    return Profile("", steps, **{key: value for key, value in values.items() if key != "ports"})


def complete(draft: Profile, text: str, where: str) -> Profile:
    """Return the profile with the sequences of its file, one a line; # begins a comment. Raises ConfigError."""
    found: dict[Steps, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if words := line.partition("#")[0].strip():
            try:
                steps = parse_steps(words)
            except ConfigError as error:
                raise ConfigError(f"{where}:{number}: {error}") from None
            if (before := found.setdefault(steps, number)) != number:
                raise ConfigError(f"{where}:{number}: this is the sequence of line {before}, and each is good once")
            if steps == draft.close:
                raise ConfigError(f"{where}:{number}: this is also the sequence of close: change one of them")
    if not found:
        raise ConfigError(f"{where}: there is no sequence in it; write one in each line, such as tcp/2002, udp/2001")
    return draft._replace(sequences=tuple(found))


def listing(profile: Profile) -> str:
    """The text that complete() reads back."""
    return "".join(f"{show_steps(steps)}\n" for steps in profile.sequences)


def write(profile: Profile) -> Iterable[str]:
    """The lines of a config that parse() reads back."""
    yield f"one_time = {profile.one_time}" if profile.one_time else f"ports = {show_steps(profile.steps)}"
    yield f"opens = {', '.join(map(str, profile.opens))}"
    yield f"time = {profile.time}"
    yield f"total_time = {profile.total_time}"
    yield f"strict = {'yes' if profile.strict else 'no'}"
    if profile.any_flags:
        yield f"flags = {show_flags(*profile.flags)}"
    if profile.close:
        yield f"close = {show_steps(profile.close)}"
    yield from door_options.write(profile)


def unshared(profile: Profile) -> Iterable[Hashable]:
    """Each one-time sequence; a permanent one can be replayed in any case."""
    return profile.sequences


def first(profile: Profile) -> str | None:
    """The index of the first one-time sequence; None for a permanent sequence, which needs no memory."""
    return "0\n" if profile.one_time else None


counter = first


def recall(profile: Profile, text: str | None, where: str, _latest: int) -> int | None:
    """Return the number of used one-time sequences, None without any. Raises CounterError, also if all are used."""
    if not profile.one_time:
        return None
    if text is None:
        raise CounterError(f"{where} is gone, and with it the memory of used sequences: mint {profile.name} anew")
    used = parse_counter(text, where)
    if used >= len(profile.sequences):
        raise CounterError(f"all {used} sequences of {profile.one_time} are used up: append new ones, on both sides")
    return used


def sends(profile: Profile, verb: Verb, counter: int, _source: bytes, _clock: int) -> list[Sending]:
    """The packets of a knock; counter: index of a one-time sequence. Raises CounterError, ConfigError, SendError."""
    if profile.any_flags:
        raise SendError("a connect cannot send the profile's flags: use a program that sends such packets")
    return [Sending(*step) for step in _steps(profile, verb, counter)]


def _steps(profile: Profile, verb: Verb, counter: int) -> Steps:
    if verb is Verb.CLOSE:
        if not profile.close:
            raise ConfigError(
                f"{profile.name} has no closing sequence: add a line close = SEQUENCE to its config, on both sides"
            )
        return profile.close
    if not profile.one_time:
        return profile.steps
    if counter >= len(profile.sequences):
        raise CounterError(f"all sequences of {profile.one_time} are used up: append new ones, on both sides")
    return profile.sequences[counter]
