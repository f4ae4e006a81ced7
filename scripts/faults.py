"""Kill -9 at every system call of accepting a knock: the long form of tests/netns/test_faults.py."""

import argparse
import contextlib
import sys
import time

from tests.netns.faults import Bench, Outcome, Point, run
from tests.netns.lab import FIREWALLS, Lab

VICTIMS = ("both", "daemon", "helper")


def main() -> None:
    """The long form: every point of every firewall that is asked for, or as many as there is time for."""
    options = argparse.ArgumentParser(
        prog="faults",
        description="Kills the daemon, the root helper, or both, with SIGKILL, at every system call that they make to "
        "accept a knock, starts them again, and checks: a knock is good once at most; no door without a stored "
        "counter, none open past its time; the counter file is whole and never goes back; rules and sets of ours are "
        "there once, and those of others as they were. All in network namespaces of its own. Takes 2 to 6 seconds for "
        "each point.",
    )
    options.add_argument("--firewall", action="append", choices=FIREWALLS, help="only this one; default: all")
    options.add_argument("--victim", action="append", choices=VICTIMS, help="only this one; default: all")
    options.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth point; default %(default)s")
    options.add_argument("--minutes", type=float, default=30, help="begin no point after that; default %(default)s")
    asked = options.parse_args()
    end = time.monotonic() + asked.minutes * 60
    results: list[tuple[str, Point, Outcome | str]] = []
    for firewall in asked.firewall or FIREWALLS:
        with contextlib.closing(Lab()) as lab:
            lab.guard(firewall)
            bench = Bench(lab)
            for victim in asked.victim or VICTIMS:
                for point in bench.points(victim)[:: asked.every]:
                    if time.monotonic() < end:
                        results.append((firewall, point, _attempt(bench, point)))
                        print(f"{firewall} {point.victim} {point.call}/{point.nth}: {results[-1][2]}", flush=True)
    outcomes = [outcome for _, _, outcome in results]
    failed = [text for text in outcomes if isinstance(text, str)]
    kills = [one for one in outcomes if isinstance(one, Outcome) and one.reached]
    print(
        f"{len(results)} kill points, {len(kills)} reached: nothing stored {sum(not one.stored for one in kills)}, "
        f"stored and not open {sum(one.stored and not one.opened for one in kills)}, "
        f"open, and shut in time {sum(one.opened for one in kills)}; violations: {len(failed)}"
        + ("; not all, for want of time" if time.monotonic() >= end else "")
    )
    sys.exit(bool(failed))


def _attempt(bench: Bench, point: Point) -> Outcome | str:
    try:
        return run(bench, point)
    except AssertionError as error:
        bench.lab.stop_all()
        return f"VIOLATION: {error}"


if __name__ == "__main__":
    main()
