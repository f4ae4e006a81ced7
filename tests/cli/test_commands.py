"""The commands as users meet them: what they say, how they end, what they leave behind."""

import contextlib
import grp
import json
import os
import pty
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zxingcpp
from PIL import Image
from scapy.layers.inet import IP, TCP
from scapy.utils import rdpcap

from knockknock import __version__
from knockknock.client import connect, knock, route
from knockknock.core.events import Accepted
from knockknock.core.packet import Packet
from knockknock.core.request import parse_ports
from knockknock.errors import ProfileError, SendError
from knockknock.profiles import counters, enrolment, files, legacy
from knockknock.root.record import Order
from knockknock.schemes.syn.profile import Profile

from ..helpers import NOBODY, ROOT, command, keeper_of, let_in, load_profiles, profile, tree, write_profile

COMMANDS = ["knockknock", "knockknock-daemon", "knockknock-genprofile"]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def run(
    name: str, *words: str, home: Path, user: int | None = None, umask: int = 0o022, **environment: str
) -> tuple[int, str, str]:
    """Status, output and complaint of a command that must not show a traceback, whatever happens."""
    done = command(name, *words, home=home, user=user, umask=umask, **environment)
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    assert "Exception ignored" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def sentence(name: str, *words: str, home: Path, status: int = 1, user: int | None = None, modules: str = "") -> str:
    """The one line that a command ends with that could not do what it was asked to."""
    code, output, complaint = run(name, *words, home=home, user=user, PYTHONPATH=modules)
    lines = complaint.splitlines()
    usage = [line for line in lines if line.startswith(("usage:", " "))]
    rest = [line for line in lines if line not in usage]
    assert (code, output, len(rest)) == (status, "", 1), complaint
    assert bool(usage) is (status == 2)
    start = f"{name}: error: " if status == 2 else f"{name}: "
    assert rest[0].startswith(start)
    return rest[0].removeprefix(start)


@pytest.mark.parametrize("name", COMMANDS)
def test_help(tmp_path: Path, name: str) -> None:
    code, output, complaint = run(name, "--help", home=tmp_path)
    assert (code, complaint) == (0, "")
    assert output.startswith(f"usage: {name} ")
    assert "xit status: 0" in output
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_a_screen_and_its_examples_are_understood(tmp_path: Path, name: str) -> None:
    """Of 50 lines and 100 columns. Where nothing is installed each example fails, but not by its words."""
    lines = run(name, "--help", home=tmp_path)[1].splitlines()
    assert len(lines) <= 50
    assert max(map(len, lines)) <= 100
    examples = [line.strip().split("  ")[0] for line in lines if re.match(rf"  {name} ", line)]
    assert len(examples) >= 5
    for example in examples:
        words = (
            example.split()[1:] if name == "knockknock" else [*example.split()[1:], "--config", f"{tmp_path}/nowhere"]
        )
        assert run(name, *words, home=tmp_path)[0] == 1, example


@pytest.mark.parametrize("name", COMMANDS)
def test_version(tmp_path: Path, name: str) -> None:
    assert run(name, "--version", home=tmp_path) == (0, f"{name} {__version__}\n", "")


USAGE = [
    # the command line, and what its complaint must name
    ("knockknock", "HOST"),
    ("knockknock -p 22", "HOST"),
    ("knockknock -p 0 host", "-p"),
    ("knockknock -p 65536 host", "'65536' is not a port number"),
    ("knockknock -p ssh host", "'ssh' is not a port number"),
    ("knockknock -p 22/icmp host", "'icmp' is not a protocol"),
    ("knockknock -p 22/udp/tcp host", "-p"),
    ("knockknock -p -22 host", "-p"),
    ("knockknock -p 22 -4 -6 host", "-6: not allowed with argument -4"),
    ("knockknock -p 22 host other", "other"),
    ("knockknock -p 22 --pcap host", "HOST"),
    ("knockknock -p 22 host --pcap", "--pcap"),
    ("knockknock -p 22 --nonsense host", "--nonsense"),
    ("knockknock -p 22 host --", "PROGRAM is expected after --"),
    ("knockknock -p 22 host 22", "PORT: 22 goes with --stdio only"),
    ("knockknock -p 22 --timeout 3 host", "--timeout: goes with --stdio only"),
    ("knockknock -p 22 --stdio --timeout 0 host", "--timeout: '0' is not a number of seconds"),
    ("knockknock -p 22 --stdio --close host", "--stdio does not go with --close"),
    ("knockknock -p 22 --stdio host -- true", "--stdio does not go with a PROGRAM"),
    ("knockknock -p 22 --dry-run host -- true", "a PROGRAM does not go with"),
    ("knockknock --doctor host -- true", "--doctor: does not go with PROGRAM"),
    ("knockknock --list --pcap x", "--list: does not go with --pcap"),
    ("knockknock --doctor host --stdio", "--doctor: does not go with --stdio"),
    ("knockknock-genprofile laptop 4242 --ports tcp/4000-5000", "nothing may listen at 4242, which is knocked at"),
    (
        "knockknock-genprofile s --sequence 1000,2000 --ports tcp/2000",
        "nothing may listen at 2000, which is knocked at",
    ),
    ("knockknock -p / host", "not a protocol"),
    ("knockknock -p 22/22 host", "not a protocol"),
    ("knockknock-daemon --blocked --status", "are each used alone"),
    ("knockknock -p 22 --send host", "--send: does not go with HOST"),
    ("knockknock-genprofile", "required: NAME"),
    ("knockknock-genprofile alice", "KNOCKPORT"),
    ("knockknock-genprofile alice 0", "KNOCKPORT: '0' is not a port number"),
    ("knockknock-genprofile alice 65536", "KNOCKPORT: '65536' is not a port number"),
    ("knockknock-genprofile alice ssh", "KNOCKPORT: 'ssh' is not a port number"),
    ("knockknock-genprofile alice 4242 --format tiny", "--format: invalid choice: 'tiny'"),
    ("knockknock-genprofile alice 4242 --ports ssh", "--ports: 'ssh' is not a port number"),
    ("knockknock-genprofile alice 4242 --ports tcp/9-8", "--ports: 'tcp/9-8' ends before it begins"),
    ("knockknock-genprofile alice 4242 --ports tcp/22,,", "--ports"),
    ("knockknock-genprofile alice 4242 --format classic --bind-source", "--format classic"),
    ("knockknock-genprofile alice 4242 --format classic --ports udp/53", "--format classic"),
    ("knockknock-genprofile alice 4242 --format classic --counter clock", "--format classic"),
    ("knockknock-genprofile alice 4242 --counter watch", "--counter: invalid choice: 'watch'"),
    ("knockknock-genprofile alice 4242 --nonsense", "--nonsense"),
    ("knockknock-genprofile alice 4242 --expires tomorrow", "'tomorrow' is not a date, such as 2027-01-31"),
    ("knockknock-genprofile alice 4242 --expires 2027-02-30", "'2027-02-30' is not in the calendar"),
    ("knockknock-genprofile alice 4242 --expires 2020-01-31", "--expires: 2020-01-31 is over"),
    ("knockknock-genprofile alice 4242 --grace 1d", "--grace: does not go with a new profile"),
    ("knockknock-genprofile --rotate alice --grace 1", "'1' is not a time such as 12h, 7d or 2w"),
    ("knockknock-genprofile --rotate alice --ports tcp/1", "--ports: does not go with --rotate"),
    ("knockknock-genprofile --list alice", "NAME: does not go with --list"),
    ("knockknock-genprofile --list --revoke alice", "--revoke: not allowed with argument --list"),
    ("knockknock-genprofile --revoke alice --for server", "--for: does not go with --revoke"),
    ("knockknock --enroll host", "--enroll: does not go with HOST"),
    ("knockknock --list -p 22", "--list: does not go with -p"),
    ("knockknock --replace -p 22 host", "--replace: goes with --enroll only"),
    ("knockknock --doctor", "HOST"),
    ("knockknock --doctor --list host", "--list: not allowed with argument --doctor"),
    ("knockknock-daemon --doctor --check", "doctor goes without"),
    ("knockknock-daemon --pcap x", "go with doctor"),
    ("knockknock-daemon doctor --daemonize", "doctor goes without"),
    ("knockknock-daemon doktor", "argument MODE: invalid choice: 'doktor'"),
    ("knockknock-genprofile revoke", "revoke: name the profile"),
    ("knockknock-genprofile revoke alice --list", "say one of list, revoke, rotate and show-line"),
    ("knockknock-genprofile list --qr", "--qr: does not go with --list"),
    ("knockknock-daemon --doctor --wait 0", "--wait: a number of seconds"),
    ("knockknock-daemon --doctor --sent-from me", "--sent-from: 'me' is no IP address"),
    ("knockknock-daemon extra", "extra"),
    ("knockknock-daemon --config", "--config"),
    ("knockknock-daemon --pid-file /x", "--pid-file goes with --daemonize"),
    ("knockknock-daemon --blocked --check", "--blocked and --unblock are each used alone"),
    ("knockknock-daemon --blocked --unblock 192.0.2.7", "--blocked and --unblock are each used alone"),
    ("knockknock-daemon --prometheus", "--prometheus goes with --blocked"),
    ("knockknock-daemon --nonsense", "--nonsense"),
]


