"""Cost of each scheme: microseconds of CPU for a packet, and bytes for a source that is tracked."""

import argparse
import gc
import json
import os
import random
import statistics
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

from knockknock.core.events import Accepted
from knockknock.core.packet import TCP, UDP, Packet
from knockknock.core.profile import Settings
from knockknock.core.request import Ports, Verb
from knockknock.schemes.otp import profile as otp
from knockknock.schemes.otp.listener import TRIED_PER_SECOND
from knockknock.schemes.sequence import profile as sequence
from knockknock.schemes.sequence.listener import MAX_BEGUN
from knockknock.schemes.syn.profile import Profile
from knockknock.server.gatekeeper import Gatekeeper
from knockknock.sources.kernel_line import parse
from knockknock.sources.nflog_packet import Parser

PACKETS, RUNS = 20000, 5
SOURCE = bytes([10, 77, 0, 2])
STEPS = ((TCP, 2002), (UDP, 2001), (TCP, 2004))
DOOR = (Ports(TCP, 22, 22),)
VECTORS = Path(__file__).resolve().parent.parent / "tests" / "vectors"


TRIED = TRIED_PER_SECOND // 6 // RUNS
CLOCK = 1_800_000_000
OTP_PORT = 4000


def packet(port: int, protocol: int = TCP, source: bytes = SOURCE) -> Packet:
    bits = random.getrandbits
    if protocol == UDP:
        return Packet(source, 1024 + bits(15), port, bits(16), 0, 0, 0, b"", b"", UDP, 0)
    return Packet(source, 1024 + bits(15), port, bits(16), bits(32), 0, bits(16))


PASSWORDS = otp.Profile("otp", os.urandom(28), os.urandom(28), OTP_PORT, "portable", DOOR)


def password(source: bytes, clock: int = CLOCK) -> Packet:
    (sending,) = otp.sends(PASSWORDS, Verb.OPEN, 0, source, clock)
    return packet(OTP_PORT, UDP, source)._replace(payload=sending.payload)


def passwords() -> float:
    """One-time passwords that open, each of another source."""
    listener, sent = keeper(), [password(crowd(number)) for number in range(otp.MAX_USED // 2)]
    begin = time.process_time()
    found = sum(isinstance(listener.hear(one, 1.0), Accepted) for one in sent)
    assert found == len(sent)
    return (time.process_time() - begin) / len(sent) * 1e6


def crowd(number: int) -> bytes:
    return number.to_bytes(4, "big")


def keeper(strict: bool = True) -> Gatekeeper:
    """One profile of each scheme."""
    made = Gatekeeper(Settings(15, 20, True))
    made.add(Profile("syn", os.urandom(32), os.urandom(32), 4242, "compact", DOOR), 0)
    made.add(sequence.Profile("sequence", STEPS, DOOR, strict=strict), None)
    made.add(PASSWORDS, otp.Memory(0))
    made.move(CLOCK)
    return made


def cost(work: Callable[[], object], count: int) -> float:
    """Microseconds of CPU for one of `count` things that are done by `work`: the median of some runs."""
    times = []
    for _ in range(RUNS):
        begin = time.process_time()
        work()
        times.append((time.process_time() - begin) / count * 1e6)
    return statistics.median(times)


def hear(packets: Sequence[Packet]) -> float:
    listener = keeper()

    def work() -> None:
        for one in packets:
            listener.hear(one, 1.0)

    return cost(work, len(packets))


def parsed(name: str, key: str, wanted: str) -> float:
    """Microseconds of CPU to make a packet of what a source reads; wanted: how the name of the sample begins."""
    samples = json.loads((VECTORS / name).read_text())[key]
    sample = next(one for one in samples if one["name"].startswith(wanted) and one["expect"])
    if key == "lines":
        line = sample["line"].encode()
        return cost(lambda: [parse(line) for _ in range(PACKETS)], PACKETS)
    message, parser = bytes.fromhex(sample["hex"]), Parser(19275)
    return cost(lambda: [parser.packets(message, 0, len(message)) for _ in range(PACKETS)], PACKETS)


def knocks() -> float:
    """A whole sequence, per packet."""
    listener, found = keeper(), 0
    sources = [crowd(number) for number in range(1000)]
    begin = time.process_time()
    for source in sources:
        for protocol, port in STEPS:
            found += isinstance(listener.hear(packet(port, protocol, source), 1.0), Accepted)
    assert found == len(sources)
    return (time.process_time() - begin) / len(sources) / len(STEPS) * 1e6


def memory(steps: int) -> float:
    """Bytes of a source that has made some steps."""
    listener = keeper()
    count = MAX_BEGUN // 4
    packets = [[packet(port, protocol, crowd(n)) for protocol, port in STEPS[:steps]] for n in range(count)]
    gc.collect()
    tracemalloc.start()
    for made in packets:
        for one in made:
            listener.hear(one, 1.0)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return used / count


def figures() -> dict[str, float]:
    first = [packet(2002, source=crowd(number)) for number in range(PACKETS)]
    return {
        "parse a SYN, kernel log (us)": parsed("kernel_lines.json", "lines", "kmsg, nft IPv4 connect"),
        "parse UDP, kernel log (us)": parsed("kernel_lines.json", "lines", "kmsg, nft IPv4 UDP"),
        "parse a SYN, nflog (us)": parsed("nflog.json", "messages", ""),
        "parse UDP, nflog (us)": parsed("nflog.json", "messages", "UDP"),
        "syn: junk (us)": hear([packet(4242) for _ in range(PACKETS)]),
        "sequence: junk of one source (us)": hear([packet(2004) for _ in range(PACKETS)]),
        "sequence: first knocks of one source (us)": hear([packet(2002) for _ in range(PACKETS)]),
        "sequence: first knocks of forged sources (us)": hear(first),
        "sequence: knocks that open, each (us)": knocks(),
        "otp: junk (us)": hear([packet(OTP_PORT, UDP) for _ in range(PACKETS)]),
        "otp: passwords of another hour, all tried (us)": hear([password(SOURCE, CLOCK - 3600)] * TRIED),
        "otp: passwords that open, with up to 512 remembered (us)": passwords(),
        "sequence: a source with one step (bytes)": memory(1),
        "sequence: a source with two steps (bytes)": memory(2),
    }


def main() -> None:
    options = argparse.ArgumentParser(
        prog="schemes",
        description="Measures what each scheme costs: microseconds of CPU to parse a packet as each source "
        "reads it, and to hear it; bytes of memory for a source that a sequence is remembered of. No packet is sent. "
        "Takes ten seconds. Prints a table in markdown.",
    )
    options.add_argument("--json", action="store_true", help="print one object instead")
    asked = options.parse_args()
    found = figures()
    if asked.json:
        print(json.dumps(found))
        return
    print("| what | |\n|---|---:|")
    for name, value in found.items():
        print(f"| {name} | {value:.2f} |" if value < 100 else f"| {name} | {value:.0f} |")


if __name__ == "__main__":
    main()
