"""The commands, one file each. Here: how each of them ends with a sentence and a status."""

import argparse
import gc
import os
import sys
from collections.abc import Callable

from ..errors import KnockError

# A start allocates much and throws nothing away; a command that stays turns the collector on again.
gc.disable()


def formatter(prog: str) -> argparse.HelpFormatter:
    """Help of a fixed width: to ask for the terminal's at each start would load a dozen modules."""
    return argparse.HelpFormatter(prog, width=100)


def columns(rows: list[tuple[str, ...]]) -> str:
    """Rows of text as columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def expiry(expires: int | None, now: int) -> str:
    """When a profile expires, in a word; both in seconds since 1970."""
    if expires is None:
        return "never"
    from .. import moment  # imported only when asked for

    return moment.show(expires) + (" (over)" if expires <= now else "")


def run(name: str, command: Callable[[list[str]], None]) -> None:
    """Run a command; a KnockError is one line on stderr and exit status 1. Usage errors are argparse's, status 2."""
    try:
        command(sys.argv[1:])
        sys.stdout.flush()
    except KnockError as error:
        sys.exit(f"{name}: {error}")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0].replace("_", "-")
        sys.exit(
            f"{name}: the Python package {package} is not installed: "
            f"apt install --no-install-recommends python3-{package}, or pip install {package}"
        )
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the interpreter tries once more to write it, and fails
        sys.exit(f"{name}: {error.filename or 'standard output'}: {error.strerror}")
    except KeyboardInterrupt:
        sys.exit(130)
