"""Fuzz one parser with coverage feedback, by atheris (libFuzzer inside); scripts/fuzz runs this."""

import argparse
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

from . import TARGETS
from .mutate import change

LENGTH = 4096
"""Bytes of the longest input, unless told; twice the longest log line that is looked at."""
HANG = 5
"""Seconds after which one input counts as a hang."""
GROWTH = 64
"""MiB by which the process may grow between the first tenth of a run and its end; the fuzzer's corpus is in it."""


def resident() -> float:
    """MiB of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


def words(corpus: Sequence[bytes]) -> list[bytes]:
    """Words of the inputs in a corpus: a dictionary for the fuzzer, since a C parser gives it no feedback."""
    return sorted({word for data in corpus for word in re.findall(rb"[A-Za-z_]+=?|[^A-Za-z_]{1,8}", data)})


def measured(target: Callable[[bytes], None], name: str, runs: int) -> Callable[[bytes], None]:
    """The target, with a line about the whole run after the last input; atheris does not return."""
    count, before, start = 0, 0.0, time.monotonic()

    def call(data: bytes) -> None:
        nonlocal count, before
        target(data)
        count += 1
        if count == max(1, runs // 10):
            before = resident()
        if count == runs:
            seconds, after = time.monotonic() - start, resident()
            text = f"{name}: {count} inputs in {seconds:.0f} s ({count / seconds:.0f}/s), no crash, no hang"
            print(f"{text}, {before:.0f} MiB after a tenth of them, {after:.0f} at the end", flush=True)
            assert after - before < GROWTH, "it grows"

    return call


def fuzz(name: str, runs: int, seed: int, length: int, deep: bool, directory: Path) -> None:
    """Call a target with `runs` inputs, and end the process; status 0 if there was neither crash, hang nor growth.

    length: of the longest input, in bytes. deep: whether to take feedback from the standard library's INI parser too.
    directory: for what the fuzzer begins with and what it finds.
    """
    import atheris

    with atheris.instrument_imports(include=["knockknock", *(["configparser"] if deep else [])]):
        module: ModuleType = import_module(f"{__package__}.{name}")
    source = random.Random(seed)

    def mutate(data: bytes, max_size: int, _seed: int) -> bytes:
        """One change by libFuzzer, or one that keeps the input nearer to what the parser takes."""
        if source.random() < 0.5:
            return bytes(atheris.Mutate(data, max_size))
        changed = bytearray(data)
        change(source, changed, module.CORPUS)
        return bytes(changed[:max_size])

    (seeds := directory / "seeds").mkdir(parents=True, exist_ok=True)
    (grown := directory / "grown").mkdir(exist_ok=True)
    for number, data in enumerate(module.CORPUS):
        (seeds / str(number)).write_bytes(data)
    entries = ("".join(f"\\x{byte:02x}" for byte in word) for word in words(module.CORPUS))
    (directory / "words").write_text("".join(f'"{entry}"\n' for entry in entries))
    options = {
        "runs": runs,
        "seed": seed,
        "max_len": length,
        "timeout": HANG,
        "rss_limit_mb": 1024,
        "keep_seed": 1,
        "dict": directory / "words",
        "artifact_prefix": f"{os.getcwd()}/{name}-",
    }
    arguments = [f"-{key}={value}" for key, value in options.items()]
    target = measured(module.target, name, runs)
    atheris.Setup([sys.argv[0], *arguments, str(grown), str(seeds)], target, custom_mutator=mutate)
    atheris.Fuzz()


def in_a_child(options: argparse.Namespace) -> int:
    """fuzz(), which does not return, in a process of its own; its exit status."""
    seed = options.seed or random.randrange(1, 2**31)
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{options.name}-") as directory:
        if (child := os.fork()) == 0:
            fuzz(options.name, options.runs, seed, options.length, options.deep, options.corpus or Path(directory))
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="fuzz", description="Fuzz one parser with coverage feedback; an input that breaks it is written here."
    )
    parser.add_argument("name", choices=TARGETS)
    parser.add_argument("--runs", type=int, default=1_000_000, metavar="N", help="inputs (default: %(default)s)")
    parser.add_argument("--seed", type=int, metavar="N", help="for the same run again (default: a new one)")
    parser.add_argument(
        "--length", type=int, default=LENGTH, metavar="N", help="bytes of the longest input (%(default)s)"
    )
    parser.add_argument("--deep", action="store_true", help="feedback from configparser too: four times slower")
    parser.add_argument("--corpus", type=Path, metavar="DIR", help="keep what was found there, and go on from it")
    parser.add_argument("--input", type=Path, metavar="FILE", help="try this one input, without the fuzzer")
    options = parser.parse_args()
    if options.input:
        import_module(f"{__package__}.{options.name}").target(options.input.read_bytes())
    else:
        sys.exit(in_a_child(options))


if __name__ == "__main__":
    main()
