"""Every command of README.md and docs/, in their order, on new machines: fresh_machines.py says what is real there.

Before each block of code a page has a comment that says what becomes of it:

    run: on=MACHINE [at=DIRECTORY] [online]     run by bash as the user `you`
        fails               it must fail
        keep, paste         a line for a client, which it prints, is kept; that line is given to it
        until=WORD          it is at work when it says that; while it is, the next block is run, and then it must end
    file: on=MACHINE [as=root] PATH             appended to that file
    code: TEXT                                  nothing here: the text says which test looks at it

A block without one fails the test. What the text between the blocks claims is looked at in CLAIMS, what it takes for
granted is made in BEFORE, both by section.
"""

import re
import subprocess
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from .fresh_machines import Machines, Namespaces
from .lab import ROOT, Lab, until

PAGES = (
    "README.md",
    "docs/laptop.md",
    "docs/browser.md",
    "docs/firewalls.md",
    "docs/docker.md",
    "docs/install.md",
    "docs/operation.md",
    "docs/schemes.md",
    "docs/migrate.md",
    "docs/troubleshooting.md",
)
"""In the order in which somebody follows them."""
WEB = """
import http.server, ssl
server = http.server.ThreadingHTTPServer(("0.0.0.0", 443), http.server.SimpleHTTPRequestHandler)
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain("/tmp/web.crt", "/tmp/web.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""
DOCKER = """
iptables -t nat -N DOCKER
iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
iptables -t nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
iptables -t nat -A DOCKER ! -i s1 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.77.1.2:80
iptables -N DOCKER
iptables -N DOCKER-USER
iptables -P FORWARD DROP
iptables -A FORWARD -j DOCKER-USER
iptables -A FORWARD -o s1 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -A FORWARD -o s1 -j DOCKER
iptables -A FORWARD -i s1 ! -o s1 -j ACCEPT
iptables -A DOCKER -d 10.77.1.2/32 ! -i s1 -o s1 -p tcp -m tcp --dport 80 -j ACCEPT
iptables -A DOCKER-USER -j RETURN
echo 1 > /proc/sys/net/ipv4/ip_forward
"""
"""The rules of Docker 28 for `-p 8080:80` of a container 10.77.1.2 behind s1, since there may be no dockerd here."""
OLD = """
install -d -m 700 {0}
cd {0}
umask 077
printf '[main]\\nknock_port = 4243\\n' > config
echo 0 > counter
echo AAECAwQFBgcICQoLDA0ODw== > cipher.key
echo EBESExQVFhcYGRobHB0eHw== > mac.key
"""
"""A profile as knockknock 0.8 made them."""


SHOWS = {
    "sudo scripts/demo\n": (
        r"ssh without a knock: +ssh: .* timed out",
        r"IP 10\.77\.0\.2\.\d+ > 10\.77\.0\.1\.4242: Flags \[S\]",
        r"laptop: open tcp/22 for 10\.77\.0\.2",
        r"ssh now: +hello from a shell on the server",
        r"ssh once more: +ssh: .* timed out",
        r"The same packet sent again: +1 passed over by the kernel, which has told the daemon of 1 in all",
        r"ssh after the replay: +ssh: .* timed out",
        r"Three seconds later, ssh: +ssh: .* timed out",
    )
}
"""What a block prints, in its order."""


class Block(NamedTuple):
    page: str
    section: str
    line: int
    mark: str
    text: str


def blocks(text: str, page: str = "") -> Iterator[Block]:
    """All blocks of code in the text of a page, indented or fenced, each with the comment before it, or without any."""
    section = mark = ""
    found: list[str] = []
    fence = False
    begin = 0
    last = ""
    for number, line in enumerate([*text.splitlines(), "end"], 1):
        inside = fence or (line.startswith("    ") and (found or not last)) or (found and not line)
        if line.startswith("```"):
            fence = not fence
            inside = True
        if inside:
            begin = begin or number
            found.append("" if line.startswith("```") else line if fence else line[4:])
        elif found:
            yield Block(page, section, begin, mark, "\n".join(found).strip("\n") + "\n")
            found, mark, begin = [], "", 0
        if not inside and line:
            heading = re.match(r"#+ (.*)", line)
            section = heading[1] if heading else section
            comment = re.fullmatch(r"<!-- ((?:run|file|code): .*) -->", line)
            mark = comment[1] if comment else ""
        last = line


def shut(machines: Machines) -> None:
    """Close the door of the last knock, if it was not used, as time does for a reader."""
    machines.good("laptop", "sudo knockknock --close -p 22 server.example")
    opened = "knockknock-daemon --status --source 10.77.0.2 | grep '^10.77.0.2 *tcp/22 '"
    until(lambda: machines.run("server", opened, user="root").returncode)


def login(machines: Machines) -> bool:
    """Return True if ssh by itself, without a knock, gets in."""
    shut(machines)
    command = f"ssh -F none -o ConnectTimeout={machines.CONNECT_TIMEOUT} server.example true"
    return machines.run("laptop", command).returncode == 0


def nothing(machines: Machines) -> None:
    pass


def empty_firewall(machines: Machines) -> None:
    """Flush all rules of others; the daemon still refuses ssh."""
    machines.good("server", "nft flush ruleset; systemctl restart knockknock", user="root")


def before_laptop(machines: Machines) -> None:
    """A web server, and a profile that somebody wants to take away."""
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout /tmp/web.key -out /tmp/web.crt"
    subject = "-subj /CN=server.example -addext subjectAltName=DNS:server.example"
    machines.good("server", f"{make} {subject} 2> /dev/null", user="root")
    certificate = machines.good("server", "cat /tmp/web.crt")
    machines.good("laptop", "cat >> /etc/ssl/certs/ca-certificates.crt", user="root", text=certificate)
    machines.good(
        "server", "cat > /tmp/web.py; cd /; setsid -f python3 /tmp/web.py > /dev/null 2>&1", user="root", text=WEB
    )
    machines.good("server", "knockknock-genprofile old-laptop 4242; systemctl reload knockknock", user="root")


def before_firewalld(machines: Machines) -> None:
    machines.good("server", "ufw disable", user="root")
    empty_firewall(machines)
    machines.good("server", "mkdir -p /run/dbus && dbus-daemon --system --fork", user="root")


def before_docker(machines: Machines) -> None:
    machines.good("server", "systemctl stop firewalld", user="root")
    empty_firewall(machines)
    machines.good("server", "nft -f /etc/nftables.conf", user="root")
    machines.good("server", DOCKER, user="root")
    assert isinstance(machines, Namespaces), "the container is another namespace"
    machines.lab.listen(80, host="other")
    assert machines.lab.connects("10.77.0.1", 8080), "a published port is open to all"


def before_old(machines: Machines) -> None:
    machines.good("server", OLD.format("/etc/knockknock.d/profiles/old"), user="root")
    machines.good("laptop", OLD.format("~/.knockknock/old.example"))


BEFORE: dict[str, Callable[[Machines], object]] = {
    "Without sudo": before_laptop,
    "None yet": empty_firewall,
    "nftables": empty_firewall,
    "ufw": empty_firewall,
    "firewalld": before_firewalld,
    "Docker": before_docker,
    "Move from knockknock 0.8": before_old,
}


def closed(machines: Machines) -> None:
    assert not login(machines), "ssh is open without a knock"


def after_docker(machines: Machines) -> None:
    assert isinstance(machines, Namespaces)
    until(lambda: not machines.lab.connects("10.77.0.1", 8080))
    take(machines, "web")
    machines.good("laptop", "knockknock -p 8080 10.77.0.1")
    assert machines.lab.opens("10.77.0.1", 8080), "a knock opens a published port"
    assert not machines.lab.connects("10.77.0.1", 8080)
    machines.good("laptop", "rm -r ~/.knockknock/10.77.0.1")
    closed(machines)
    machines.good("laptop", "ssh server.example")


def take(machines: Machines, profile: str) -> None:
    """The laptop has a profile for the server's address."""
    files = machines.good("server", f"tar -C /etc/knockknock.d/profiles/{profile} -cf - . | base64", user="root")
    place = "~/.knockknock/10.77.0.1"
    machines.good(
        "laptop", f"umask 077; mkdir {place}; base64 -d | tar --no-same-permissions -C {place} -xf -", text=files
    )