@pytest.mark.parametrize(("line", "named"), USAGE, ids=[line for line, _ in USAGE])
def test_usage_error(tmp_path: Path, line: str, named: str) -> None:
    name, *words = line.split()
    assert named in sentence(name, *words, home=tmp_path, status=2)
    assert tree(tmp_path) == {}


# knockknock: sends a knock


@pytest.fixture
def home(reachable: str) -> Iterator[Path]:
    """A home that anybody may enter and nobody owns, with a profile for a host that there is a way to."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        sender = profile(reachable, ports="tcp/22,udp/53")
        write_profile(place / ".knockknock", sender, 5)
        if os.geteuid() == 0:
            for path in (place, *place.rglob("*")):
                os.chown(path, NOBODY, NOBODY)
        yield place


def counter_of(home: Path, host: str) -> str:
    return (home / ".knockknock" / host / "counter").read_text()


def test_no_profile_for_the_host(home: Path, reachable: str) -> None:
    write_profile(home / ".knockknock", profile("another.example.org"))
    for host in ("server.example.org", "..", ".", "a/b", f"../.knockknock/{reachable}", "-x"):
        said = sentence("knockknock", "--dry-run", "-p", "22", "--", host, home=home)
        assert f"there is no profile {home}/.knockknock/{host}; there are: {reachable}, another.example.org." in said
    for words in (
        ["--", ""],
        [""],
        ["-4", ""],
        ["", "--", reachable],
        ["", "--", "ssh", "x"],
    ):  # as of a shell's variable that is not set
        said = sentence("knockknock", "--dry-run", "-p", "22", *words, home=home, status=2)
        assert said == "the following arguments are required: HOST"


def test_a_program_without_a_name(home: Path, reachable: str) -> None:
    said = sentence("knockknock", "-p", "22", reachable, "--", "", home=home, status=2)
    assert said == "the name of a PROGRAM is expected after --"


def test_no_profiles_at_all(tmp_path: Path) -> None:
    assert "there are: none" in sentence("knockknock", "--dry-run", "-p", "22", "server", home=tmp_path)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    "spelling", ["server.example.org", "SERVER.example.org", "server.example.org.", "Server.Example.Org."]
)
def test_spellings_of_a_host(tmp_path: Path, spelling: str) -> None:
    write_profile(tmp_path, profile("server.example.org"))
    assert knock.find_profile(str(tmp_path), spelling).name == "server.example.org"
    with pytest.raises(ProfileError):
        knock.find_profile(str(tmp_path), spelling + "x")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-p", "23"], "may not open tcp/23; it may: tcp/22, udp/53"),
        (["-p", "22/udp"], "may not open udp/22; it may: tcp/22, udp/53"),
        (["-p", "22", "-p", "53"], "may not open tcp/53"),
        (["-p", "23", "--close"], "may not close tcp/23"),
        (["-p", "22", "-6"], "does not resolve as IPv6"),
    ],
)
def test_requests_that_are_not_sent(home: Path, reachable: str, words: list[str], says: str) -> None:
    before = tree(home)
    assert says in sentence("knockknock", "--dry-run", *words, reachable, home=home)
    assert tree(home) == before


@pytest.mark.parametrize("words", [["-p", "22/udp"], ["-p", "22", "--close"]])
def test_what_a_classic_profile_cannot_say(tmp_path: Path, words: list[str]) -> None:
    write_profile(tmp_path / ".knockknock", profile("127.0.0.1", "classic"))
    assert "format classic can only open TCP ports" in sentence(
        "knockknock", "--dry-run", *words, "127.0.0.1", home=tmp_path
    )


def test_a_name_that_does_not_resolve(tmp_path: Path) -> None:
    write_profile(tmp_path / ".knockknock", profile("nosuch.invalid"), 5)
    before = tree(tmp_path)
    said = sentence("knockknock", "--dry-run", "-p", "22", "nosuch.invalid", home=tmp_path)
    assert said.startswith("'nosuch.invalid' does not resolve")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example.org"])
def test_a_name_that_is_none(tmp_path: Path, host: str) -> None:
    write_profile(tmp_path / ".knockknock", profile(host))
    assert f"'{host}' does not resolve" in sentence("knockknock", "--dry-run", "-p", "22", host, home=tmp_path)


DAMAGE = [
    ("config", "[main]\nknock_port = 4242\nformat = compakt\n", "config:3: format: 'compakt' is not one of"),
    ("config", "knock_port = 4242\n", "config:1: "),
    ("config", "[main]\n\nknockport = 4242\n", "config:3: there is no key 'knockport'"),
    ("config", None, "config cannot be read: No such file or directory"),
    ("cipher.key", "secret stuff\n", "cipher.key: not a key"),
    ("mac.key", "", "mac.key: not a key"),
    ("mac.key", None, "mac.key cannot be read: No such file or directory"),
    ("counter", "five\n", "counter does not hold a counter"),
    ("counter", None, "counter"),  # --dry-run wants it as much
    ("counter", f"{2**64}\n", "counter: all counters are used up"),
]


@pytest.mark.parametrize(("file", "text", "says"), DAMAGE, ids=[says for _, _, says in DAMAGE])
def test_damaged_profile(home: Path, reachable: str, file: str, text: str | None, says: str) -> None:
    path = home / ".knockknock" / reachable / file
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    said = sentence("knockknock", "--dry-run", "-p", "22", reachable, home=home)
    assert f"{path.parent}/{says}" in said
    assert "secret stuff" not in said


def test_more_knocks_than_counters(home: Path, reachable: str) -> None:
    path = home / ".knockknock" / reachable / "counter"
    path.write_text(f"{2**64 - 1}\n")
    code, output, complaint = run("knockknock", "--dry-run", "-p", "22", "-p", "22", reachable, home=home)
    assert code == 1
    assert output.count("open tcp/22, counter ") == 1
    assert "all counters are used up" in complaint


def test_dry_run_needs_no_root_and_uses_no_counter(home: Path, reachable: str, nobody: int) -> None:
    before = tree(home / ".knockknock")
    words = ["--dry-run", "-p", "22", "-p", "53/udp", reachable]
    code, output, complaint = run("knockknock", *words, home=home, user=nobody)
    assert (code, complaint) == (0, "")
    lines = output.splitlines()
    assert lines[0].startswith("open tcp/22, counter 5: ")
    assert lines[1].startswith("open udp/53, counter 6: ")
    assert all(f" to {reachable} port 4242, " in line for line in lines)
    assert len(lines) == 2
    assert tree(home / ".knockknock") == before


def test_dry_run_of_a_close(home: Path, reachable: str) -> None:
    code, output, _ = run("knockknock", "--dry-run", "--close", "-p", "22", reachable, home=home)
    assert code == 0
    assert output.startswith("close tcp/22, counter 5: ")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_a_host_that_is_this_machine(tmp_path: Path, host: str) -> None:
    """The first thing that somebody tries: the loopback has an MTU like no other network."""
    write_profile(tmp_path / ".knockknock", profile(host), 5)
    code, output, complaint = run("knockknock", "--dry-run", "-p", "22", host, home=tmp_path)
    assert (code, complaint) == (0, "")
    assert output.startswith("open tcp/22, counter 5: ")
    assert ("flow label" if "::1 port" in output else "IP ID") in output


def test_settings_by_host(home: Path, reachable: str) -> None:
    """The name alone is enough."""
    (home / ".knockknock" / "config").write_text(f"Host near\n  HostName {reachable}\n  Ports 22 53/udp\n")
    code, output, complaint = run("knockknock", "--dry-run", "near", home=home)
    assert (code, complaint) == (0, "")
    assert [line.partition(",")[0] for line in output.splitlines()] == ["open tcp/22", "open udp/53"]
    assert len(run("knockknock", "--dry-run", "-p", "22", "near", home=home)[1].splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        ("Ports 22\nColour red\n", 0o600, "config:2: there is no keyword 'colour'"),
        ("Ports 22\n", 0o620, "config may be written by others, who could change what you knock with: chmod go-w"),
        ("Ports 22\nSource 1.2.3\n", 0o600, "'1.2.3' is no address that a knock could come from"),
        (
            "Ports 22\nSource 203.0.113.9\n",
            0o600,
            "203.0.113.9 is not an address of this machine",
        ),
        ("Ports 22\nProfile other\n", 0o600, "there is no profile"),
        ("Ports 22\nSource ::1\nAddressFamily inet\n", 0o600, "::1 is of another IP version"),
    ],
)
def test_bad_settings(home: Path, reachable: str, text: str, mode: int, says: str) -> None:
    path = home / ".knockknock" / "config"
    path.write_text(text)
    os.chown(path, -1, NOBODY)
    path.chmod(mode)
    before = tree(home / ".knockknock")
    assert says in sentence("knockknock", "--dry-run", reachable, home=home)
    assert tree(home / ".knockknock") == before


def test_a_mistyped_host_names_the_profiles(home: Path, reachable: str) -> None:
    said = sentence("knockknock", "serverr", home=home)
    assert f"there is no profile {home}/.knockknock/serverr; there are: {reachable}" in said


@pytest.mark.parametrize("port", ["22", "22/tcp", "tcp/22", "TCP/22"])
def test_both_notations_of_a_port(home: Path, reachable: str, port: str) -> None:
    for words in (["-p", port], []):
        (home / ".knockknock" / "config").write_text(f'Ports {port}   # "the usual\n')
        code, output, complaint = run("knockknock", "--dry-run", *words, reachable, home=home)
        assert (code, complaint) == (0, "")
        assert output.startswith("open tcp/22, ")


def test_a_file_that_begins_with_a_byte_order_mark(home: Path, reachable: str) -> None:
    (home / ".knockknock" / "config").write_text("Ports 22\n", encoding="utf-8-sig")
    config = home / ".knockknock" / reachable / "config"
    config.write_text(config.read_text(), encoding="utf-8-sig")
    assert run("knockknock", "--dry-run", reachable, home=home)[0] == 0


def test_profiles_are_listed_and_enrolled_where_nobody_else_may_write(home: Path) -> None:
    place = home / ".knockknock"
    place.chmod(0o777)
    line = enrolment.encode(profile("server.example"), 0)
    for words in (["--list"], ["--enroll"]):
        done = subprocess.run(
            [sys.executable, str(ROOT / "bin" / "knockknock"), *words],
            env={"HOME": str(home), "PATH": os.environ["PATH"]},
            input=line,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert f"chmod go-w {place}" in done.stderr
    assert not (place / "server.example").exists()


@pytest.mark.parametrize("name", ["", "HOST", "HOST/config", "HOST/mac.key", "HOST/counter"])
def test_what_others_may_write_to_is_not_used(home: Path, reachable: str, name: str) -> None:
    path = home / ".knockknock" / name.replace("HOST", reachable)
    os.chown(path, -1, NOBODY)
    path.chmod(0o770)
    said = sentence("knockknock", "--dry-run", "-p", "22", reachable, home=home)
    assert f"may be written by others, who could change what you knock with: chmod go-w {str(path).rstrip('/')}" in said


def test_a_group_of_ones_own_may_write(home: Path, reachable: str) -> None:
    """The umask of Debian 13, and of users of Fedora, is 002, and each user has a group with nobody else in it."""
    primary = {user.pw_gid for user in pwd.getpwall()}
    own = next(group.gr_gid for group in grp.getgrall() if not group.gr_mem and group.gr_gid not in primary)
    for path in [home / ".knockknock", *(home / ".knockknock").rglob("*")]:
        os.chown(path, -1, own)
        path.chmod(path.stat().st_mode | 0o020)
    assert run("knockknock", "--dry-run", "-p", "22", reachable, home=home)[0] == 0


def test_an_expired_profile_is_not_used(home: Path, reachable: str) -> None:
    config = home / ".knockknock" / reachable / "config"
    config.write_text(config.read_text() + "expires = 2020-01-31\n")
    before = tree(home)
    said = sentence("knockknock", "-p", "22", reachable, home=home)
    assert "expired on 2020-01-31 and opens nothing: ask for a new one" in said
    assert tree(home) == before


@pytest.mark.parametrize("number", ["SIGPIPE", "SIGXFSZ", "SIGINT"])
def test_a_program_has_its_signals_as_it_expects_them(number: str) -> None:
    script = (
        f"import sys; sys.path[:0] = [{str(ROOT)!r}]\nfrom knockknock.client.execute import become\n"
        "become(['cat', '/proc/self/status'], '/')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    ignored = int(re.findall(r"^SigIgn:\s*(\w+)$", done.stdout, re.MULTILINE)[0], 16)
    assert not ignored >> (getattr(signal, number) - 1) & 1


def test_no_family_of_addresses_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without IPv6, and a name that has an IPv6 address first."""
    real = socket.socket

    def refusing(family: int, *words: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return real(family, *words)

    monkeypatch.setattr("socket.socket", refusing)
    with pytest.raises(SendError, match="there is no way to ::1 from here: Address family not supported"):
        route.find(socket.AF_INET6, "::1", 22, "")
    with real(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        both: list[tuple[int, str]] = [(socket.AF_INET6, "::1"), (socket.AF_INET, "127.0.0.1")]
        connect.Dialer(both, port, 5, lambda address: address[1]).connect().close()


def test_explain(home: Path, reachable: str) -> None:
    code, output, complaint = run("knockknock", "--dry-run", "--explain", "-p", "22", reachable, home=home)
    assert (code, complaint) == (0, "")
    for text in ("###[ IP ]###", "###[ TCP ]###", "dport     = 4242", f"dst       = {reachable}"):
        assert text in output


@pytest.mark.parametrize("umask", [0, 0o077], ids=oct)
def test_pcap(home: Path, reachable: str, umask: int) -> None:
    """Test that the file holds knocks that a daemon would obey, and that nobody else may read it."""
    file = home / "knock.pcap"
    words = ["--dry-run", "-p", "22", "-p", "53/udp", "--pcap", str(file), reachable]
    for _ in range(2):  # the second time in place of the first
        code, _, complaint = run("knockknock", *words, home=home, umask=umask)
        assert (code, complaint) == (0, "")
    assert file.stat().st_mode & 0o7777 == 0o600
    packets = [packet[IP] for packet in rdpcap(str(file))]
    assert [packet.dst for packet in packets] == [reachable] * 2
    keeper = keeper_of([profile(ports="tcp/22,udp/53")], {"alice": 5}, 15, 20, True)
    heard = []
    for packet in packets:
        tcp = packet[TCP]
        source = socket.inet_aton(packet.src)
        event = keeper.hear(Packet(source, tcp.sport, tcp.dport, packet.id, tcp.seq, tcp.ack, tcp.window), 1.0)
        assert isinstance(event, Accepted)
        heard.append((event.counter, event.grant.order, event.grant.protocol, event.grant.port, event.grant.address))
    assert heard == [(5, Order.OPEN_ONCE, 6, 22, source), (6, Order.OPEN_ONCE, 17, 53, source)]


def test_pcap_in_place_of_a_file_that_all_may_read(home: Path, reachable: str) -> None:
    file = home / "knock.pcap"
    file.write_text("old")
    file.chmod(0o644)
    code, _, _ = run("knockknock", "--dry-run", "-p", "22", "--pcap", str(file), reachable, home=home)
    if code == 0:
        assert file.stat().st_mode & 0o077 == 0
    else:
        assert file.read_text() == "old"


def test_pcap_that_cannot_be_written(home: Path, reachable: str) -> None:
    words = ["--dry-run", "-p", "22", "--pcap", str(home / "nowhere" / "x"), reachable]
    said = sentence("knockknock", *words, home=home)
    assert said == f"--pcap {home}/nowhere/x cannot be written: No such file or directory"


def test_dry_run_shows_the_fields_of_the_packet(home: Path, reachable: str) -> None:
    """Test that the printed fields are those of the packet, as scapy reads it."""
    file = home / "knock.pcap"
    _, output, _ = run("knockknock", "--dry-run", "-p", "22", "--pcap", str(file), reachable, home=home)
    (packet,) = rdpcap(str(file))
    ip, tcp = packet[IP], packet[TCP]
    assert output == (
        f"open tcp/22, counter 5: {ip.src} port {tcp.sport} to {ip.dst} port {tcp.dport}, IP ID {ip.id}, sequence "
        f"number {tcp.seq}, acknowledgment number {tcp.ack}, window {tcp.window}, {ip.len} bytes\n"
    )


@pytest.mark.parametrize("words", [[], ["--explain"], ["--pcap", "x"]])
def test_without_scapy(home: Path, reachable: str, words: list[str]) -> None:
    """It is needed for what it draws alone, and the sentence says how to get it without what it recommends."""
    missing = home / "modules" / "scapy"
    missing.mkdir(parents=True)
    (missing / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'scapy'\", name='scapy')\n")
    line = ["knockknock", "--dry-run", *words, "-p", "22", reachable]
    if not words:
        code, output, complaint = run(*line, home=home, modules=str(missing.parent))
        assert (code, complaint) == (0, "")
        assert output.startswith("open tcp/22, ")
        return
    said = sentence(*line, home=home, modules=str(missing.parent))
    assert said == (
        "the Python package scapy is not installed: "
        "apt install --no-install-recommends python3-scapy, or pip install scapy"
    )


def test_output_that_cannot_be_written(home: Path, reachable: str) -> None:
    words = [sys.executable, str(ROOT / "bin" / "knockknock"), "--dry-run", "-p", "22", reachable]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SUDO_")}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            words, stdout=full, stderr=subprocess.PIPE, text=True, env=environment | {"HOME": str(home)}, check=False
        )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "No space left on device" in done.stderr


def test_without_the_right_to_send(home: Path, reachable: str, nobody: int) -> None:
    before = tree(home / ".knockknock")
    said = sentence("knockknock", "-p", "22", reachable, home=home, user=nobody)
    for way in ("raw socket", "sudo", "net_raw"):
        assert way in said
    assert tree(home / ".knockknock") == before


INVOKER = """
import json, os, socket
from knockknock.client import raw_socket
raw = raw_socket.open_raw()
home = raw_socket.become_invoker()
regained = []
for regain in (os.setuid, os.seteuid, os.setgid, os.setegid):
    try:
        regain(0)
        regained.append(regain.__name__)
    except PermissionError:
        pass
try:
    os.setgroups([0])
    regained.append("setgroups")
except PermissionError:
    pass
try:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    regained.append("raw")
except PermissionError:
    pass
status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
print(json.dumps({
    "home": home, "uids": os.getresuid(), "gids": os.getresgid(), "groups": os.getgroups(), "regained": regained,
    "capabilities": int(status["CapPrm"], 16) | int(status["CapEff"], 16), "raw": raw[socket.AF_INET].type,
}))
"""


def invoked(tmp_path: Path, **environment: str) -> dict[str, object]:
    """Run become_invoker() as root in an environment; return what is left of root: ids, groups, rights."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("SUDO_")}
    clean |= {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    words = [sys.executable, "-c", INVOKER]
    done = subprocess.run(words, env=clean | environment, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


@needs_root
def test_under_sudo_root_is_gone_for_good(tmp_path: Path, daemon_user: pwd.struct_passwd) -> None:
    uid, gid = daemon_user.pw_uid, daemon_user.pw_gid
    assert invoked(tmp_path, SUDO_UID=str(uid), SUDO_GID="0", SUDO_USER="root") == {
        "home": daemon_user.pw_dir,
        "uids": [uid] * 3,
        "gids": [gid] * 3,
        "groups": [gid],
        "regained": [],
        "capabilities": 0,
        "raw": int(socket.SOCK_RAW),
    }


@needs_root
@pytest.mark.parametrize("uid", ["someone", "-1", "99999999999999999999", "0x0"])
def test_root_that_cannot_be_given_up(home: Path, reachable: str, uid: str) -> None:
    code, _, said = run("knockknock", "-p", "22", reachable, home=home, SUDO_UID=uid)
    assert code == 1
    assert said == f"knockknock: root cannot be given up: SUDO_UID={uid} is no user of this machine\n"


@needs_root
@pytest.mark.parametrize("uid", [None, "", "0"])
def test_without_sudo_the_home_is_that_of_the_environment(tmp_path: Path, uid: str | None) -> None:
    after = invoked(tmp_path, **({} if uid is None else {"SUDO_UID": uid}))
    assert (after["home"], after["uids"]) == (str(tmp_path), [0, 0, 0])


# knockknock-genprofile: mints a client's keys


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """A directory with a configuration that keeps everything in it."""
    (tmp_path / "config").write_text(f"[main]\nprofiles = {tmp_path}/etc/profiles\nstate = {tmp_path}/var\n")
    return tmp_path


def mint(server: Path, *words: str, user: int | None = None) -> tuple[int, str, str]:
    return run("knockknock-genprofile", *words, "--config", str(server / "config"), home=server, user=user)


@pytest.mark.usefixtures("daemon_user")
@pytest.mark.parametrize(
    ("words", "format", "ports", "size"),
    [
        ([], "compact", "tcp/22", 32),
        (["--format", "stealth", "--ports", "udp/51820,tcp/1-9", "--bind-source"], "stealth", "udp/51820,tcp/1-9", 32),
        (["--format", "classic", "--ports", "tcp/443"], "classic", "tcp/443", 16),
    ],
)
def test_minted(server: Path, words: list[str], format: str, ports: str, size: int) -> None:
    code, output, complaint = mint(server, "alice", "4242", *words)
    assert (code, complaint) == (0, "")
    assert output.startswith(f"Made alice in {server}/etc/profiles.\n")
    made = files.load_profile(f"{server}/etc/profiles/alice")
    assert isinstance(made, Profile)
    bound = "--bind-source" in words
    assert made == Profile(
        "alice", made.cipher_key, made.mac_key, 4242, format, parse_ports(ports), bound, legacy=False
    )
    assert (len(made.cipher_key), len(made.mac_key)) == (size, size)
    assert counters.server_memory(f"{server}/var", f"{server}/etc/profiles", made) == 0
    assert tree(server / "var") == {"alice": b"0\n"}, "in the state directory there is a counter and no key"
    assert enrolment.decode(output.splitlines()[-1]) == (made._replace(name=socket.gethostname()), 0)
    assert f"sudo knockknock -p {'51820/udp' if bound else ports.partition('/')[2]} " in output


@pytest.mark.usefixtures("daemon_user")
def test_no_two_profiles_have_the_same_keys(server: Path) -> None:
    for name in ("alice", "bob"):
        assert mint(server, name, "4242")[0] == 0
    made = [one for one in load_profiles(f"{server}/etc/profiles")[0] if isinstance(one, Profile)]
    keys = [key for one in made for key in (one.cipher_key, one.mac_key)]
    assert len(set(keys)) == 4


@pytest.mark.usefixtures("daemon_user")
@pytest.mark.parametrize("name", ["../alice", "a b", ".alice", "a/b", "", "x" * 65, "ä", "alice\n"])
def test_bad_names(server: Path, name: str) -> None:
    before = tree(server)
    code, output, complaint = mint(server, name, "4242")
    assert (code, output) == (1, "")
    assert "cannot name a profile: take up to 64 letters" in complaint
    assert tree(server) == before


@pytest.mark.usefixtures("daemon_user")
def test_an_existing_name(server: Path) -> None:
    assert mint(server, "alice", "4242")[0] == 0
    counters.store_counter(f"{server}/var/alice", 9)
    before = tree(server)
    code, output, complaint = mint(server, "alice", "4243")
    assert (code, output) == (1, "")
    assert f"there is a profile {server}/etc/profiles/alice already" in complaint
    assert tree(server) == before


LISTENERS = [
    (socket.AF_INET, "0.0.0.0"),
    (socket.AF_INET, "127.0.0.1"),
    (socket.AF_INET6, "::"),
    (socket.AF_INET6, "::1"),
]


@pytest.mark.usefixtures("daemon_user")
@pytest.mark.parametrize(("family", "address"), LISTENERS, ids=[address for _, address in LISTENERS])
def test_a_port_where_a_service_listens(server: Path, family: socket.AddressFamily, address: str) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as service:
        service.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        service.bind((address, 0))
        service.listen()
        port = service.getsockname()[1]
        before = tree(server)
        code, output, complaint = mint(server, "alice", str(port))
        assert (code, output) == (1, "")
        assert f"a service of this machine listens on port {port}: " in complaint
        assert tree(server) == before
    assert mint(server, "alice", str(port))[0] == 0


REFUSED_CONFIGS = [
    ("user = nosuchuser\n", "there is no user nosuchuser for the daemon to become: useradd"),
    ("user = root\n", "the user root is root"),
    ("delay = never\n", "config:4: delay: 'never' is not a whole number"),
    ("dealy = 5\n", "config:4: there is no key 'dealy'"),
]


@needs_root
@pytest.mark.parametrize(("line", "says"), REFUSED_CONFIGS)
def test_configurations_that_nothing_can_be_minted_with(server: Path, line: str, says: str) -> None:
    with (server / "config").open("a") as file:
        file.write(line)
    before = tree(server)
    code, output, complaint = mint(server, "alice", "4242")
    assert (code, output) == (1, "")
    assert says in complaint
    assert tree(server) == before


def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    for name, words in (("knockknock-genprofile", ["alice", "4242"]), ("knockknock-daemon", ["--check"])):
        said = sentence(name, *words, "--config", "nowhere", home=tmp_path)
        assert "nowhere cannot be read: No such file or directory; name the configuration with --config" in said


@pytest.mark.parametrize("words", [[], ["--check"], ["--daemonize", "--pid-file", "pid"]])
def test_a_daemon_with_a_bad_configuration(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "config").write_text("[main]\ndelay = 15\nerror_window = 0\n")
    said = sentence("knockknock-daemon", *words, "--config", "config", home=tmp_path)
    assert said == f"{tmp_path}/config:3: error_window: '0' is not a whole number from 1 to 1000"
    assert sorted(tree(tmp_path)) == ["config"]


def test_minting_takes_root(home: Path, nobody: int) -> None:
    (home / "config").write_text(f"[main]\nprofiles = {home}/profiles\nstate = {home}/var\n")
    before = tree(home)
    words = ["alice", "4242", "--config", "config"]
    said = sentence("knockknock-genprofile", *words, home=home, user=nobody)
    assert said == f"it must be run as root, to write {home}/profiles"
    assert tree(home) == before


def test_the_daemon_takes_root(home: Path, nobody: int) -> None:
    (home / "config").write_text(f"[main]\nprofiles = {home}/profiles\nstate = {home}/var\n")
    before = tree(home)
    said = sentence("knockknock-daemon", "--config", "config", home=home, user=nobody)
    assert said.startswith("it must be started as root")
    assert tree(home) == before


@pytest.mark.usefixtures("daemon_user")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "KNOCKPORT"),
        (["4242", "--sequence", "1,2"], "say one of KNOCKPORT, --sequence, --one-time and --import-one-time"),
        (
            ["--one-time", "3", "--import-one-time", "x"],
            "say one of KNOCKPORT, --sequence, --one-time and --import-one",
        ),
        (["4242", "--close", "1,2"], "argument --close: goes with --sequence, --one-time or --import-one-time"),
        (["4242", "--delay", "3601"], "argument --delay: '3601' is not a whole number from 1 to 3600"),
        (["--sequence", "1,2", "--format", "stealth"], "argument --format: does not go with --sequence"),
        (["--sequence", "1"], "argument --sequence: a sequence has 2 to 32 ports, not 1"),
        (["--one-time", "0"], "argument --one-time: '0' is not a whole number from 1 to 1000"),
        (["4242", "--otp-layout", "pknock"], "argument --otp-layout: goes with --scheme otp"),
        (["--sequence", "1,2", "--scheme", "otp"], "argument --scheme: does not go with --sequence"),
        (["4242", "--scheme", "otp", "--bind-source"], "argument --bind-source: does not go with --scheme otp"),
        (["4242", "--scheme", "otp", "--expires", "2099-01-01"], "--expires: does not go with --scheme otp"),
        (["4242", "--scheme", "otp", "--out", "line"], "argument --out: does not go with --scheme otp"),
        (["4242", "--scheme", "otp", "--ports", "tcp/1-17"], "at most 16"),
    ],
)
def test_sequences_that_make_no_sense(server: Path, words: list[str], says: str) -> None:
    code, output, complaint = mint(server, "alice", *words)
    assert (code, output) == (2, "")
    assert says in complaint
    assert not (server / "etc" / "profiles" / "alice").exists()


@pytest.mark.usefixtures("daemon_user")
def test_a_sequence_is_minted(server: Path) -> None:
    assert mint(server, "alice", "--sequence", "7,8", "--close", "7,8")[0] == 1, "both the same"
    code, output, complaint = mint(server, "alice", "--sequence", "2002,2001:udp", "--ports", "tcp/22,udp/53")
    assert (code, complaint) == (0, "")
    assert "    knockknock " in output
    assert "2001" not in output
    place = server / "etc" / "profiles" / "alice"
    assert [file.name for file in place.iterdir()] == ["config"]
    assert place.joinpath("config").stat().st_mode & 0o777 == 0o640
    assert "ports = tcp/2002, udp/2001\nopens = tcp/22, udp/53\n" in (place / "config").read_text()
    place.joinpath("config").chmod(0o644)
    with pytest.raises(ProfileError, match="everybody on this machine may read"):
        files.load_profile(str(place))


KNOCKD = """# knockd's own file, with what it has used up
#2002,2001:udp,2004
#03, 2001:udp
 2005,2001:UDP, 2007:tcp
 2008:udp,2009
"""


@pytest.mark.usefixtures("daemon_user")
def test_one_time_sequences_of_knockd_are_imported(server: Path) -> None:
    """Sequences that knockd has used up are left out, and the others stay in their order."""
    listing = server / "list"
    listing.write_text(KNOCKD)
    code, output, complaint = mint(
        server, "alice", "--import-one-time", str(listing), "--ports", "tcp/22", "--delay", "9"
    )
    assert (code, complaint) == (0, "")
    assert "Stop knockd: " in output
    place = server / "etc" / "profiles" / "alice"
    assert (place / "sequences").read_text() == "tcp/2005, udp/2001, tcp/2007\nudp/2008, tcp/2009\n"
    assert "one_time = sequences\nopens = tcp/22\n" in (place / "config").read_text()
    assert "delay = 9\n" in (place / "config").read_text()
    assert files.load_profile(str(place)).knock_ports == {(6, 2005), (17, 2001), (6, 2007), (17, 2008), (6, 2009)}
    for text, says in (
        ("#1,2\n", f"{listing}: there is no sequence in it"),
        ("1,2\n2\n", f"{listing}:2: a sequence has 2 to 32 ports, not 1"),
        ("1,2:sctp\n", f"{listing}:1: 'sctp' is not a protocol"),
        ("1,2\n3,4\n 1,2\n", f"{listing}:3: this is the sequence of line 1"),
        ("".join(f"{number + 1},1\n" for number in range(1001)), "has 1001 sequences"),
        (None, f"--import-one-time {listing} cannot be read: No such file or directory"),
    ):
        listing.unlink() if text is None else listing.write_text(text)
        code, output, complaint = mint(server, "bob", "--import-one-time", str(listing))
        assert (code, output) == (1, "")
        assert says in complaint
    assert not (server / "etc" / "profiles" / "bob").exists()


@pytest.mark.usefixtures("daemon_user")
def test_a_delay_is_the_servers_business(server: Path) -> None:
    """It is in the profile, also after a rotation, and not in the client's line, which older clients are to take."""
    code, output, complaint = mint(server, "alice", "4242", "--delay", "60", "--for", "server.example")
    assert (code, complaint) == (0, "")
    place = server / "etc" / "profiles" / "alice"
    assert "delay = 60\n" in (place / "config").read_text()
    assert enrolment.decode(output.splitlines()[-1])[0].delay is None
    done = command("knockknock-genprofile", "--rotate", "alice", "--config", str(server / "config"), home=server)
    assert done.returncode == 0, done.stderr
    assert "delay = 60\n" in (place / "config").read_text()
    assert enrolment.decode(done.stdout.splitlines()[-1])[0].delay is None


@pytest.mark.usefixtures("daemon_user")
def test_one_time_passwords_are_minted(server: Path, home: Path) -> None:
    """Two secrets, in files that others may not read; a dry run of the client shows what openssl makes of them."""
    code, output, complaint = mint(server, "alice", "4000", "--scheme", "otp", "--ports", "tcp/22,tcp/80")
    assert (code, complaint) == (0, "")
    assert "    knockknock " in output
    place = server / "etc" / "profiles" / "alice"
    assert sorted(file.name for file in place.iterdir()) == ["closesecret", "config", "opensecret"]
    assert "source = nflog" in output
    secrets = [(place / file).read_text() for file in ("opensecret", "closesecret")]
    assert secrets[0] != secrets[1]
    assert {len(secret.strip()) for secret in secrets} == {28}
    assert all(secret.strip() not in output for secret in secrets)
    assert {file.stat().st_mode & 0o777 for file in place.iterdir()} == {0o640}
    shutil.copytree(place, home / ".knockknock" / "127.0.0.1")
    for options, secret in (([], secrets[0]), (["--close"], secrets[1])):
        minute = int(time.time()) // 60
        done = command("knockknock", "--dry-run", *options, "127.0.0.1", home=home)
        message = b"knockknock-otp-1" + bytes(10) + b"\xff\xff" + bytes([127, 0, 0, 1])
        made = [
            subprocess.run(
                ["openssl", "dgst", "-r", "-sha256", "-mac", "HMAC", "-macopt", f"key:{secret.strip()}"],
                input=message + when.to_bytes(4, "big"),
                capture_output=True,
                check=True,
            ).stdout[:64]
            for when in (minute, minute + 1)
        ]
        assert done.stdout in [f"udp/4000 {one.decode()}\n" for one in made], done.stderr


@needs_root
def test_a_qr_code_that_a_reader_reads(server: Path) -> None:
    """Test that another program reads the code when its characters are turned into pixels, two for each."""
    code, output, complaint = mint(server, "alice", "4242", "--for", "server.example", "--qr")
    assert (code, complaint) == (0, "")
    rows = [row for row in output.splitlines() if row and set(row) <= set(" \u2580\u2584\u2588")]
    width = len(rows[0])
    image = Image.new("L", (width, 2 * len(rows)))
    for y, row in enumerate(rows):
        for x, character in enumerate(row):
            image.putpixel((x, 2 * y), 255 if character in "\u2580\u2588" else 0)
            image.putpixel((x, 2 * y + 1), 255 if character in "\u2584\u2588" else 0)
    drawn = image.resize((width * 4, 8 * len(rows)), Image.Resampling.NEAREST)
    only = zxingcpp.BarcodeFormats(zxingcpp.BarcodeFormat.QRCode)  # its dots may look like a bar code of another kind
    found = zxingcpp.read_barcodes(drawn, formats=only)
    assert [enrolment.decode(one.text) for one in found] == [enrolment.decode(output.splitlines()[-1])]


@needs_root
def test_a_qr_code_without_what_draws_it(server: Path) -> None:
    (server / "none").mkdir()
    (server / "none" / "segno.py").write_text("raise ModuleNotFoundError(name='segno')\n")
    words = ["alice", "4242", "--qr", "--config", str(server / "config")]
    said = sentence("knockknock-genprofile", *words, home=server, modules=str(server / "none"))
    assert said == "--qr takes the Python package segno: apt install python3-segno"
    assert not (server / "etc").exists()


def enrolled(home: Path, text: str, *words: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "bin" / "knockknock"), "--enroll", *words],
        input=text,
        capture_output=True,
        text=True,
        env={"HOME": str(home), "PATH": os.environ["PATH"]},
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def test_enrolled(tmp_path: Path) -> None:
    made = profile("server.example", ports="udp/51820")
    text, place = enrolment.encode(made, 7), tmp_path / ".knockknock" / "server.example"
    code, output, complaint = enrolled(tmp_path, f"> {text[:70]}\r\n> {text[70:]}\r\n")
    assert (code, complaint) == (0, "")
    assert f"Wrote {place}: knocks at port 4242, may open udp/51820." in output
    assert "knockknock -p 51820/udp server.example" in output
    assert files.load_profile(str(place)) == made
    assert counters.read_counter(f"{place}/counter") == 7
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / ".knockknock").rglob("*")}
    names = ("cipher.key", "mac.key", "config", "counter")
    assert modes == {"server.example": 0o700, **dict.fromkeys(names, 0o600)}


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    place = tmp_path / ".knockknock" / "server.example"
    one = profile("server.example")
    other = enrolment.encode(one._replace(mac_key=bytes(32)), 0)
    assert enrolled(tmp_path, enrolment.encode(one, 0))[0] == 0
    counters.store_counter(f"{place}/counter", 5)
    before = tree(tmp_path)
    for words in ([], ["--replace"]):
        code, output, complaint = enrolled(tmp_path, enrolment.encode(one, 0), *words)
        assert (code, output) == (1, "")
        assert "this very profile" in complaint, "its counter would begin anew"
    code, _, complaint = enrolled(tmp_path, other)
    assert (code, "say --replace" in complaint) == (1, True)
    assert tree(tmp_path) == before
    assert enrolled(tmp_path, other, "--replace")[0] == 0
    replaced = files.load_profile(str(place))
    assert isinstance(replaced, Profile)
    assert replaced.mac_key == bytes(32)
    assert counters.read_counter(f"{place}/counter") == 0
    assert os.listdir(tmp_path / ".knockknock") == ["server.example"]


