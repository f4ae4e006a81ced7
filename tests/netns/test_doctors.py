"""Both doctors name the right reason, in cases that really happen; and they change nothing."""

import re
import subprocess
from pathlib import Path

import pytest

from knockknock.profiles.counters import read_counter

from .lab import KNOCK_PORT, Lab

HOST, HOST6 = "10.77.0.1", "fd77:0::1"


@pytest.fixture
def served(lab: Lab) -> Lab:
    """A lab with a service, a daemon, and a client with a profile."""
    return serve(lab)


def serve(lab: Lab) -> Lab:
    """Start a service and a daemon, and give the client a profile."""
    lab.listen(22)
    lab.mint("laptop")
    lab.daemon()
    for key in lab.home.glob(".knockknock/*/*.key"):
        key.chmod(0o600)
    return lab


def client_file(lab: Lab, name: str, host: str = HOST) -> Path:
    return lab.home / ".knockknock" / host / name


def next_counter(lab: Lab) -> int:
    return read_counter(f"{lab.directory}/state/laptop")


def knocked(lab: Lab, *words: str, host: str = HOST, options: tuple[str, ...] = ()) -> tuple[int, str]:
    """Status and output of the server's doctor when the client knocks as soon as it waits."""
    command = [*lab.program("knockknock-daemon"), "--config", lab.configure(), "--doctor", "--wait", "20", *words]
    doctor = lab.start("server", *command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert doctor.stdout
    said = ""
    while "knock now" not in said:
        said += doctor.stdout.readline()
    lab.knock(host, *options)
    rest, _ = doctor.communicate(timeout=30)
    return doctor.returncode, said + rest


def rewrite(lab: Lab, family: str, statement: str) -> None:
    """Have the client's own kernel change what it sends, as a box on the way would."""
    chain = f"chain out {{\ntype filter hook output priority 0;\ntcp dport {KNOCK_PORT} {statement}\n}}"
    lab.run("client", "nft", "-f", "-", text=f"table {family} box {{\n{chain}\n}}\n")


@pytest.mark.kernel_log
@pytest.mark.parametrize("host", [HOST, HOST6])
def test_all_is_well(lab: Lab, host: str) -> None:
    lab.configure(source="kmsg")
    served = serve(lab)
    code, said = knocked(served, host=host)
    assert "laptop: asks to open tcp/22, counter 0; it is good" in said
    assert said.count("\nok: ") == 3, said
    assert "bad" not in said
    assert code == 0
    assert served.opens(host), "the doctor has not taken it from the daemon"
    assert next_counter(served) == 1


def test_with_every_firewall(walled: Lab) -> None:
    walled.mint("laptop")
    daemon = walled.daemon()
    code, said = knocked(walled)
    assert code == 0, said
    assert "ok: its rules are in the firewall" in said
    daemon.stop()
    code, said = knocked(walled)
    assert code == 1
    assert "bad: its rules are not in the firewall" in said


def test_wrong_keys(served: Lab) -> None:
    client_file(served, "mac.key").write_text("AAECAwQFBgcICQoLDA0ODw==\n")
    code, said = knocked(served)
    assert "laptop: not its knock: other keys, or a counter further than 10000" in said
    assert "nothing of this opens" in said
    assert code == 1
    assert next_counter(served) == 0


@pytest.mark.parametrize(
    ("counter", "says"),
    [
        (2, "counter 2; its counter is behind: the server accepts 5 and later"),
        (24, "counter 24; it is good"),
        (25, "counter 25; its counter is too far ahead: of 5 and the 20 counters from there (error_window)"),
        (9000, "counter 9000; its counter is too far ahead"),
    ],
)
def test_counters(lab: Lab, counter: int, says: str) -> None:
    lab.mint("laptop")
    (lab.directory / "state" / "laptop").write_text("5\n")
    lab.daemon()
    client_file(lab, "counter").write_text(f"{counter}\n")
    assert says in knocked(lab)[1]


def read(lab: Lab, name: str, *words: str) -> tuple[int, str]:
    """Status and output of the server's doctor on a capture file."""
    command = [*lab.program("knockknock-daemon"), "--config", lab.configure(), "--doctor"]
    done = lab.run("server", *command, "--pcap", f"{lab.directory}/{name}", *words, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def test_a_file_that_is_not_sent(served: Lab) -> None:
    config = client_file(served, "config")
    text = config.read_text()
    config.write_text(text.replace("tcp/22", "tcp/80"))
    words = [*served.program("knockknock"), "--dry-run", "--pcap", f"{served.directory}/knock.pcap", HOST]
    served.run("client", *words, "-p", "80")
    assert "asks to open tcp/80, counter 0; not permitted, it may: tcp/22" in read(served, "knock.pcap")[1]
    config.write_text(text)
    served.run("client", *words, "-p", "22")
    code, said = read(served, "knock.pcap")
    assert (code, "counter 0; it is good" in said) == (0, True)
    assert next_counter(served) == 0
    server = Path(served.settings["profiles"]) / "laptop" / "config"
    for line, says in (
        ("expires = 2020-01-01", "the profile expired on 2020-01-01"),
        ("bind_source = yes", "the client's config says bind_source = no, the server's yes"),
        ("counter = clock", "not its knock"),
    ):
        server.write_text(f"{text}{line}\n")
        code, said = read(served, "knock.pcap")
        assert (code, says in said) == (1, True), said
    server.write_text(text.replace("compact", "classic"))
    assert "the client's config says format = compact, the server's classic" in read(served, "knock.pcap")[1]


@pytest.mark.parametrize(("name", "says"), [("config", "is no capture file"), ("nowhere", "No such file or directory")])
def test_files_that_are_none(served: Lab, name: str, says: str) -> None:
    (served.directory / "config").write_text("[main]\n")
    code, said = read(served, name)
    assert (code, says in said) == (1, True), said


REWRITTEN = [
    (HOST, "ip", "ip id set 4711", "compact", r"rewritten: IP ID \(sent \d+, came 4711\)"),
    (HOST, "ip", "tcp sequence set 1", "compact", r"rewritten: sequence \(sent \d+, came 1\)"),
    (HOST, "ip", "tcp window set 1000", "compact", r"window \(sent \d+, came 1000\); format stealth does not use it"),
    (HOST, "ip", "ip id set 4711", "stealth", r"rewritten: IP ID \(sent \d+, came 4711\)"),
    (HOST6, "ip6", "ip6 flowlabel set 4711", "compact", r"rewritten: flow label \(sent \d+, came 4711\)"),
    (
        HOST,
        "ip",
        "tcp ackseq set 7",
        "compact",
        r"wrote an acknowledgment number into it \(7\)|is 7, that of a knock is 0",
    ),
]


@pytest.mark.parametrize(("host", "family", "statement", "format", "says"), REWRITTEN)
def test_rewritten(lab: Lab, host: str, family: str, statement: str, format: str, says: str) -> None:
    lab.mint("laptop", "--format", format)
    lab.daemon()
    rewrite(lab, family, statement)
    code, said = knocked(lab, host=host)
    assert re.search(says, said), said
    assert code == 1
    assert (lab.directory / "state" / "laptop").read_text() == "0\n"


def test_the_source_behind_nat(lab: Lab) -> None:
    lab.mint("laptop", "--bind-source")
    lab.daemon()
    rule = "type nat hook postrouting priority 100;\nip daddr 10.77.0.1 snat to 10.77.0.9"
    nat = f"table ip box {{\nchain post {{\n{rule}\n}}\n}}\n"
    lab.run("client", "nft", "-f", "-", text=nat)
    lab.run("client", "ip", "address", "add", "10.77.0.9/24", "dev", "c0")
    code, said = knocked(lab)
    assert "from 10.77.0.9 to port 4242" in said
    assert "perhaps its knock with counter 0, for port 22, from another address" in said
    client = lab.run("client", *lab.program("knockknock"), "--doctor", HOST, check=False).stdout
    own = re.findall(r"to 10\.77\.0\.1 there is a way, from ([0-9.]+),", client)[0]
    code, said = knocked(lab, "--sent-from", own)
    assert "counter 1; the source was rewritten (NAT), and the profile binds it" in said
    assert code == 1
    code, said = knocked(lab, options=("--source", "10.77.0.9"))
    assert "counter 2; it is good" in said
    assert code == 0


@pytest.mark.kernel_log
def test_no_daemon_no_rule_no_line(lab: Lab) -> None:
    lab.configure(source="kmsg")
    lab.mint("laptop")
    code, said = knocked(lab)
    assert code == 1
    assert "counter 0; it is good" in said
    for bad in ("no daemon runs", "its rules are not in the firewall", "no LOG line came for it"):
        assert f"bad: {bad}" in said


def test_nothing_arrives(served: Lab) -> None:
    command = [*served.program("knockknock-daemon"), "--config", served.configure(), "--doctor", "--wait", "0.2"]
    done = served.run("server", *command, check=False)
    assert done.returncode == 1
    assert "no SYN to a knock port arrived within 0 s: something on the way refuses it" in done.stderr


def test_a_knock_of_the_machine_itself_is_none(served: Lab) -> None:
    """The kernel does not log it, so the doctor does not call it good."""
    served.run("server", "nft", "insert rule inet guard input iif lo accept")
    words = ["--config", served.configure(), "--doctor", "--wait", "2"]
    doctor = served.start(
        "server", *served.program("knockknock-daemon"), *words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert doctor.stdout
    while "knock now" not in doctor.stdout.readline():
        pass
    served.run("server", *served.program("knockknock"), "-p", "22", HOST)
    said = doctor.communicate(timeout=20)[0]
    assert "or it is this very machine" in said
    assert doctor.returncode == 1


def visit(lab: Lab, *words: str) -> tuple[int, str]:
    """Status and output of the client's doctor."""
    done = lab.run("client", *lab.program("knockknock"), "--doctor", *words, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout


def test_the_client_is_well(served: Lab) -> None:
    code, said = visit(served, HOST)
    assert code == 0
    assert "bad:" not in said
    for good in (
        "a raw socket is allowed (root)",
        "the next counter is 0",
        "10.77.0.1 is 10.77.0.1",
        "from 10.77.0.2, MTU 1500",
        f"open tcp/22, counter 0, would leave as a SYN to port {KNOCK_PORT}: IP ID 0x",
    ):
        assert good in said
    assert "the IP ID (in IPv6 the flow label), the sequence number and the window" in said
    assert client_file(served, "counter").read_text() == "0\n"
    assert next_counter(served) == 0


@pytest.mark.parametrize(
    ("address", "route", "host", "says"),
    [
        ("192.0.0.4/29", "10.77.0.1 dev c0 src 192.0.0.4", HOST, "192.0.0.4 is the address of a translator (464XLAT"),
        ("10.0.2.100/24", "10.77.0.1 via 10.0.2.2 dev c0 src 10.0.2.100", HOST, "10.0.2.100 is behind a user-mode net"),
        ("10.9.9.9/24", "", "64:ff9b::c000:207", "64:ff9b::c000:207 is IPv4 behind a translator (NAT64, RFC 6052)"),
    ],
    ids=["464XLAT", "slirp", "NAT64"],
)
def test_a_way_on_which_packets_are_made_anew(lab: Lab, address: str, route: str, host: str, says: str) -> None:
    """It names the scheme that works there."""
    lab.mint("laptop", hosts=(host,))
    lab.run("client", "ip", "address", "add", address, "dev", "c0")
    if route:
        lab.run("client", "ip", "route", "add", *route.split())
    code, said = visit(lab, host)
    assert code == 1
    assert f"bad:  {says}" in said
    assert "take a profile by --sequence or --scheme otp" in said


@pytest.mark.parametrize(("address", "host"), [("10.88.0.2/24", HOST), ("fd88::2/64", "fd77:0::1")])
def test_a_tun_is_named(lab: Lab, address: str, host: str) -> None:
    """Nobody can tell what the program behind it does, so it is a note."""
    lab.mint("laptop", hosts=(host,))
    lab.run("client", "ip", "tuntap", "add", "dev", "kktun", "mode", "tun")
    lab.run("client", "ip", "address", "add", address, "dev", "kktun", *(["nodad"] if ":" in address else []))
    lab.run("client", "ip", "link", "set", "kktun", "up")
    lab.run("client", "ip", "route", "add", host, "dev", "kktun", "src", address.partition("/")[0])
    assert "note: packets leave by kktun, a tun device" in visit(lab, host)[1]


def test_a_translator_that_the_resolver_tells_of(lab: Lab) -> None:
    """Its prefix may be of any length, and a private one (RFC 6052, RFC 7050)."""
    host = "fd00::64:c0:2:100:0"  # 192.0.2.1
    lab.mint("laptop", hosts=(host,))
    names = lab.directory / "hosts"
    names.write_text("fd00:0:0:64:c0:0:aa00:0 ipv4only.arpa\n")
    command = " ".join([*lab.program("knockknock"), "--doctor", host])
    inside = f"mount --bind {names} /etc/hosts; exec {command}"
    done = lab.run("client", "unshare", "--mount", "sh", "-ec", inside, check=False)
    assert f"{host} is IPv4 behind a translator (NAT64, RFC 6052): packets are made anew" in done.stdout


def test_what_the_client_may_lack(served: Lab) -> None:
    config = client_file(served, "config")
    config.write_text(config.read_text() + "expires = 2020-01-01\n")
    client_file(served, "cipher.key").chmod(0o640)
    client_file(served, "counter").write_text("x\n")
    code, said = visit(served, HOST)
    assert code == 1
    for bad in ("the profile expired on 2020-01-01", "a group may read the keys", "does not hold a counter"):
        assert re.search(f"bad: .*{bad}", said), said
    client_file(served, "cipher.key").chmod(0o644)
    assert "that everybody on this machine may read: chmod o=" in visit(served, HOST)[1]
    assert "bad:  there is no profile" in visit(served, "10.77.0.77")[1]
    served.run("client", "ip", "route", "del", "default", "via", "10.77.0.1")
    assert "there is no way to 192.0.2.1 from here" in visit(served, "192.0.2.1")[1]
    assert "may not open tcp/80; it may: tcp/22" in visit(served, "-p", "80", HOST6)[1]