def after_passwords(machines: Machines) -> None:
    """Test that a client that has taken the profile gets in by it, without root."""
    take(machines, "tablet")
    closed(machines)
    machines.good("laptop", "knockknock 10.77.0.1; ssh -F none -o ConnectTimeout=3 server.example true")


def after_old(machines: Machines) -> None:
    said = "journalctl -u knockknock | grep 'old: open tcp/22 for 10.77.0.2'"
    machines.good("server", f'timeout 5 sh -c "until {said}; do sleep 0.1; done"', user="root")


def after_pip(machines: Machines) -> None:
    """It goes on as after the Debian package."""
    machines.good("other", "knockknock --version && knockknock-proxy --version && man -w knockknock.conf")
    first = "~you/knockknock/minimal-firewall.sh --keep 22 && knockknock-genprofile laptop 4242"
    machines.good("other", first, user="root")
    machines.good("other", "knockknock-daemon --check && systemctl enable --now knockknock", user="root")
    machines.good("other", "knockknock-daemon --status", user="root")


def after_demo(machines: Machines) -> None:
    """Root needs no sudo for it."""
    machines.good("other", "cd ~you/knockknock && scripts/demo", user="root", online=True)


CLAIMS: dict[str, Callable[[Machines], object]] = {
    "knockknock": after_demo,
    "Hide ssh in five minutes": closed,
    "ssh": closed,
    "Other programs": closed,
    "None yet": closed,
    "nftables": closed,
    "ufw": closed,
    "firewalld": closed,
    "Docker": after_docker,
    "One-time passwords, for clients of xt_pknock": after_passwords,
    "Move from knockknock 0.8": after_old,
    "Without the Debian packages": after_pip,
}