@pytest.mark.parametrize("text", ["", "hello\n", enrolment.encode(profile("a"), 0)[:-3], "x" * 100_000, "\udcff"])
def test_a_paste_that_is_none_leaves_nothing(tmp_path: Path, text: str) -> None:
    code, output, complaint = enrolled(tmp_path, text.encode("utf-8", "replace").decode())
    assert (code, output, complaint.count("\n")) == (1, "", 1)
    assert tree(tmp_path) == {}


def test_a_paste_into_a_terminal_is_not_shown(tmp_path: Path) -> None:
    text = enrolment.encode(profile("server.example"), 0)
    child, terminal = pty.fork()
    if child == 0:
        os.environ["HOME"] = str(tmp_path)
        os.execv(sys.executable, [sys.executable, str(ROOT / "bin" / "knockknock"), "--enroll"])
    shown = b""
    while b"ends): " not in shown:
        shown += os.read(terminal, 1000)
    os.write(terminal, f"{text[:90]}\n{text[90:]}\n".encode())
    with contextlib.suppress(OSError):  # the end of a terminal
        while more := os.read(terminal, 1000):
            shown += more
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, shown
    os.close(terminal)
    assert text[20:60].encode() not in shown
    assert b"Wrote " in shown


def test_profiles_of_a_client_are_listed(tmp_path: Path) -> None:
    assert "There is no profile in" in run("knockknock", "--list", home=tmp_path)[1]
    for name in ("server.example", "10.0.0.1"):
        assert enrolled(tmp_path, enrolment.encode(profile(name), 7))[0] == 0
    code, output, complaint = run("knockknock", "--list", home=tmp_path)
    assert (code, complaint) == (0, "")
    assert [line.split() for line in output.splitlines()[1:]] == [
        ["10.0.0.1", "tcp/4242", "compact", "7", "never", "tcp/22"],
        ["server.example", "tcp/4242", "compact", "7", "never", "tcp/22"],
    ]
    (tmp_path / ".knockknock" / "10.0.0.1" / "mac.key").unlink()
    code, output, complaint = run("knockknock", "--list", home=tmp_path)
    assert (code, output.count("\n")) == (1, 2)
    assert "10.0.0.1: " in complaint


