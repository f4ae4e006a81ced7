"""knockknock-proxy: its place is kept, the proxy is not written yet."""

import argparse

from .. import __version__
from ..errors import KnockError
from . import formatter, run


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = argparse.ArgumentParser(
        prog="knockknock-proxy", formatter_class=formatter, description="Not written yet: says so, and ends."
    )
    options.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return options


def command(arguments: list[str]) -> None:
    parser().parse_args(arguments)
    raise KnockError("this release has no proxy yet; knock with the command knockknock before you connect")


def main() -> None:
    """The entry point of the command."""
    run("knockknock-proxy", command)
