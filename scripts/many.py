"""Cost of profiles by their number: to load them, to keep them, to hear knocks with them, to read them again."""

import argparse
import contextlib
import gc
import json
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

from knockknock.core.events import Accepted
from knockknock.core.packet import Packet
from knockknock.core.request import TCP, Ports, Request, Verb
from knockknock.profiles import mint
from knockknock.profiles.text import write_config
from knockknock.schemes.syn import seal
from knockknock.schemes.syn.profile import Profile
from knockknock.server import instance, loading
from knockknock.server.config import Config
from knockknock.server.gatekeeper import Gatekeeper
from knockknock.server.policy_reader import policy as policy_of

COUNTS = (1, 1000, 10000, 100000)
SOURCE = bytes([10, 77, 0, 2])
KNOCK_PORT = 4242
JUNK = 20000
KNOCKS = 1000


class Figures(NamedTuple):
    """Of one number of profiles. A step is what is done of a reload between two looks at the source, 5 ms or less where
    work can be divided so finely."""

    profiles: int
    load: float
    """Seconds from the file to a gatekeeper that hears."""
    memory: int
    """Bytes of a profile."""
    junk: float
    """Microseconds of CPU for a packet at the knock port that is nobody's."""
    valid: float
    """Microseconds of CPU for a knock, without what is stored or opened for it."""
    reload_one: float
    """Seconds of a reload that finds one new profile."""
    step_one: float
    """Milliseconds of the longest piece of that which cannot be divided."""
    reload_all: float
    """Seconds of a reload in which every profile is another."""
    step_all: float
    policy: float
    """Milliseconds that a set-up reads the policy for, once it has started: the daemon waits."""


def profile(name: str) -> Profile:
    return Profile(name, os.urandom(32), os.urandom(32), KNOCK_PORT, "compact", (Ports(TCP, 22, 22),))


def fill(place: Path, count: int) -> Config:
    """A database of profiles and their counters, as that many mints leave them."""
    config = Config(profiles=f"{place}/profiles.db", state=f"{place}/state")
    mint.mint(config.profiles, config.state, profile("first"), (-1, -1), instance.reload)
    text = write_config(profile("any"))
    with contextlib.closing(sqlite3.connect(config.profiles)) as connection, connection:
        for number in range(count - 1):
            row = (f"client-{number}", os.urandom(32), os.urandom(32), text)
            connection.execute("INSERT INTO profile VALUES (?, ?, ?, ?)", row)
            (place / "state" / row[0]).write_text("0\n")
    (place / "config").write_text(f"[main]\nprofiles = {config.profiles}\nstate = {config.state}\n")
    return config


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def hear_junk(keeper: Gatekeeper) -> float:
    bits = random.getrandbits
    junk = [Packet(SOURCE, 1, KNOCK_PORT, bits(16), bits(32), 0, bits(16)) for _ in range(JUNK)]
    times = []
    for _ in range(5):
        begin = time.process_time()
        for packet in junk:
            keeper.hear(packet, 1.0)
        times.append((time.process_time() - begin) / JUNK * 1e6)
    return statistics.median(times)


