"""knockknock-proxy in front of a real web server behind a real closed door, asked by curl and by a browser."""

import contextlib
import fcntl
import json
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from knockknock.profiles import files
from knockknock.profiles.counters import read_counter

from ..helpers import NOBODY, VIEW
from . import web
from .lab import KNOCK_PORT, ROOT, Daemon, Lab, inside, until

HOST = "door.test"
WEB = 8080
PROXY = 1080
SOCKS5H = ("--proxy", f"socks5h://127.0.0.1:{PROXY}", f"http://{HOST}:{WEB}/picture/0.svg")
AS_NOBODY = (
    "setpriv",
    f"--reuid={NOBODY}",
    f"--regid={NOBODY}",
    "--clear-groups",
    "--inh-caps=-all,+net_raw",
    "--ambient-caps=-all,+net_raw",
)
"""As the systemd unit starts it: a user with the one capability."""


class Proxy:
    """A proxy that runs on a lab's client, for nobody's profiles."""

    def __init__(self, lab: Lab, *options: str, prefix: tuple[str, ...] = AS_NOBODY) -> None:
        self.lab = lab
        self.log_path = lab.directory / f"proxy-{len(lab.processes)}.log"
        program = [str(VIEW["python"]), str(VIEW["root"] / "bin" / "knockknock-proxy")]
        with self.log_path.open("w") as log:
            self.process = lab.start(
                "client", *prefix, *program, "--debug", *options, stdout=log, stderr=log, env=lab.environment()
            )
        until(lambda: "listening at" in self.log() or self.process.poll() is not None, 10)

    def log(self) -> str:
        return self.log_path.read_text()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(10)


TAP = f"""
table inet tap {{
    set said {{ typeof tcp sequence . tcp window; size 65535; flags dynamic; }}
    chain before {{
        type filter hook prerouting priority raw
        tcp dport {KNOCK_PORT} counter add @said {{ tcp sequence . tcp window }}
    }}
}}
"""


class House:
    """A lab with a web server behind a door, and a daemon."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.hosts = Path("/etc/netns") / lab.ns("client")
        self.hosts.mkdir(parents=True)
        (self.hosts / "hosts").write_text(
            f"127.0.0.1 localhost\n10.77.0.1 {HOST} open.test shut.test both.test\nfd77:0::1 six.test both.test\n"
        )
        self.requests = lab.directory / "requests"
        self.requests.touch()
        lab.mint("nobody", "--ports", f"tcp/{WEB}", hosts=(HOST,), many=True)
        self.hand_over(HOST)
        for port in (WEB, 8081):
            lab.start("server", sys.executable, web.__file__, str(port), str(self.requests))
        lab.run("server", "nft", "add", "rule", "inet", "guard", "input", "tcp", "dport", "8081", "accept")
        self.daemon: Daemon = lab.daemon()

    def hand_over(self, host: str) -> None:
        """Give the profile, with the server's counter, to nobody."""
        there = self.lab.hand_over("nobody", host)
        (there / "counter").write_text(Path(f"{self.lab.settings['state']}/nobody").read_text())
        for path in (self.lab.home / ".knockknock", there, *there.iterdir()):
            shutil.chown(path, NOBODY, NOBODY)

    def curl(self, *words: str, check: bool = True) -> str:
        """Run curl on the client; return what it prints."""
        done = self.lab.run("client", "curl", "-sS", "--max-time", "30", *words, check=check)
        return done.stdout if check else done.stdout + done.stderr

    def asked(self) -> list[str]:
        """Paths that the web server was asked for."""
        return [line.split()[0] for line in self.requests.read_text().splitlines()]

    def accepted(self) -> int:
        """Knocks that the daemon has accepted: it answers when all that has opened a door is counted."""
        words = ["status", "--json", "--config", f"{self.lab.directory}/etc/config"]
        said = json.loads(self.lab.run("server", *self.lab.program("knockknock-daemon"), *words).stdout)
        return int(said["knocks"]["accepted"])

    @contextlib.contextmanager
    def no_counter_twice(self) -> Iterator[None]:
        """Every counter that is taken meanwhile is in one knock on the wire, and in no other.

        What a profile says with one counter about one port is the same each time, so equal knocks would be one counter.
        """
        counter = self.lab.home / ".knockknock" / HOST / "counter"
        before = read_counter(str(counter))
        # Counted by the kernel, which misses none on a busy machine, as a capture does.
        self.lab.run("server", "nft", "-f", "-", text=TAP)
        try:
            yield
            taken = read_counter(str(counter)) - before
            until(lambda: self.knocks_on_the_wire()[0] >= taken)
            assert self.knocks_on_the_wire() == (taken, taken)
        finally:
            self.lab.run("server", "nft", "delete", "table", "inet", "tap")

    def knocks_on_the_wire(self) -> tuple[int, int]:
        """Number of knocks on the wire, and number of those that differ."""
        listed = self.lab.run("server", "nft", "list", "table", "inet", "tap").stdout
        packets = re.search(r"counter packets (\d+)", listed)
        assert packets
        return int(packets[1]), len(re.findall(r"\d+ \. \d+", listed))

    def close(self) -> None:
        shutil.rmtree(self.hosts)


