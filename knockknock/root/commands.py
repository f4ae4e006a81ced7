"""The iptables commands of either kind: run them, and see whether what was placed is still there."""

import subprocess
from collections.abc import Sequence

from ..errors import FirewallError


def run(command: list[str], text: str = "") -> str:
    """What a command prints; text: its input. Raises FirewallError."""
    try:
        done = subprocess.run(command, input=text, text=True, capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FirewallError(f"{command[0]} cannot be run: {error}") from None
    if done.returncode:
        raise FirewallError(f"{' '.join(command)}: {done.stderr.strip() or 'failed'}")
    return done.stdout


class Placed:
    """A chain of ours and the rule of INPUT that leads to it, as each of some commands lists them."""

    def __init__(self, commands: Sequence[str], chain: str) -> None:
        self._commands, self._chain = commands, chain
        self._whole: list[list[str]] = []

    def remember(self) -> None:
        """All is in place now. Raises FirewallError."""
        self._whole = self._listed()

    def whole(self) -> bool:
        """Whether all is as it was then. Raises FirewallError."""
        listed = self._listed()
        return listed == self._whole and all(f"-A INPUT -j {self._chain}" in lines for lines in listed)

    def _listed(self) -> list[list[str]]:
        # Unlike `-S`, `-save` takes no lock, by which root.watch would be woken.
        texts = [run([f"{command}-save", "-t", "filter"]) for command in self._commands]
        return [[line.partition(" [")[0] for line in text.splitlines() if self._chain in line] for text in texts]
