"""Inserts the accept rule into the tables of legacy iptables; nf_tables does not show these."""

import contextlib
import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from ..errors import FirewallError
from . import NAME
from .namespace_lock import XTABLES

_CHAINS = (
    ("filter", "INPUT"),
    ("mangle", "INPUT"),
    ("security", "INPUT"),
    ("mangle", "PREROUTING"),
    ("raw", "PREROUTING"),
)
"""The tables and chains that can refuse incoming packets."""
_COMMANDS = {4: "iptables", 6: "ip6tables"}
_NAMES = {4: "/proc/net/ip_tables_names", 6: "/proc/net/ip6_tables_names"}
PATIENCE = 5
"""Seconds to wait for the lock of legacy iptables, by its command and here."""
_REFUSE = ("DROP", "REJECT", "TARPIT", "NFQUEUE", "QUEUE")


class Table(NamedTuple):
    """A loaded table of legacy iptables, and the chain of it that matters."""

    family: int
    """4 or 6."""
    name: str
    chain: str = "INPUT"

    def __str__(self) -> str:
        return f"{_COMMANDS[self.family]}-legacy {self.name} {self.chain}"


class Look(NamedTuple):
    """The state of one table."""

    table: Table
    placed: bool
    """True if our rule is there."""
    refuses: bool
    """True if the chain, or one that it leads to, may refuse; an unreadable table may."""
    problem: str = ""
    """The reason, in a sentence, if the table cannot be read or takes no rule of ours."""

    @property
    def early(self) -> bool:
        """True if no rule of ours there could help, because the chain comes before the doors."""
        return self.table.name == "raw"


def tables() -> list[Table]:
    """Return the loaded tables that could refuse incoming packets, without loading one."""
    found = []
    for family, path in _NAMES.items():
        with contextlib.suppress(OSError), open(path) as file:
            names = file.read().split()
            found += [Table(family, name, chain) for name, chain in _CHAINS if name in names]
    return found


def look(label: int) -> list[Look]:
    """Return the state of each of tables(); of a chain at prerouting only if it may refuse, as others choose routes."""
    found = []
    saved = cache(_saved)  # two chains may be of one table
    for table in tables():
        try:
            lines = saved(table.family, table.name)
        except FirewallError as error:
            found.append(Look(table, False, True, str(error)))
            continue
        placed = _rule(table, label) in [line.replace('"', "") for line in lines]
        refuses = _refuses(lines, table.chain)
        if table.chain == "INPUT" or placed or refuses:
            found.append(
                Look(
                    table,
                    placed,
                    refuses,
                    "it comes before the doors, so allow the ports there" if table.name == "raw" else "",
                )
            )
    return found


def _saved(family: int, name: str) -> list[str]:
    """Return the lines of iptables-save. Unlike `-S`, it takes no lock, which would wake root.watch."""
    return _run([f"{_command(family)}-save", "-t", name]).splitlines()


def place(table: Table, label: int) -> None:
    """Put our rule at the head of the chain. Raises FirewallError."""
    if not _by_library(table, label):
        _change(table, _rule(table, label).replace(f"-A {table.chain}", f"-I {table.chain} 1"))


def remove(table: Table, label: int) -> None:
    """Delete our rule. Raises FirewallError."""
    _change(table, _rule(table, label).replace("-A", "-D", 1))


def _change(table: Table, rule: str) -> None:
    _run([_command(table.family), "--wait", str(PATIENCE), "-t", table.name, *rule.split()])


def _rule(table: Table, label: int) -> str:
    return f"-A {table.chain} -m connlabel --label {label} -m comment --comment {NAME} -j ACCEPT"


def _refuses(lines: list[str], base: str) -> bool:
    """Return True if the policy of a base chain, or a rule that it leads to, may refuse. lines: of iptables-save."""
    if any(line.startswith(f":{base} DROP") for line in lines):
        return True
    reached, todo = {base}, [base]
    while todo:
        chain = todo.pop()
        for words in [line.split() for line in lines if line.startswith(f"-A {chain} ")]:
            for option in {"-j", "-g"} & set(words):
                target = words[words.index(option) + 1]
                if target in _REFUSE:
                    return True
                if target not in reached:
                    reached.add(target)
                    todo.append(target)
    return False


def _command(family: int) -> str:
    """Return the legacy command of a family. Raises FirewallError if there is none."""
    for name in (f"{_COMMANDS[family]}-legacy", _COMMANDS[family]):
        if shutil.which(name) and "nf_tables" not in _run([name, "-V"]):
            return name
    raise FirewallError(
        f"legacy iptables has rules, and there is no {_COMMANDS[family]}-legacy to let doors through them: "
        "apt install iptables"
    )


def _run(command: list[str]) -> str:
    """Run a command and return its output. Raises FirewallError."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, text=True, capture_output=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FirewallError(f"{command[0]} cannot be run: {error}") from None
    if done.returncode:
        said = done.stderr.strip().rpartition("\n")[2]
        raise FirewallError(f"{' '.join(command)}: {said or 'failed'}")
    return done.stdout


def _by_library(table: Table, label: int) -> bool:
    """Place our rule by python-iptables; return False if that is not installed. Raises FirewallError."""
    try:
        import iptc
    except ImportError:
        return False
    kind, make = (iptc.Table, iptc.Rule) if table.family == 4 else (iptc.Table6, iptc.Rule6)
    # iptc looks into every table to see whether a target is a chain, which would make the kernel load them all.
    kind.existing_table_names = {name: name == table.name for name in kind.ALL}
    try:
        with _locked():
            there = kind(table.name)
            there.refresh()
            rule = make()
            rule.create_match("connlabel").set_parameter("label", str(label))
            rule.create_match("comment").set_parameter("comment", NAME)
            rule.create_target("ACCEPT")
            iptc.Chain(there, table.chain).insert_rule(rule)
    except (iptc.IPTCError, OSError, AttributeError) as error:
        raise FirewallError(f"legacy iptables takes no rule of ours: {error}") from None
    return True


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """Hold the lock of legacy iptables during the body, because the library does not. Raises FirewallError."""
    end = time.monotonic() + PATIENCE
    with open(os.open(XTABLES, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)) as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise FirewallError(f"another program holds {XTABLES}: end it, and restart the daemon") from None
                time.sleep(0.02)
        yield