def knock_by_nobody() -> list[str]:
    """The command with which the same user knocks from the shell."""
    return [*AS_NOBODY, str(VIEW["python"]), str(VIEW["root"] / "bin" / "knockknock"), "-p", str(WEB), HOST]


@pytest.fixture(scope="module")
def house(nobody: int) -> Iterator[House]:
    lab = Lab()
    try:
        lab.guard("nftables")
        one = House(lab)
        try:
            yield one
            assert one.daemon.stop() == 0
        finally:
            one.close()
    finally:
        lab.close()


@pytest.fixture(scope="module")
def proxy(house: House) -> Iterator[Proxy]:
    one = Proxy(house.lab)
    yield one
    assert one.stop() == 0, one.log()
    assert "Traceback" not in one.log()


@pytest.mark.parametrize(
    "way",
    [
        ["--proxy", f"socks5h://127.0.0.1:{PROXY}"],
        ["--proxy", f"socks4a://127.0.0.1:{PROXY}"],
        ["--proxytunnel", "--proxy", f"http://127.0.0.1:{PROXY}"],
    ],
    ids=["socks5h", "socks4a", "connect"],
)
def test_curl(house: House, proxy: Proxy, way: list[str]) -> None:
    before = house.accepted()
    assert house.curl(*way, f"http://{HOST}:{WEB}/").startswith("<!doctype html>"), proxy.log()
    assert house.accepted() == before + 1, "one connection takes one knock"
    assert not house.lab.connects("10.77.0.1", WEB), "the door is open to others"


def test_git_and_nc(house: House, proxy: Proxy) -> None:
    """The README's lines; nc is what it lets ssh use."""
    setting = f"http.http://{HOST}:{WEB}/.proxy=socks5h://127.0.0.1:{PROXY}"
    listed = house.lab.run("client", "git", "-c", setting, "ls-remote", f"http://{HOST}:{WEB}/repository").stdout
    assert "refs/heads/main" in listed
    words = ["nc", "-X", "5", "-x", f"127.0.0.1:{PROXY}", HOST, str(WEB)]
    answer = house.lab.run("client", *words, text="GET /picture/0.svg HTTP/1.0\r\n\r\n").stdout
    assert answer.endswith(web.PICTURE.decode())


def test_address_and_large(house: House, proxy: Proxy) -> None:
    """SOCKS5 with an address, of either family, has that address's profile; and all of a long answer arrives."""
    for address, shown in (("10.77.0.1", "10.77.0.1"), ("fd77::1", "[fd77::1]")):
        shutil.rmtree(house.lab.home / ".knockknock" / HOST)
        house.hand_over(address)
        text = house.curl("--socks5", f"127.0.0.1:{PROXY}", f"http://{shown}:{WEB}/large")
        assert text == "x" * 3_000_000
        shutil.rmtree(house.lab.home / ".knockknock" / address)
        house.hand_over(HOST)