def test_the_doctor_knows_knocks_without_a_raw_socket(home: Path) -> None:
    """An address of this machine: the way there is always good, and nothing is sent."""
    place = home / ".knockknock" / "127.0.0.1"
    place.mkdir(parents=True)
    (place / "config").write_text("[main]\nscheme = sequence\nports = tcp/2002, udp/2001\nopens = tcp/22\n")
    (place / "config").chmod(0o600)
    place.chmod(0o700)
    code, output, complaint = run("knockknock", "--doctor", "127.0.0.1", home=home)
    assert (code, complaint) == (0, ""), output
    assert "needs no raw socket" in output
    assert "2 packet(s) would leave, to tcp/2002, udp/2001" in output
    (place / "config").chmod(0o640)
    code, output, complaint = run("knockknock", "--doctor", "127.0.0.1", home=home)
    assert (code, "a group may read the keys" in output) == (1, True)


# What knockknock 0.8 has left


SUDO = """
import os, pwd, sys
sys.path.insert(0, {root!r})
from knockknock.client import knock, raw_socket
from knockknock.profiles import files, legacy
from knockknock.errors import ProfileError, SendError
legacy._PLACE = {place!r}
entry = pwd.getpwnam("nobody")
pwd.getpwuid = lambda uid: entry
home = raw_socket.become_invoker()
try:
    knock.find_any({home!r} + "/.knockknock", "server.example")
except ProfileError as error:
    print(error)
"""


