"""Writes shell completion for the four commands, made from their option parsers, below a directory such as /usr/share.

usage: scripts/completions DIRECTORY
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import shtab

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

COMMANDS = {
    "knockknock": "knockknock",
    "knockknock-daemon": "daemon",
    "knockknock-genprofile": "genprofile",
    "knockknock-proxy": "proxy",
}
"""A command, and its module in cli/."""

PLACES = {
    "bash": "bash-completion/completions/{}",
    "zsh": "zsh/site-functions/_{}",
    "fish": "fish/vendor_completions.d/{}.fish",
}
"""Below /usr/share: where each shell looks by itself, by the command's name."""

HOSTS: dict[str, Any] = {
    "bash": "_knockknock_hosts",
    "zsh": "_knockknock_hosts",
    "fish": "(_knockknock_hosts)",
    "preamble": {
        "bash": '_knockknock_hosts() { (cd ~/.knockknock 2> /dev/null && compgen -d -- "$1"); }',
        "zsh": "_knockknock_hosts() { compadd -- ~/.knockknock/*(N/:t) }",
        "fish": "function _knockknock_hosts; for one in ~/.knockknock/*/; basename $one; end; end",
    },
}
"""The hosts that there are profiles for."""

COMPLETE: dict[object, Any] = {"HOST": HOSTS, "FILE": shtab.FILE, "DIR": shtab.DIRECTORY}
"""What completes an argument, by the name that --help gives it."""


def write(directory: Path) -> list[Path]:
    """Write all of them; where they are."""
    written = []
    for command, module in COMMANDS.items():
        options = import_module(f"knockknock.cli.{module}").parser()
        for action in options._actions:  # argparse has no other way to list them
            if action.metavar in COMPLETE:
                action.complete = COMPLETE[action.metavar]
        for shell, place in PLACES.items():
            path = directory / place.format(command)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(shtab.complete(options, shell))
            written.append(path)
    return written


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    write(Path(sys.argv[1]))