def test_without_profile_nothing_is_knocked(house: House, proxy: Proxy) -> None:
    before = house.accepted()
    assert house.curl("--proxy", f"socks5h://127.0.0.1:{PROXY}", "http://open.test:8081/").startswith("<!doctype")
    assert house.curl("--proxy", f"socks5h://127.0.0.1:{PROXY}", "http://[fd77::1]:8081/").startswith("<!doctype")
    assert house.curl("--proxy", f"socks5h://127.0.0.1:{PROXY}", f"http://{HOST}:8081/").startswith("<!doctype"), (
        "a port that the profile may not open is passed through"
    )
    assert house.accepted() == before


def test_many_at_once_and_the_shell(house: House, proxy: Proxy) -> None:
    """200 connections, each with a knock of its own, while the same user knocks from the shell, too."""
    with house.no_counter_twice(), ThreadPoolExecutor(206) as pool:
        pages = [pool.submit(house.curl, *SOCKS5H) for _ in range(200)]
        shell = [pool.submit(house.lab.run, "client", *knock_by_nobody()) for _ in range(5)]
        assert {page.result() for page in pages} == {web.PICTURE.decode()}, proxy.log()
        assert all(done.result().returncode == 0 for done in shell)
    assert "not obeyed" not in house.daemon.log()


def browse(house: House, *options: str) -> str:
    """The page as a browser on the client has it when all is loaded."""
    with tempfile.TemporaryDirectory(prefix="knockknock-browser-") as data:
        done = house.lab.run(
            "client",
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={data}",
            *options,
            "--dump-dom",
            f"http://{HOST}:{WEB}/",
        )
    return done.stdout


@pytest.mark.parametrize(
    "how", [f"--proxy-server=socks5://127.0.0.1:{PROXY}", f"--proxy-pac-url=http://127.0.0.1:{PROXY}/proxy.pac"]
)
def test_browser(house: House, proxy: Proxy, how: str) -> None:
    """A page with 50 pictures, each behind a knock of its own, while the same user knocks from the shell."""
    before = len(house.asked())
    stop = False

    def shell() -> int:
        knocks = 0
        while not stop:
            assert house.lab.run("client", *knock_by_nobody()).returncode == 0
            knocks += 1
        return knocks

    with house.no_counter_twice(), ThreadPoolExecutor(1) as pool:
        knocking = pool.submit(shell)
        try:
            page = browse(house, how)
        finally:
            stop = True
        assert knocking.result() > 0
    assert f"<title>{web.PICTURES} pictures</title>" in page, proxy.log()
    assert len(set(house.asked()[before:])) == web.PICTURES + 1


def test_one_knock_serves_all_where_the_door_is_not_for_one_use(house: House, proxy: Proxy) -> None:
    """The server's copy of the profile says so, and the client's."""
    configs = [Path(house.lab.settings["profiles"]) / "nobody/config", house.lab.home / ".knockknock" / HOST / "config"]
    before = [config.read_text() for config in configs]
    try:
        for config, text in zip(configs, before, strict=True):
            config.write_text(text + "single_use = no\n")
        house.daemon.reload()
        until(lambda: "reloaded" in house.daemon.log())
        knocks = house.accepted()
        with ThreadPoolExecutor(20) as pool:
            pages = pool.map(house.curl, *zip(*[SOCKS5H] * 20, strict=True))
            assert set(pages) == {web.PICTURE.decode()}
        assert house.accepted() == knocks + 1
        until(lambda: not house.lab.connects("10.77.0.1", WEB))
        assert house.curl(*SOCKS5H) == web.PICTURE.decode(), "and when it is over, the next has its own"
    finally:
        for config, text in zip(configs, before, strict=True):
            config.write_text(text)
        house.daemon.reload()
        until(lambda: house.daemon.log().count("reloaded") == 2)
        until(lambda: not house.lab.connects("10.77.0.1", WEB))


def test_lost_knock(house: House, proxy: Proxy) -> None:
    """Every second knock is lost on its way, the first of them at once."""
    chain = "add table inet loss; add chain inet loss before { type filter hook prerouting priority -300; }"
    house.lab.run("server", "nft", chain)
    try:
        lose = f"add rule inet loss before tcp dport {KNOCK_PORT} numgen inc mod 2 == 0 drop"
        house.lab.run("server", "nft", lose)
        assert house.curl(*SOCKS5H) == web.PICTURE.decode()
    finally:
        house.lab.run("server", "nft", "delete table inet loss")