@pytest.fixture
def machines() -> Iterator[Machines]:
    lab = Lab()
    try:
        yield Namespaces(lab)
    finally:
        lab.close()


class Reader:
    """Does what the comments before the blocks say."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines
        self._line = ""
        self._at_work: list[tuple[str, subprocess.Popen[str]]] = []

    def perform(self, block: Block) -> None:
        kind, _, rest = block.mark.partition(": ")
        if kind == "code":
            return
        words = dict(word.partition("=")[::2] for word in rest.split())
        host = words.pop("on")
        text = block.text
        if kind == "file":
            user = words.pop("as", "you")
            (path,) = words
            self._machines.good(host, f"cat >> {path}", user=user, text=text)
            return
        where = f"{block.page}, line {block.line}:\n{text}"
        assert not words.keys() - {"at", "online", "fails", "keep", "paste", "until"}, where
        if "until" in words:
            self._at_work.append((where, self._machines.start(host, text, words["until"])))
            return
        if "fails" in words:
            shut(self._machines)
        given = self._line if "paste" in words else ""
        done = self._machines.run(host, text, online="online" in words, at=words.get("at", "~/knockknock"), text=given)
        assert (done.returncode != 0) == ("fails" in words), f"{where}\n{done.stdout}"
        assert re.search("(?s:.*)".join(SHOWS.get(block.text, ())), done.stdout), f"{where}\n{done.stdout}"
        if "keep" in words:
            (self._line,) = re.findall(r"^knockknock1:.*\n", done.stdout, re.MULTILINE)
        while self._at_work:
            where, process = self._at_work.pop(0)
            said, _ = process.communicate(timeout=60)
            assert process.returncode == 0, f"{where}\n{said}"


def pages() -> Iterator[Block]:
    """All blocks of all pages, in the order in which they are followed."""
    for page in PAGES:
        yield from blocks((ROOT / page).read_text(), page)


def test_every_block_is_marked() -> None:
    for block in pages():
        assert block.mark, f"{block.page}, line {block.line}: say in a comment before it how it is tested"


def test_what_is_kept_by_section_is_of_a_section_that_is_there() -> None:
    assert {block.section for block in pages()} >= BEFORE.keys() | CLAIMS.keys()
    assert {block.text for block in pages()} >= SHOWS.keys()


def test_a_mark_names_a_test_that_is_there() -> None:
    for block in pages():
        if block.mark.startswith("code: "):
            assert (ROOT / block.mark.split()[1]).is_file(), f"{block.page}, line {block.line}"


@pytest.mark.parametrize(
    "page", ["text\n\n    ls\n", "text\n\n```sh\nls\n```\n", "<!-- run: on=x -->\ntext\n\n    ls\n"]
)
def test_unmarked_blocks_are_found(page: str) -> None:
    assert [(block.mark, block.text) for block in blocks(page)] == [("", "ls\n")]


def test_pages(machines: Machines) -> None:
    """Somebody follows them from the first line to the last."""
    reader = Reader(machines)
    section = ""
    for block in pages():
        if block.section != section:
            CLAIMS.get(section, nothing)(machines)
            section = block.section
            BEFORE.get(section, nothing)(machines)
        reader.perform(block)
    CLAIMS.get(section, nothing)(machines)
