"""Time that nmap takes for a thousand ports of a server, and what it sees, with and without the scan guard."""

import argparse
import json
import statistics
import subprocess
import sys
import time

from tests.netns.lab import Lab

HOST = "10.77.0.1"
PORTS = 1000
PUBLIC = 900
"""One port is open to all; all others answer that they are closed."""


def scan(lab: Lab) -> tuple[float, int, int]:
    """Seconds of one scan, and how many ports it saw open and closed."""
    command = ["nmap", "-sS", "-Pn", "-n", "-r", "-T4", "-p", f"1-{PORTS}", "-oX", "-", HOST]
    began = time.perf_counter()
    listed = lab.start("client", *command, stdout=subprocess.PIPE).communicate()[0]
    took = time.perf_counter() - began
    closed = listed.partition('<extraports state="closed" count="')[2].partition('"')[0]
    return took, listed.count('state="open"'), listed.count('state="closed" reason') + int(closed or 0)


def measure(guard: str, times: int) -> dict[str, object]:
    """The median of some scans of a fresh server."""
    took = []
    for _ in range(times):
        lab = Lab()
        try:
            lab.guard("nftables")
            lab.run("server", "nft", f"insert rule inet guard input tcp dport 1-{PORTS} accept")
            lab.listen(PUBLIC)
            lab.configure(scan_guard=guard)
            lab.mint("laptop", port=4242)
            lab.daemon()
            seconds, opened, closed = scan(lab)
            took.append(seconds)
        finally:
            lab.close()
    return {
        "scan_guard": guard,
        "seconds": round(statistics.median(took), 2),
        "seen_open": opened,
        "seen_closed": closed,
    }


def main() -> None:
    options = argparse.ArgumentParser(prog="scan-bench", description=__doc__)
    options.add_argument(
        "--times", type=int, default=3, help="scans for each figure, a median of (default %(default)s)"
    )
    options.add_argument("--json", action="store_true", help="for programs")
    wanted = options.parse_args()
    if wanted.times < 1:
        options.error("--times is 1 or more")
    figures = [measure(guard, wanted.times) for guard in ("off", "on")]
    if wanted.json:
        json.dump(figures, sys.stdout, indent=2)
        print()
        return
    print(f"nmap -sS of {PORTS} ports, one of them open, median of {wanted.times}")
    print("scan_guard  seconds  seen open  seen closed")
    for one in figures:
        print(f"{one['scan_guard']:10}  {one['seconds']:7}  {one['seen_open']:9}  {one['seen_closed']:11}")


if __name__ == "__main__":
    main()
