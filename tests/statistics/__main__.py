"""Print what statistics find in the knocks of fresh random keys; scripts/statistics runs this."""

import argparse
import os
import statistics
import sys

from knockknock.schemes.syn.profile import FORMATS

from . import knocks, pvalues, structure


def tabulate(number: int) -> None:
    """A Markdown table: each test's p-value for each format."""
    found = {
        format: structure.examine(knocks.carried(format, os.urandom(32), os.urandom(32), number))
        for format in sorted(FORMATS)
    }
    print(f"p-values of {number} consecutive knocks, fresh keys for each format:\n")
    print("| test |" + "".join(f" `{format}` |" for format in found))
    print("|---|" + "---|" * len(found))
    for test in structure.TESTS:
        print(f"| {test} |" + "".join(f" {values[test]:.3f} |" for values in found.values()))
    smallest = min(value for values in found.values() for value in values.values())
    count = len(structure.TESTS) * len(found)
    print(
        f"\nSmallest of {count}: {smallest:.4f}. Of random bytes, one in twenty such tables has one below "
        f"{1 - 0.95 ** (1 / count):.4f}."
    )


def time_answers(number: int) -> None:
    """Print how soon a server that sends resets answers knocks and random SYNs, and whether that tells them apart."""
    from ..netns.syn_answers import timed

    found = dict(zip(("knock", "random SYN"), timed(number, 0.06), strict=True))
    for name, seconds in found.items():
        low, middle, high = statistics.quantiles((1e6 * one for one in seconds), n=4)
        print(f"{name}: {number} answers, median {middle:.1f} us, quartiles {low:.1f} and {high:.1f}")
    print(f"Mann-Whitney: p = {pvalues.mann_whitney(*found.values()):.3f}")


def time_ports(number: int) -> bool:
    """Print whether the time of answers tells the knock port from any other closed one; True if it does, |z| >= 3."""
    from ..netns.syn_answers import timed_ports

    told = False
    for way, reject in (("reset", True), ("dropped, a ping behind it", False)):
        found = timed_ports(number, reject)
        here, there = (1e6 * statistics.median(times) for times in found)
        p = pvalues.mann_whitney(*found)
        z = -statistics.NormalDist().inv_cdf(p / 2) if p > 0 else float("inf")
        print(
            f"{way}: {number} SYNs each, median {here:.1f} us at the knock port, {there:.1f} elsewhere, |z| = {z:.2f}"
        )
        told = told or z >= 3
    return told


def main() -> None:
    parser = argparse.ArgumentParser(prog="statistics", description="Look for structure in knocks and their answers.")
    parser.add_argument("--knocks", type=int, default=10_000, metavar="N", help="how many in a row (%(default)s)")
    parser.add_argument(
        "--answers",
        type=int,
        metavar="N",
        help="instead, time the server's answers to N knocks and N random SYNs, in network namespaces; needs root",
    )
    parser.add_argument(
        "--ports",
        type=int,
        metavar="N",
        help="instead, time the server's answers to N random SYNs at the knock port and N at another; needs root; "
        "exit status 1 if they differ (|z| >= 3)",
    )
    options = parser.parse_args()
    if options.ports:
        sys.exit(time_ports(options.ports))
    elif options.answers:
        time_answers(options.answers)
    else:
        tabulate(options.knocks)


if __name__ == "__main__":
    main()
