"""Measures what knockknock-proxy costs: time for a connection, throughput, memory. Prints a line for each figure.

Client, proxies and server are in the network namespaces of the tests (tests/netns/lab.py), the server across a veth
pair. Beside ours, pproxy is measured, another SOCKS proxy in Python.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from tests.netns.lab import Lab, inside, until

OPEN, BEHIND = 9000, 9001
"""Ports of the server: one for everybody, one behind a door. Each sends as many bytes as 8 bytes ask for."""
SERVER = "10.77.0.1"
OURS, OTHER = 1080, 1085
IDLE = 500
PACE = 0.15
"""Seconds between two knocks, so that the proxy need not wait for its own pace."""


def serve(listener: socket.socket) -> None:
    """Answer every connection, in a thread for each."""
    chunk = memoryview(bytes(1 << 20))

    def answer(connection: socket.socket) -> None:
        with connection:
            left = int.from_bytes(connection.recv(8), "big")
            while left:
                left -= connection.send(chunk[:left])

    while True:
        threading.Thread(target=answer, args=[listener.accept()[0]], daemon=True).start()


def direct(lab: Lab, port: int) -> socket.socket:
    """A connection of the client to the server."""
    with inside(lab.ns("client")):
        caller = socket.socket()
    caller.connect((SERVER, port))
    return caller


def through(lab: Lab, proxy: int, port: int) -> socket.socket:
    """A connection by SOCKS 5."""
    with inside(lab.ns("client")):
        caller = socket.socket()
    caller.connect(("127.0.0.1", proxy))
    caller.sendall(b"\x05\x01\x00")
    assert caller.recv(2) == b"\x05\x00"
    caller.sendall(b"\x05\x01\x00\x01" + socket.inet_aton(SERVER) + port.to_bytes(2, "big"))
    answer = caller.recv(10)
    assert answer[:2] == b"\x05\x00", f"refused: {answer!r}"
    return caller


def latency(make: Callable[[], socket.socket], number: int, pause: float = 0) -> float:
    """The median of milliseconds until a connection stands and the first byte of an answer is here."""
    took = []
    for _ in range(number):
        begin = time.perf_counter()
        with closing(make()) as connection:
            connection.sendall((1).to_bytes(8, "big"))
            assert connection.recv(1)
        took.append((time.perf_counter() - begin) * 1000)
        time.sleep(pause)
    return statistics.median(took)


def throughput(connection: socket.socket, size: int) -> float:
    """MiB in a second, of an answer of so many bytes."""
    buffer = memoryview(bytearray(1 << 20))
    with connection:
        begin, left = time.perf_counter(), size
        connection.sendall(size.to_bytes(8, "big"))
        while left:
            got = connection.recv_into(buffer)
            assert got, "the answer ended too soon"
            left -= got
        return size / (time.perf_counter() - begin) / 2**20


def resident(pid: int) -> float:
    """MiB of a process in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


def prepare(lab: Lab) -> tuple[subprocess.Popen[str], subprocess.Popen[str]]:
    """The server's services, its daemon, and both proxies."""
    lab.guard("nftables")
    lab.run("server", "nft", "add", "rule", "inet", "guard", "input", "tcp", "dport", str(OPEN), "accept")
    lab.mint("bench", "--ports", f"tcp/{BEHIND}", hosts=(SERVER,), many=True)
    for port in (OPEN, BEHIND):
        threading.Thread(target=serve, args=[lab.listen(port)], daemon=True).start()
    lab.daemon()
    profiles = lab.home / ".knockknock"
    for path in (profiles, *profiles.rglob("*")):
        os.chown(path, 65534, 65534)
    log = lab.directory / "proxy.log"
    # As a user without root from the start, whose Python need not be readable for anybody else than root: hence --user.
    words = [*lab.program("knockknock-proxy"), "--user", "nobody", "--profiles", str(profiles), "--connections", "600"]
    with log.open("w") as file:
        ours = lab.start("client", *words, stderr=file)
    until(lambda: "listening at" in log.read_text(), 10)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    other = lab.start("client", sys.executable, "-m", "pproxy", "-l", f"socks5://127.0.0.1:{OTHER}", **quiet)
    until(lambda: reachable(lab, OTHER), 10)
    return ours, other


def reachable(lab: Lab, port: int) -> bool:
    with inside(lab.ns("client")):
        caller = socket.socket()
    with caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


def memory(lab: Lab, proxy: int, pid: int) -> tuple[float, float]:
    """MiB of a proxy before and with the idle connections."""
    before = resident(pid)
    held = [through(lab, proxy, OPEN) for _ in range(IDLE)]
    time.sleep(0.5)
    after = resident(pid)
    for one in held:
        one.close()
    return before, after


def measure(lab: Lab, size: int, runs: int, number: int) -> None:
    ours, other = prepare(lab)
    plain = latency(lambda: direct(lab, OPEN), number)
    print(f"connection, direct: {plain:.2f} ms")
    for name, port in (("knockknock-proxy", OURS), ("pproxy", OTHER)):
        took = latency(lambda port=port: through(lab, port, OPEN), number)  # type: ignore[misc]  # mypy cannot infer it
        print(f"connection, {name}: {took:.2f} ms, {took - plain:+.2f}")
    knocked = latency(lambda: through(lab, OURS, BEHIND), max(10, number // 5), PACE)
    print(f"connection, knockknock-proxy with a knock: {knocked:.2f} ms, {knocked - plain:+.2f}")

    ways: dict[str, Callable[[], socket.socket]] = {
        "direct": lambda: direct(lab, OPEN),
        "knockknock-proxy": lambda: through(lab, OURS, OPEN),
        "pproxy": lambda: through(lab, OTHER, OPEN),
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(runs):  # taking turns, so that what disturbs the machine disturbs all
        for name, make in ways.items():
            speeds[name].append(throughput(make(), size))
    best = {name: statistics.median(values) for name, values in speeds.items()}
    for name, speed in best.items():
        print(
            f"{size / 2**20:.0f} MiB, {name}: {speed:.0f} MiB/s, {speed / best['direct']:.0%} of direct, "
            f"{speed / best['pproxy']:.0%} of pproxy ({min(speeds[name]):.0f} to {max(speeds[name]):.0f})"
        )
    for name, port, process in (("knockknock-proxy", OURS, ours), ("pproxy", OTHER, other)):
        before, after = memory(lab, port, process.pid)
        print(f"memory, {name}: {before:.1f} MiB, with {IDLE} idle connections {after:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="proxy-bench", description="Measures knockknock-proxy, beside pproxy.")
    parser.add_argument("--size", type=int, default=1024, metavar="MIB", help="of a transfer (default %(default)s)")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="transfers of each kind (default %(default)s)")
    parser.add_argument("--number", type=int, default=200, metavar="N", help="connections (default %(default)s)")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("proxy-bench: must be run as root, to make network namespaces: use sudo")
    lab = Lab()
    try:
        measure(lab, options.size << 20, options.runs, options.number)
    finally:
        lab.close()


if __name__ == "__main__":
    main()
