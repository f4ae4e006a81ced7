"""Helpers of several tests: a profile, its knocks as a source sees them, files on disk, commands as users run them."""

import ast
import io
import os
import re
import stat
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Mapping
from pathlib import Path

from knockknock.core.headers import Carried
from knockknock.core.key_text import write_key
from knockknock.core.packet import Packet
from knockknock.core.profile import Profile as AnyProfile
from knockknock.core.profile import Settings
from knockknock.core.request import TCP, Ports, Request, Verb
from knockknock.errors import KnockError
from knockknock.profiles import counters, files
from knockknock.profiles.text import named, write_config
from knockknock.schemes.syn import seal
from knockknock.schemes.syn.profile import Profile
from knockknock.server.gatekeeper import Gatekeeper

ROOT = Path(__file__).resolve().parent.parent
KNOCK_PORT = 4242
SOURCE = bytes([192, 0, 2, 7])
SOURCE6 = bytes.fromhex("20010db8000000000000000000000007")
OPEN_22 = Request(Verb.OPEN, TCP, 22)
TEXT = (
    "AAECAwQFBgcICQoLDA0ODw==",
    "EBESExQVFhcYGRobHB0eHw==",
)
"""The keys of profile(), as base64 made by openssl."""
NOBODY = 65534
VIEW = {"root": ROOT, "python": Path(sys.executable)}
"""Where somebody else than we finds the checkout and its Python; set by the fixture nobody."""


def profile(name: str = "alice", format: str = "compact", ports: str = "tcp/22", **changes: object) -> Profile:
    """A profile with fixed keys; ports: as in a config, the only notation that tests need."""
    runs = []
    for item in ports.split(","):
        protocol, _, run = item.partition("/")
        first, _, last = run.partition("-")
        runs.append(Ports({"tcp": 6, "udp": 17}[protocol], int(first), int(last or first)))
    plain = Profile(name, bytes(range(16)), bytes(range(16, 32)), KNOCK_PORT, format, tuple(runs))
    return plain._replace(**changes)  # type: ignore[arg-type]  # each test names fields of Profile


def completed(draft: AnyProfile, one: Profile) -> AnyProfile:
    """Profile that parse_config() has made, with the name and the keys of another."""
    return named(draft, one.name, {"cipher_key": one.cipher_key, "mac_key": one.mac_key})


def keeper_of(
    profiles: Iterable[Profile], counters: Mapping[str, int], delay: int, window: int, single_use: bool
) -> Gatekeeper:
    """A gatekeeper that has some profiles; counters: the next one that is acceptable, by name."""
    keeper = Gatekeeper(Settings(delay, window, single_use))
    for one in profiles:
        keeper.add(one, counters[one.name])
    return keeper


def load_profiles(place: str) -> tuple[list[AnyProfile], dict[str, KnockError]]:
    """All profiles of a server, and by name what is wrong with those that cannot be used."""
    found = sorted(filter(None, files.profiles(place)), key=lambda one: one[0])
    good = [one for _, one in found if not isinstance(one, KnockError)]
    return good, {name: one for name, one in found if isinstance(one, KnockError)}


def stamped(timestamp: int) -> bytes:
    """TCP options with a timestamps option (RFC 7323)."""
    return b"\x08\x0a" + timestamp.to_bytes(4, "big") + bytes(4) + b"\1\1"


def seen(fields: Carried, source: bytes = SOURCE, port: int = KNOCK_PORT, label: int = 0) -> Packet:
    """The packet that carries some fields, as a source sees it; label: the upper 4 bits of a flow label."""
    return Packet(
        source,
        40000,
        port,
        label << 16 | fields.ident,
        fields.sequence,
        fields.acknowledgment,
        64240 if fields.window is None else fields.window,
        stamped(1289561113 if fields.timestamp is None else fields.timestamp),
    )


def knock(sender: Profile, counter: int, request: Request = OPEN_22, source: bytes = SOURCE) -> Packet:
    """A knock as it arrives."""
    sealed = seal.seal(sender, counter, request, source)
    return seen(seal.carry(sender.format, sealed), source, sender.knock_port)


def write_profile(directory: Path, made: Profile, counter: int = 0) -> Path:
    """A client's profile on disk, in a directory of its name."""
    place = directory / made.name
    place.mkdir(parents=True, mode=0o700)
    for file, text in (
        ("cipher.key", write_key(made.cipher_key)),
        ("mac.key", write_key(made.mac_key)),
        ("config", write_config(made)),
        ("counter", f"{counter}\n"),
    ):
        (place / file).write_text(text)
        (place / file).chmod(0o600)
    return place


def let_in(directory: Path) -> None:
    """Let others go into a directory of pytest's, which closes them to others, and all that are above it."""
    for path in (directory, *directory.parents):
        if not path.stat().st_mode & stat.S_IXOTH:
            path.chmod(0o755)


def take(directory: str, clock: int = 0) -> int:
    """A counter that is used up for nothing."""
    with counters.taking(directory, clock) as counter:
        return counter


def tree(directory: Path) -> dict[str, bytes]:
    """Every file below a directory, hidden ones too, with what is in it; directories end in a slash."""
    return {
        str(path.relative_to(directory)) + ("/" if path.is_dir() else ""): b"" if path.is_dir() else path.read_bytes()
        for path in directory.rglob("*")
    }


def command(
    name: str, *words: str, home: Path, user: int | None = None, umask: int = 0o022, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command of bin/ as a user would, with a home of its own; user: an id to become first, without groups."""
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user is not None else []
    view = VIEW if user is not None else {"root": ROOT, "python": Path(sys.executable)}
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("SUDO_", "PYTHON"))}
    return subprocess.run(
        [*become, str(view["python"]), str(view["root"] / "bin" / name), *words],
        env=clean | {"HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "120"} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=home,
        umask=umask,
    )


def traceback_of_ours(said: str) -> str:
    """Return a traceback that names a line of ours, or "".

    The first nine lines of cli/__init__.py do not count: the last of them makes ^C end a command quietly, and to run
    them takes some microseconds of the start of Python.
    """
    found = said.partition("Traceback")[2]
    for path, line in re.findall(r'File ".*/knockknock/(.+?\.py)", line (\d+)', found):
        if path != "cli/__init__.py" or int(line) > 9:
            return found
    return ""


def code_lines(path: Path) -> int:
    """Lines of a module with code in them: not those that are empty, comment or documentation."""
    text = path.read_text()
    documentation: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            documentation.update(range(node.lineno, (node.end_lineno or 0) + 1))
    blank = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in blank:
            code.update(range(token.start[0], token.end[0] + 1))
    return len(code - documentation)
