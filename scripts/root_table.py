"""Table of the programs that run with rights of root: when, with which rights, and how many lines of ours they load."""

import subprocess
import sys
from typing import NamedTuple

from tests.helpers import ROOT, code_lines

EVERYTHING = "from knockknock.server import sandbox; sandbox.prepare('off', [], [], None)"
"""What the daemon loads before it gives root up, so that it can do without later."""


class Program(NamedTuple):
    """One row of the table."""

    when: str
    name: str
    rights: str
    module: str
    also: str = ""
    """Code that loads the rest."""


PROGRAMS = (
    Program("start", "the daemon, until it is an ordinary user", "root", "cli.serve", EVERYTHING),
    Program("start", "set-up, which then becomes the helper", "root, start's", "server.policy_reader"),
    Program("run", "`root/watch.py`", "root, NET_ADMIN and NET_RAW", "root.watch"),
    Program("run", "the helper, `root/helper.py`", "nobody, NET_ADMIN, locked in", "root.helper"),
    Program("reload", "set-up, which reads the policy", "root, NET_ADMIN and NET_RAW", "server.policy_reader"),
    Program("a change of rules", "set-up, with the policy as it is", "root, NET_ADMIN and NET_RAW", "root.setup"),
    Program("stop", "set-up, which takes all away", "root, NET_ADMIN and NET_RAW", "root.setup"),
)


def loaded(program: Program) -> list[str]:
    """Our modules that a fresh interpreter has then."""
    code = f"import sys; sys.path[:0] = [{str(ROOT)!r}]; import knockknock.{program.module}; {program.also}\n"
    code += "print(*[name for name in sys.modules if name.split('.')[0] == 'knockknock'])"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def lines(module: str) -> int:
    """Lines of code in a module."""
    path = ROOT / f"{module.replace('.', '/')}.py"
    return code_lines(path if path.exists() else path.with_suffix("") / "__init__.py")


def main() -> None:
    """Print it."""
    print("| when | what | user and capabilities | lines of ours loaded |")
    print("|------|------|-----------------------|----------------------|")
    for program in PROGRAMS:
        count = sum(map(lines, loaded(program)))
        print(f"| {program.when} | {program.name} | {program.rights} | {count:,} |")


if __name__ == "__main__":
    main()
