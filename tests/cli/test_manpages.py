"""The man pages: they say all that the commands and configuration files know, and nothing else; they render."""

import argparse
import re
import subprocess
from importlib import import_module

import pytest

from knockknock.schemes.otp import profile as otp
from knockknock.schemes.sequence import profile as sequence
from knockknock.schemes.syn import profile as syn
from knockknock.server import config

from ..helpers import ROOT

MAN = ROOT / "docs" / "man"
COMMANDS = {
    "knockknock.1": "knockknock",
    "knockknock-proxy.1": "proxy",
    "knockknock-daemon.8": "daemon",
    "knockknock-genprofile.8": "genprofile",
}
"""A page, and the module in cli/ whose options it describes."""
KEYS = {
    "Keys of the daemon": {key: None for key in config.KEYS if key not in config.OBSOLETE},
    "Keys of a profile": {"scheme": None, **syn.KEYS},
    "Keys of a sequence": sequence.KEYS,
    "Keys of a one-time password": otp.KEYS,
}
"""A subsection of knockknock.conf(5), and the keys that it describes."""
PAGES = sorted(path.name for path in MAN.iterdir())


def parser(module: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = import_module(f"knockknock.cli.{module}").parser()
    return made


def known(options: argparse.ArgumentParser) -> dict[str, str]:
    """Options and arguments of a parser that a page's items may begin with, and the line to write for each."""
    items: dict[str, str] = {}
    for action in options._actions:  # argparse has no other way to list them
        if action.choices and not action.option_strings:
            continue  # words that are options, too
        takes = "" if action.nargs == 0 else f" Ar {action.metavar or action.dest.upper()}"
        if not action.option_strings:
            items[str(action.metavar or action.dest.upper())] = f".It{takes}"
        for word in action.option_strings:
            items[word] = ".It " + " , ".join(f"Fl {one[1:]}" for one in action.option_strings) + takes
    return items


def described(text: str) -> set[str]:
    """The options and arguments that a page's items begin with."""
    found: set[str] = set()
    for line in re.findall(r"^\.It (.*)", text, re.MULTILINE):
        found.update(f"-{name}" for name in re.findall(r"\bFl (\S+)", line))
        if argument := re.match(r"Ar (\S+)", line):
            found.add(argument[1])
    return found


def section(text: str, title: str) -> str:
    """Text below a subsection's title."""
    assert f".Ss {title}\n" in text, f"docs/man/knockknock.conf.5 has no subsection '.Ss {title}'"
    return re.split(r"^\.S[sh] ", text.partition(f".Ss {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def test_each_page_is_looked_at() -> None:
    assert {*COMMANDS, "knockknock.conf.5"} == set(PAGES)


@pytest.mark.parametrize(("page", "module"), COMMANDS.items())
def test_options(page: str, module: str) -> None:
    items, said = known(parser(module)), described((MAN / page).read_text())
    lacking = sorted({item for word, item in items.items() if word not in said})
    assert not lacking, f"add to the list of options in docs/man/{page}, each with its text below it: {lacking}"
    named = said | {f"-{name}" for name in re.findall(r"\bFl ([^\s|]+)", (MAN / page).read_text())}
    assert named <= set(items), f"take out of docs/man/{page}, as the command has no such options: {named - set(items)}"


@pytest.mark.parametrize(("title", "keys"), KEYS.items(), ids=[*KEYS])
def test_keys(title: str, keys: dict[str, object]) -> None:
    said = set(re.findall(r"^\.It Ic (\S+)", section((MAN / "knockknock.conf.5").read_text(), title), re.MULTILINE))
    where = f"docs/man/knockknock.conf.5, '.Ss {title}'"
    lacking = sorted(set(keys) - said)
    assert not lacking, f"add to {where}: {[f'.It Ic {key}' for key in lacking]}, each with its text below it"
    assert said <= set(keys), f"take out of {where}, as there are no such keys: {said - set(keys)}"


@pytest.mark.parametrize("key", [field for field in config.Config._fields if field != "obsolete"])
def test_defaults(key: str) -> None:
    """A default is in its key's text."""
    value = config.Config._field_defaults[key]
    text = section((MAN / "knockknock.conf.5").read_text(), "Keys of the daemon")
    item = text.partition(f".It Ic {key}\n")[2].partition("\n.It ")[0]
    word = {True: "yes", False: "no"}[value] if isinstance(value, bool) else "none" if value == () else str(value)
    assert re.search(rf"(?<![\w/]){re.escape(word)}(?![\w/])", item), (
        f"docs/man/knockknock.conf.5 does not say below '.It Ic {key}' that its default is {word}"
    )


@pytest.mark.parametrize("page", PAGES)
def test_lint(page: str) -> None:
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", str(MAN / page)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("page", PAGES)
def test_rendered(page: str) -> None:
    """By man, and for the web by mandoc: what an option is called comes out in both."""
    shown = subprocess.run(
        ["man", "--warnings", "-l", str(MAN / page)],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": "80"},
    )
    assert shown.stderr == ""
    html = subprocess.run(["mandoc", "-T", "html", str(MAN / page)], capture_output=True, text=True, check=True).stdout
    wanted = ["delay", "knock_port"] if page == "knockknock.conf.5" else ["--version", "--help"]
    for word in wanted:
        assert word in shown.stdout
        assert word in re.sub(r"<[^>]*>", "", html)
