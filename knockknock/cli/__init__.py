"""Starts each command, and turns an error into one sentence and an exit status."""

import _signal as signal  # type: ignore[import-not-found]  # typeshed has none; what wraps it takes 2 ms to import
import os
import sys

if os.path.basename(sys.argv[0]).startswith("knockknock"):
    # During the imports ^C ends the process without a traceback; run() makes an exception of it again.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import contextlib
import gc
import io
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import KnockError, OutputError

if TYPE_CHECKING:
    from argparse import HelpFormatter

# A start frees nothing, so there is no garbage; a command that stays turns the collector on again.
gc.disable()


class Complaints(io.TextIOWrapper):
    """Standard error; a line that cannot be written is lost, because there is nowhere to say so."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # or the interpreter tries once more


class Output(io.TextIOWrapper):
    """Standard output: a failure to write is an OutputError; characters that a terminal cannot show are escaped."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise self._lost(error) from None

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise self._lost(error) from None

    @staticmethod
    def _lost(error: OSError) -> OutputError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the interpreter tries once more to write it, and fails
        return OutputError(f"standard output cannot be written: {error.strerror}")


def standard() -> None:
    """Make sure that standard input, output and error exist, and that writing to a closed one fails.

    A caller may have closed them (`>&-`); then the next file that is opened would take the number, and be written to.
    """
    for number, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, mode), True)  # it gets that number, the lowest that is free
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115  # for as long as we run
    for number, name, kind in ((1, "stdout", Output), (2, "stderr", Complaints)):
        before = getattr(sys, name)
        if before is None or type(before) is io.TextIOWrapper:
            encoding = before.encoding if before else "utf-8"
            buffer = before.detach() if before else open(number, "wb", closefd=False)  # noqa: SIM115  # as above
            setattr(
                sys, name, kind(buffer, encoding, "backslashreplace", line_buffering=number == 2 or buffer.isatty())
            )


def formatter(prog: str) -> "HelpFormatter":
    """Return a formatter of help with a fixed width: asking for the terminal's would load a dozen modules at each
    start."""
    from argparse import RawDescriptionHelpFormatter  # imported here, because not every command line needs it

    return RawDescriptionHelpFormatter(prog, width=100)


def columns(rows: list[tuple[str, ...]]) -> str:
    """Return rows of text as aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def expiry(expires: int | None, now: int) -> str:
    """Return the time at which a profile expires, as text; both arguments are seconds since 1970."""
    if expires is None:
        return "never"
    from ..core import dates  # imported only when asked for

    return dates.show(expires) + (" (over)" if expires <= now else "")


def run(name: str, command: Callable[[list[str]], None]) -> None:
    """Run a command and end with its status. Usage errors are argparse's, with status 2.

    A KnockError is one line on standard error and exit status 1.
    """
    standard()
    sys.unraisablehook = _lost
    try:
        try:
            signal.signal(signal.SIGINT, _interrupt)
            ending = _ending(name, command)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left to stop
    except KeyboardInterrupt:
        ending = 130
    if ending:  # else main() ends in its own way
        sys.exit(ending)


def _interrupt(number: int, frame: object) -> None:
    """Raise an exception for the first ^C; a second one does not interrupt the end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _lost(lost: "sys.UnraisableHookArgs") -> None:
    """End at a ^C in a destructor or a weak reference's callback, where Python would print it and go on."""
    if isinstance(lost.exc_value, KeyboardInterrupt):
        os._exit(130)
    sys.__unraisablehook__(lost)


def _ending(name: str, command: Callable[[list[str]], None]) -> str | int:
    """Run a command, and return what sys.exit() takes. Raises SystemExit and, at any moment, KeyboardInterrupt."""
    try:
        try:
            command(sys.argv[1:])
        except SystemExit:  # argparse's, behind what --help has printed
            sys.stdout.flush()
            raise
        sys.stdout.flush()
    except KnockError as error:
        with contextlib.suppress(KnockError):
            sys.stdout.flush()
        return f"{name}: {error}"
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0].replace("_", "-")
        return (
            f"{name}: the Python package {package} is not installed: "
            f"apt install --no-install-recommends python3-{package}, or pip install {package}"
        )
    except OSError as error:
        return f"{name}: {f'{error.filename}: ' if error.filename else ''}{error.strerror or error}"
    except RuntimeError as error:
        # What Python 3.11 makes of ^C while a class of an imported module is made (object.__set_name__).
        if not isinstance(error.__cause__, KeyboardInterrupt):
            raise
        return 130
    return 0
