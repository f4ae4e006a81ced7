"""knockknock-proxy: its place is kept, the proxy is not written yet."""

from ..errors import KnockError
from . import run


def command(_arguments: list[str]) -> None:
    raise KnockError("this release has no proxy yet; knock with the command knockknock before you connect")


def main() -> None:
    """The entry point of the command."""
    run("knockknock-proxy", command)