@needs_root
def test_profiles_that_sudo_left_with_root_are_said_to_be_there(tmp_path: Path) -> None:
    """And the command that it names moves them, with their counters, to who knocks."""
    place, home = tmp_path / "root" / ".knockknock", tmp_path / "home"
    write_profile(place, profile("server.example"), 7)
    place.parent.chmod(0o700)
    home.mkdir()
    code = SUDO.format(root=str(ROOT), place=str(place), home=str(home))
    environment = {"SUDO_UID": str(NOBODY), "SUDO_USER": "nobody", "PATH": os.environ["PATH"]}
    let_in(tmp_path)
    words = [sys.executable, "-c", code]
    said = subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout
    assert "there are: none. Root has profiles of its own, where sudo left those of knockknock 0.8: sudo sh -c " in said
    move = said.partition("0.8: sudo ")[2]
    subprocess.run(move, shell=True, check=True)
    assert subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout == ""
    assert tree(place) == {}
    moved = home / ".knockknock" / "server.example"
    assert {path.stat().st_uid for path in (moved, *moved.iterdir())} == {NOBODY}
    assert counters.read_counter(str(moved / "counter")) == 7


def test_who_has_his_own_hears_nothing_of_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_profile(tmp_path, profile("other.example"))
    monkeypatch.setattr(legacy, "_found", ["server.example"])
    with pytest.raises(ProfileError, match=r"there are: other.example. Mint one"):
        knock.find_any(str(tmp_path), "third.example")
    with pytest.raises(ProfileError, match="Root has profiles of its own"):
        knock.find_any(str(tmp_path), "server.example")