def test_other_family_when_one_is_broken(house: House, proxy: Proxy) -> None:
    """A name with both families: what goes to the first of them is lost, and the other is taken; then at once."""
    house.hand_over("both.test")
    house.lab.run(
        "server",
        "nft",
        "add table inet loss; add chain inet loss before { type filter hook prerouting priority -300; }",
    )
    try:
        house.lab.run("server", "nft", f"add rule inet loss before ip6 daddr fd77::1 tcp dport {KNOCK_PORT} drop")
        before = house.accepted()
        for _ in range(3):
            assert house.curl(*SOCKS5H[:2], f"http://both.test:{WEB}/picture/0.svg") == web.PICTURE.decode()
        assert house.accepted() == before + 3
    finally:
        house.lab.run("server", "nft", "delete table inet loss")
        shutil.rmtree(house.lab.home / ".knockknock" / "both.test")
        house.hand_over(HOST)


def test_profile_that_is_locked_holds_up_no_other(house: House, proxy: Proxy) -> None:
    """A knock from the shell that hangs has the lock of its own profile; who waits for that one gets an answer."""
    there, config = (house.lab.home / ".knockknock" / name for name in ("six.test", "config"))
    house.hand_over("six.test")
    config.write_text("Host six.test\n Timeout 1\n")
    with files.directory_fd(str(there)) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = house.lab.start("client", "curl", "-s", *SOCKS5H[:2], f"http://six.test:{WEB}/")
        try:
            until(lambda: "wants six.test port" in proxy.log())
            assert house.curl(*SOCKS5H, "--max-time", "5") == web.PICTURE.decode()
            assert waiting.wait(10) == 97
            until(lambda: "six.test: somebody else knocks with it" in proxy.log())
        finally:
            waiting.kill()
            config.unlink()
            shutil.rmtree(there)


def test_settings_by_host(house: House, proxy: Proxy) -> None:
    """~/.knockknock/config means the same as for knockknock: another name, the IP version, the source."""
    config = house.lab.home / ".knockknock" / "config"
    house.lab.run("client", "ip", "address", "add", "10.77.0.9/24", "dev", "c0")
    words = [*SOCKS5H[:2], f"http://alias:{WEB}/picture/0.svg"]
    try:
        config.write_text(f"Host alias\n HostName both.test\n Profile {HOST}\n AddressFamily inet6\n")
        assert house.curl(*words) == web.PICTURE.decode(), proxy.log()
        until(lambda: f"nobody: open tcp/{WEB} for fd77::2" in house.daemon.log().splitlines()[-1])
        config.write_text(f"Host alias\n HostName both.test\n Profile {HOST}\n Source 10.77.0.9\n")
        assert house.curl(*words) == web.PICTURE.decode(), proxy.log()
        until(lambda: f"nobody: open tcp/{WEB} for 10.77.0.9" in house.daemon.log().splitlines()[-1])
        config.write_text("Host alias\n Nonsense yes\n")
        assert "curl: (97)" in house.curl(*words, check=False)
        until(lambda: "there is no keyword 'nonsense'" in proxy.log())
    finally:
        config.unlink()
        house.lab.run("client", "ip", "address", "del", "10.77.0.9/24", "dev", "c0")


def test_door_that_stays_shut(house: House) -> None:
    """Clients that wait behind a failure share it: two knocks in all, and a sentence in the log."""
    there = house.lab.home / ".knockknock" / "shut.test"
    shutil.copytree(house.lab.home / ".knockknock" / HOST, there)
    (there / "cipher.key").write_text("AAECAwQFBgcICQoLDA0ODw==\n")
    for path in (there, *there.iterdir()):
        shutil.chown(path, NOBODY, NOBODY)
    before = int((there / "counter").read_text())
    proxy = Proxy(house.lab, "--listen", "127.0.0.1:1081", "--timeout", "1.5")
    words = ["--proxytunnel", "-v", "--proxy", "http://127.0.0.1:1081", f"http://shut.test:{WEB}/"]
    with ThreadPoolExecutor(5) as pool:
        said = list(pool.map(lambda _: house.curl(*words, check=False), range(5)))
    assert all("504" in text for text in said)
    assert int((there / "counter").read_text()) == before + 2
    until(lambda: " WARNING " in proxy.log())
    said = [line for line in proxy.log().splitlines() if " WARNING " in line]
    assert len(said) == 1
    assert f"shut.test port {WEB} did not open within 1.5 s" in said[0]
    assert proxy.stop() == 0
    shutil.rmtree(there)