def hear_knocks(keeper: Gatekeeper) -> float:
    """Knocks of as many profiles as there are, each with its next counters."""
    names = random.sample(sorted(keeper.names()), min(len(keeper), KNOCKS))
    knocks = []
    for counter in range(KNOCKS // len(names)):
        for name in names:
            one = keeper.profile(name)
            assert isinstance(one, Profile)
            fields = seal.carry(one.format, seal.seal(one, counter, Request(Verb.OPEN, TCP, 22), SOURCE))
            knocks.append(Packet(SOURCE, 1, KNOCK_PORT, fields.ident, fields.sequence, 0, fields.window or 0))
    begin = time.process_time()
    events = [keeper.hear(packet, 1.0) for packet in knocks]
    cost = (time.process_time() - begin) / len(knocks) * 1e6
    if not all(isinstance(event, Accepted) for event in events):
        sys.exit("many: a knock was not heard")
    return cost


def reload(keeper: Gatekeeper, config: Config) -> tuple[float, float]:
    """As the daemon does it, without the helper: seconds in all, milliseconds of the longest step."""

    def work() -> Generator[None, None, None]:
        found = yield from loading.find(config, frozenset(), keeper)
        keeper.settings = loading.settings(config)
        yield from loading.apply(keeper, found, config.state)

    gc.disable()
    longest, begin = 0.0, time.perf_counter()
    last = begin
    for _ in work():
        longest, last = max(longest, time.perf_counter() - last), time.perf_counter()
    longest = max(longest, time.perf_counter() - last)
    total = time.perf_counter() - begin
    gc.freeze()
    gc.enable()
    return total, longest * 1e3


def measure(place: Path, count: int) -> Figures:
    config = fill(place, count)
    before, begin = resident(), time.perf_counter()
    gc.disable()
    keeper = loading.start(config, loading.look(config, frozenset()))
    gc.freeze()
    gc.enable()
    load, memory = time.perf_counter() - begin, (resident() - before) // count
    junk, valid = hear_junk(keeper), hear_knocks(keeper)
    mint.mint(config.profiles, config.state, profile("new"), (-1, -1), instance.reload)
    reload_one, step_one = reload(keeper, config)
    with contextlib.closing(sqlite3.connect(config.profiles)) as connection, connection:
        connection.execute("UPDATE profile SET config = replace(config, 'tcp/22', 'tcp/23')")
    reload_all, step_all = reload(keeper, config)
    begin = time.perf_counter()
    policy_of(f"{place}/config")
    policy = (time.perf_counter() - begin) * 1e3
    return Figures(count, load, memory, junk, valid, reload_one, step_one, reload_all, step_all, policy)


def show(rows: list[Figures]) -> None:
    heads = ["profiles", "load", "memory of each", "junk", "valid knock", "reload, one new", "longest step"]
    heads += ["reload, all changed", "longest step", "policy"]
    print(f"| {' | '.join(heads)} |")
    print("|---:" * len(heads) + "|")
    for one in rows:
        memory = f"{one.memory} B" if one.profiles > 1 else ""  # of one alone it would be what is there for all
        print(
            f"| {one.profiles} | {one.load:.2f} s | {memory} | {one.junk:.1f} us | {one.valid:.0f} us "
            f"| {one.reload_one:.2f} s | {one.step_one:.1f} ms | {one.reload_all:.2f} s | {one.step_all:.1f} ms "
            f"| {one.policy:.0f} ms |"
        )


def main() -> None:
    options = argparse.ArgumentParser(
        prog="many",
        description="Measures what the number of profiles in a database costs, with all at one knock port, a window of "
        "20 and one permitted port each: seconds to load, bytes of memory for each, microseconds of CPU for junk and "
        "for a knock, seconds of a reload and milliseconds of its longest step, in which nobody is heard, and "
        "milliseconds that a set-up needs to read the policy, beside 50 to start. In a process of its own for each "
        "number; no packet is sent. Prints a table in markdown. With 100000 profiles it takes a minute or two, and "
        "1 GB below TMPDIR.",
    )
    options.add_argument("counts", nargs="*", type=int, metavar="N", help="numbers of profiles (default 1 to 100000)")
    options.add_argument("--json", action="store_true", help="print one object for each number instead")
    asked = options.parse_args()
    if len(asked.counts) == 1 and asked.json:
        with tempfile.TemporaryDirectory(prefix="knockknock-many-") as place:
            print(json.dumps(measure(Path(place), asked.counts[0])._asdict()))
        return
    rows = []
    for count in asked.counts or COUNTS:
        done = subprocess.run([sys.executable, __file__, "--json", str(count)], stdout=subprocess.PIPE, check=True)
        rows.append(Figures(**json.loads(done.stdout)))
        if asked.json:
            print(done.stdout.decode(), end="")
    if not asked.json:
        show(rows)


if __name__ == "__main__":
    main()
