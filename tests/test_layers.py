"""Who may import whom, read off the imports themselves."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from knockknock.schemes import SCHEMES

from .helpers import ROOT

PACKAGE = ROOT / "knockknock"
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
PURE = [
    name
    for name in FILES
    if name.removeprefix("knockknock.")
    in (
        "errors",
        "packet",
        "grant",
        "request",
        "profile",
        "ini",
        "config",
        "deafness",
        "diagnosis",
        "doors",
        "events",
        "enrolment",
        "gatekeeper",
        "facts",
        "scan",
        "moment",
        "tcpip",
        "schedule",
        "hosts",
        "sources.logline",
        "sources.nfpacket",
        "slots",
        "tcpoptions",
    )
    or name.startswith("knockknock.schemes")
]
OUTSIDE = {"os", "socket", "subprocess", "time", "threading"}


def imports(name: str) -> set[str]:
    """The modules that a module of ours names in import statements, wherever they stand, as absolute names."""
    path = FILES[name]
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                submodule = f"{module}.{alias.name}"
                found.add(submodule if submodule in FILES else module)
    return found


def ours(name: str) -> set[str]:
    return {one for one in imports(name) if one.split(".")[0] == "knockknock"}


def test_imports_are_found() -> None:
    """The reader of imports reads: of these it is known what they import."""
    assert {"struct", "enum", "typing", "knockknock.errors"} <= imports("knockknock.grant")
    assert {"knockknock.schemes", "knockknock.events", "knockknock.packet"} <= ours("knockknock.gatekeeper")
    assert ours("knockknock.schemes.syn") >= {"knockknock.schemes", "knockknock.packet"}
    assert "os" in imports("knockknock.store")


def test_pure_rooms_are_there() -> None:
    assert len(PURE) >= 12


@pytest.mark.parametrize("name", PURE)
def test_pure_rooms_do_nothing_outside(name: str) -> None:
    assert {one.split(".")[0] for one in imports(name)} & OUTSIDE == set()


@pytest.mark.parametrize("name", PURE)
def test_pure_rooms_import_pure_rooms(name: str) -> None:
    assert ours(name) - set(PURE) == set()


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("knockknock.root")])
def test_root_imports_errors_grant_and_itself(name: str) -> None:
    allowed = {"knockknock.errors", "knockknock.grant"}
    assert {one for one in ours(name) if not one.startswith("knockknock.root")} - allowed == set()


WHO_IMPORTS_ROOT = {
    "hooks": {"privileges"},
    "policy": {"policy", "setup"},
    "privsep": {"privileges"},
    "sandbox": {"landlock", "seccomp"},
    "cli.check": {"firewall", "listing"},
    "cli.daemon": {"firewall"},
    "cli.examine": {"", "listing", "netlink"},
    "cli.probe": {"listing", "nft", "ruleset"},
    "cli.scan": {"listing", "scan"},
    "cli.serve": {"privileges"},
}
"""And what of it; "" is the package, with its names and numbers. Commands run as root and end."""


@pytest.mark.parametrize("name", [name for name in FILES if not name.startswith("knockknock.root")])
def test_who_imports_root(name: str) -> None:
    found = {one.removeprefix("knockknock.root").removeprefix(".") for one in ours(name) if "knockknock.root" in one}
    assert found == WHO_IMPORTS_ROOT.get(name.removeprefix("knockknock."), set())


@pytest.mark.parametrize("name", FILES)
def test_nothing_imports_the_commands(name: str) -> None:
    if not name.startswith("knockknock.cli"):
        assert {one for one in ours(name) if one.split(".")[1:2] == ["cli"]} == set()


def test_sources_know_no_keys() -> None:
    for name in FILES:
        if name.startswith("knockknock.sources."):
            pure = {f"knockknock.sources.{one}" for one in ("logline", "nfpacket", "datagrams")}
            assert ours(name) <= {"knockknock.errors", "knockknock.packet"} | pure


def test_the_package_itself_imports_nothing() -> None:
    assert imports("knockknock") == set()


@pytest.mark.parametrize(("name", "path"), FILES.items(), ids=FILES)
def test_size_and_purpose(name: str, path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) < 400
    assert ast.get_docstring(ast.parse(text)), f"{name} does not say what it is"


def loaded(module: str) -> set[str]:
    """The modules that a fresh interpreter has after one import."""
    code = f"import sys; sys.path[:0] = [{str(ROOT)!r}]; import {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["runner", "cli.proxy", "cli.genprofile", "cli.knockknock", "sendservice", "client"])
def test_who_needs_nothing_of_root_loads_nothing_of_it(module: str) -> None:
    """But its names and numbers, and how rights are given up."""
    found = {one for one in loaded(f"knockknock.{module}") if one.startswith("knockknock.root")}
    assert found <= {"knockknock.root", "knockknock.root.privileges"}


HEAVY = {"scapy", "dataclasses", "inotify_simple", "logging"}
ASKED_FOR = {
    "knockknock.hosts",
    "knockknock.connect",
    "knockknock.rawsend",
    "knockknock.sendservice",
    "knockknock.program",
    "subprocess",
    "ctypes",
}
"""What `knockknock -p 22 HOST` does without, as a knock comes before every login."""
SECRET = {"cryptography", "configparser", "knockknock.profile", "knockknock.store"}


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("knockknock.cli.knockknock", HEAVY | ASKED_FOR),
        ("knockknock.root.helper", HEAVY | SECRET | {"json", "subprocess", "knockknock.root.policy"}),
        ("knockknock.root.watch", HEAVY | SECRET | {"json", "subprocess", "knockknock.root.policy"}),
        ("knockknock.cli.daemon", HEAVY | {"cryptography", "knockknock.daemon", "knockknock.root", "subprocess"}),
        ("knockknock.cli.serve", {"prometheus_client", "scapy", "tempfile", "knockknock.root.netlink"}),
        ("knockknock.runner", {"cryptography", "knockknock.store"}),
        ("knockknock.policy", {"cryptography", "scapy"}),
        ("knockknock.gatekeeper", {"socket", "subprocess", "scapy"}),
    ],
)
def test_what_is_loaded(module: str, without: set[str]) -> None:
    found = loaded(module)
    assert module in found
    assert found & without == set()


FAMILIES = (
    {"synprofile", "syn", "synlistener", "ear", "heads"},
    {"sequence", "sequences", "matcher", "steps"},
    {"otp", "otplistener"},
)
"""The modules of each scheme."""
SHARED = {"doors"}
"""What all of them may know."""


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("knockknock.schemes.")])
def test_no_scheme_knows_another(name: str) -> None:
    family = next((one for one in FAMILIES if name.rpartition(".")[2] in one), set[str]()) | SHARED
    others = {one for one in ours(name) if one.startswith("knockknock.schemes.")}
    assert {one.rpartition(".")[2] for one in others} <= family


@pytest.mark.parametrize("name", ["gatekeeper", "daemon", "loading", "store", "policy", "minting", "profile", "plain"])
def test_nobody_asks_which_scheme_it_is(name: str) -> None:
    """They look the scheme up in the table, and name none."""
    tree = ast.parse(FILES[f"knockknock.{name}"].read_text())
    words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert words & set(SCHEMES) == set()