@pytest.mark.parametrize(
    ("name", "new"),
    [
        ("john@laptop", "john-laptop"),
        ("_old", "old"),
        ("it's mine", "it-s-mine"),
        ("@", "profile"),
        ("é" * 99, "profile"),
    ],
)
def test_a_name_of_old_gets_its_rename(tmp_path: Path, name: str, new: str) -> None:
    write_profile(tmp_path / "profiles", profile(name, cipher_key=bytes(16)))
    write_profile(tmp_path / "profiles", profile("taken", cipher_key=bytes(16)))
    (_, bad) = load_profiles(str(tmp_path / "profiles"))
    said = str(bad[name])
    assert "cannot name a profile: take up to 64 letters" in said
    subprocess.run(said[said.index(": mv ") + 2 :], shell=True, check=True)
    assert [one.name for one in load_profiles(str(tmp_path / "profiles"))[0]] == sorted([new, "taken"])


def test_a_rename_takes_nobodys_place(tmp_path: Path) -> None:
    for name in ("john@laptop", "john-laptop", "john-laptop-2"):
        write_profile(tmp_path, profile(name))
    assert str(load_profiles(str(tmp_path))[1]["john@laptop"]).endswith(
        f"mv {tmp_path}/john@laptop {tmp_path}/john-laptop-3"
    )


def test_a_counter_that_another_knock_replaces_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_profile(tmp_path, profile("server"), 5)
    listed = os.listdir(tmp_path / "server")
    monkeypatch.setattr(os, "listdir", lambda path: [*listed, ".counter.new"])
    knock.check_profile(str(tmp_path / "server"))
