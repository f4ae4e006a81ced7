"""The rooms and their imports, read off the imports themselves, wherever in a module they stand."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from knockknock.schemes import SCHEMES

from ..helpers import ROOT

PACKAGE = ROOT / "knockknock"
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts[1:]).removesuffix("__init__").removesuffix("."): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
"""Modules by their names below the package."""

ROOMS = {
    "": set[str](),
    "errors": set[str](),
    "root": {"errors"},
    "core": {"errors", "root.record"},
    "schemes": {"errors", "core"},
    "profiles": {"errors", "core", "schemes"},
    "sources": {"errors", "core"},
    "client": {"errors", "core", "schemes", "profiles"},
    "server": {"errors", "core", "schemes", "profiles", "sources", "root", ""},
    "proxy": {"errors", "core", "schemes", "profiles", "client"},
    "cli": {"errors", "core", "schemes", "profiles", "sources", "client", "server", "proxy", "root", ""},
}
"""Each room, with the rooms and modules that it may import besides itself. "" is the package, with its version."""

PARSERS = {
    "client.backoff",
    "client.host_config",
    "profiles.enrolment",
    "profiles.text",
    "root.record",
    "server.deafness",
    "server.diagnosis",
    "server.door_owners",
    "server.gatekeeper",
    "server.event_text",
    "sources.kernel_line",
    "sources.nflog_packet",
}
PURE = [name for name in FILES if name in PARSERS or name.partition(".")[0] in ("errors", "core", "schemes")]
OUTSIDE = {"os", "socket", "subprocess", "time", "threading"}


def room(name: str) -> str:
    return name.partition(".")[0]


@cache
def imports(name: str) -> frozenset[str]:
    """The modules that a module of ours names in import statements; ours by their names below the package."""
    path = FILES[name]
    parts = ["knockknock", *(name.split(".") if name else [])]
    package = parts if path.name == "__init__.py" else parts[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                submodule = f"{module}.{alias.name}"
                found.add(submodule if submodule.removeprefix("knockknock.") in FILES else module)
    return frozenset(found)


def ours(name: str) -> set[str]:
    return {
        one.removeprefix("knockknock").removeprefix(".") for one in imports(name) if one.split(".")[0] == "knockknock"
    }


def test_imports_are_found() -> None:
    """The reader of imports reads: of these it is known what they import."""
    assert {"struct", "enum", "typing"} <= imports("root.record")
    assert "errors" in ours("root.record")
    assert {"schemes", "core.events", "core.packet"} <= ours("server.gatekeeper")
    assert ours("schemes.syn.seal") >= {"schemes.syn.profile", "core.packet"}
    assert "client.connect" in ours("cli.knockknock"), "imports within functions count, too"
    assert "os" in imports("profiles.files")


def test_pure_rooms_are_there() -> None:
    assert len(PURE) >= 30
    assert set(FILES) >= PARSERS


@pytest.mark.parametrize("name", FILES)
def test_a_room_imports_those_below_it(name: str) -> None:
    allowed = ROOMS[room(name)]
    foreign = {one for one in ours(name) if room(one) != room(name)}
    assert {one for one in foreign if room(one) not in allowed and one not in allowed} == set()


def test_no_circles() -> None:
    """Modules can be put into an order in which each imports those before it, imports within functions included."""
    left = {name: ours(name) - {name} for name in FILES}
    while ready := {name for name, wanted in left.items() if not wanted & set(left)}:
        left = {name: wanted for name, wanted in left.items() if name not in ready}
    assert left == {}


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_do_nothing_outside(name: str) -> None:
    assert {one.split(".")[0] for one in imports(name)} & OUTSIDE == set()


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_import_pure_modules(name: str) -> None:
    assert ours(name) - set(PURE) == set()


WHO_IMPORTS_ROOT = {
    "core.events": {"record"},
    "server.daemon": {"record"},
    "server.door_owners": {"record"},
    "server.expected_values": {"record"},
    "server.hook_runner": {"record"},
    "server.hooks": {"privileges", "record"},
    "server.policy_reader": {"policy", "setup"},
    "server.privsep": {"privileges", "record"},
    "server.event_text": {"record"},
    "server.sandbox": {"landlock", "seccomp"},
    "server.status_answer": {"record"},
    "cli.check": {"firewall", "listing"},
    "cli.daemon": {"firewall"},
    "cli.server_doctor": {"", "listing", "netlink"},
    "cli.log_probe": {"libnftables", "listing", "ruleset"},
    "cli.blocked": {"listing", "scan_guard"},
    "cli.serve": {"privileges"},
}
"""And what of it; "" is the package, with its names and numbers. Commands run as root and end."""


@pytest.mark.parametrize("name", [name for name in FILES if room(name) != "root"])
def test_who_imports_root(name: str) -> None:
    found = {one.removeprefix("root").removeprefix(".") for one in ours(name) if room(one) == "root"}
    assert found == WHO_IMPORTS_ROOT.get(name, set())


def test_sources_know_no_keys() -> None:
    for name in FILES:
        if name.startswith("sources."):
            pure = {f"sources.{one}" for one in ("kernel_line", "nflog_packet", "datagrams")}
            assert ours(name) <= {"errors", "core.packet"} | pure


def test_the_package_itself_imports_nothing() -> None:
    assert imports("") == frozenset()


@pytest.mark.parametrize(("name", "path"), FILES.items(), ids=[name or "knockknock" for name in FILES])
def test_size_and_purpose(name: str, path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) < 400
    assert ast.get_docstring(ast.parse(text)), f"{name} does not say what it is"


def loaded(module: str) -> set[str]:
    """The modules that a fresh interpreter has after one import; ours by their names below the package."""
    code = f"import sys; sys.path[:0] = [{str(ROOT)!r}]; import knockknock.{module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    return {one.removeprefix("knockknock.") for one in done.stdout.split()}


@pytest.mark.parametrize(
    "module",
    ["server.hook_runner", "cli.proxy", "cli.genprofile", "cli.knockknock", "client.send_service", "client.knock"],
)
def test_who_needs_nothing_of_root_loads_nothing_of_it(module: str) -> None:
    """But its names and numbers, the record, and how rights are given up."""
    assert {one for one in loaded(module) if room(one) == "root"} <= {"root", "root.record", "root.privileges"}


HEAVY = {"scapy", "dataclasses", "inotify_simple", "logging"}
ASKED_FOR = {
    "client.host_config",
    "client.connect",
    "client.send_client",
    "client.send_service",
    "client.execute",
    "server",
    "subprocess",
    "ctypes",
    "argparse",
    "hashlib",
    "schemes.protocols",
}
"""What `knockknock -p 22 HOST` does without, as a knock comes before every login."""
SECRET = {"cryptography", "configparser", "profiles"}


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("cli.knockknock", HEAVY | ASKED_FOR),
        ("root.helper", HEAVY | SECRET | {"json", "subprocess", "root.policy"}),
        ("root.watch", HEAVY | SECRET | {"json", "subprocess", "root.policy"}),
        ("cli.daemon", HEAVY | {"cryptography", "server.daemon", "root", "subprocess"}),
        ("cli.serve", {"prometheus_client", "scapy", "tempfile", "root.netlink"}),
        ("server.hook_runner", {"cryptography", "profiles.files"}),
        ("server.policy_reader", {"cryptography", "scapy"}),
        ("server.gatekeeper", {"socket", "subprocess", "scapy"}),
    ],
)
def test_what_is_loaded(module: str, without: set[str]) -> None:
    found = loaded(module)
    assert module in found
    assert found & without == set()


SHARED = {"schemes", "schemes.door_options", "schemes.protocols", "schemes.values"}
"""What all schemes may know of their room."""


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("schemes.")])
def test_no_scheme_knows_another(name: str) -> None:
    others = {one for one in ours(name) if room(one) == "schemes"} - SHARED
    assert {one.split(".")[1] for one in others} <= {name.split(".")[1]}


@pytest.mark.parametrize(
    "name",
    [
        "server.gatekeeper",
        "server.daemon",
        "server.loading",
        "server.policy_reader",
        "profiles.files",
        "profiles.mint",
        "profiles.text",
        "client.ordinary_sockets",
    ],
)
def test_nobody_asks_which_scheme_it_is(name: str) -> None:
    """They look the scheme up in the table, and name none."""
    tree = ast.parse(FILES[name].read_text())
    words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert words & set(SCHEMES) == set()