def test_a_client_that_has_closed_its_own_end(house: House, proxy: Proxy) -> None:
    """It may still listen: what it wants is knocked for."""
    with inside(house.lab.ns("client")):
        caller = socket.socket()
    with caller:
        caller.settimeout(10)
        caller.connect(("127.0.0.1", 1080))
        caller.sendall(b"CONNECT door.test:8080 HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.0\r\nHost: a\r\n\r\n")
        caller.shutdown(socket.SHUT_WR)
        said = b""
        while more := caller.recv(65536):
            said += more
    assert said.startswith(b"HTTP/1.1 200 Connection established"), said[:200]
    assert b"HTTP/1.0 200 OK" in said


def test_profile_that_cannot_be_read(house: House, proxy: Proxy) -> None:
    """An error in a sentence, never a connection without a knock."""
    config = house.lab.home / ".knockknock" / HOST / "config"
    text = config.read_text()
    config.write_text(text + "nonsense = yes\n")
    try:
        answer = house.curl(*SOCKS5H, check=False)
    finally:
        config.write_text(text)
    assert "curl: (97)" in answer
    until(lambda: "nonsense" in proxy.log())


def test_beyond_loopback(house: House) -> None:
    """With words and a password only; another machine gets connections for it, and no list of hosts."""
    secret = house.lab.home / "login"
    secret.write_text("me:secret\n")
    secret.chmod(0o600)
    shutil.chown(secret, NOBODY, NOBODY)
    words = ["--listen", "0.0.0.0:1082", "--listen-beyond-loopback", "--login-file", str(secret)]
    proxy = Proxy(house.lab, *words)

    def ask(host: str, *words: str) -> str:
        done = house.lab.run(host, "curl", "-sS", "--max-time", "10", *words, check=False)
        return done.stdout + done.stderr

    url = f"http://10.77.0.1:{WEB + 1}/picture/0.svg"
    assert ask("server", "--proxy", "socks5h://me:secret@10.77.0.2:1082", url) == web.PICTURE.decode()
    assert ask("server", "--proxytunnel", "--proxy", "http://me:secret@10.77.0.2:1082", url) == web.PICTURE.decode()
    for scheme in ("socks5h://", "socks5h://me:wrong@", "socks4a://", "http://me:wrong@"):
        assert "curl: (" in ask("server", "--proxytunnel", "--proxy", f"{scheme}10.77.0.2:1082", url)
    until(lambda: "10.77.0.1: a wrong name or password" in proxy.log())
    assert "for this machine" in ask("server", "-u", "me:secret", "http://10.77.0.2:1082/proxy.pac")
    assert "FindProxyForURL" in ask("client", "-u", "me:secret", "http://127.0.0.1:1082/proxy.pac")
    assert "secret" not in proxy.log()
    assert proxy.stop() == 0


def test_modules_that_a_knock_takes_are_there_before_root_is_gone(house: House, tmp_path: Path) -> None:
    """Root's own Python, in a directory that nobody may enter."""
    modules = tmp_path / "roots"
    shutil.copytree(ROOT / "knockknock", modules / "knockknock")
    modules.chmod(0o700)
    code = f"import sys; sys.path.insert(0, {str(modules)!r}); from knockknock.cli.proxy import main; main()"
    words = ["--listen", "127.0.0.1:1090", "--user", "nobody", "--profiles", str(house.lab.home / ".knockknock")]
    log = house.lab.directory / "roots.log"
    with log.open("w") as file:
        house.lab.start("client", sys.executable, "-c", code, *words, stderr=file, env=house.lab.environment())
    until(lambda: "listening at" in log.read_text(), 10)
    assert "<svg" in house.curl("--proxy", "socks5h://127.0.0.1:1090", *SOCKS5H[2:])
