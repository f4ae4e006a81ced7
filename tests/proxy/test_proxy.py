"""The proxy's parsers, and the command on loopback: no door is needed for what is here."""

import asyncio
import base64
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knockknock.proxy import Dialect, Login, Rejected, Target, pac, peer
from knockknock.proxy.happy_eyeballs import directly, first, resolve
from knockknock.proxy.hidden_hosts import HiddenHosts
from knockknock.proxy.http import Http
from knockknock.proxy.server import ClientLimits, Server
from knockknock.proxy.socks import Socks

from ..helpers import NOBODY, VIEW, command, profile

LOGIN = Login(b"me", b"secret")
BASIC = b"Basic " + base64.b64encode(b"me:secret")
HELLO = b"\x05\x01\x00"
SOCKS = {
    "5, IPv4": (HELLO + b"\x05\x01\x00\x01\xc0\x00\x02\x07\x00\x16", b"\x05\x00", Target("192.0.2.7", 22)),
    "5, IPv6": (
        HELLO + b"\x05\x01\x00\x04\x20\x01\x0d\xb8" + bytes(11) + b"\x07\x01\xbb",
        b"\x05\x00",
        ("2001:db8::7", 443),
    ),
    "5, a name": (HELLO + b"\x05\x01\x00\x03\x0bexample.com\x00\x50", b"\x05\x00", Target("example.com", 80)),
    "4": (b"\x04\x01\x00\x50\xc0\x00\x02\x07me\x00", b"", Target("192.0.2.7", 80)),
    "4a": (b"\x04\x01\x00\x50\x00\x00\x00\x01\x00example.com\x00", b"", Target("example.com", 80)),
}
"""Written from RFC 1928 and from the descriptions of SOCKS 4 and 4a: bytes, answer, target."""


@pytest.mark.parametrize(("said", "answer", "target"), SOCKS.values(), ids=SOCKS)
def test_socks(said: bytes, answer: bytes, target: Target) -> None:
    for pieces in ([said + b"more"], [said[at : at + 1] for at in range(len(said))]):
        dialect = Socks(None)
        assert b"".join(dialect.hear(piece) for piece in pieces) == answer
        assert dialect.target == target
        assert dialect.rest == (b"more" if len(pieces) == 1 else b"")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConnectionRefusedError(111, ""), 5),
        (OSError(101, ""), 3),
        (OSError(113, ""), 4),
        (socket.gaierror(-2, ""), 4),
        (TimeoutError("no answer"), 1),
    ],
)
def test_socks_says_why(error: Exception, code: int) -> None:
    dialect = Socks(None)
    dialect.hear(SOCKS["5, IPv4"][0])
    assert dialect.failed(error) == bytes([5, code, 0, 1, 0, 0, 0, 0, 0, 0])
    dialect = Socks(None)
    dialect.hear(SOCKS["4"][0])
    assert dialect.failed(error) == b"\x00\x5b" + bytes(6)


def test_socks_granted() -> None:
    for kind, answer in (("5, a name", b"\x05\x00\x00\x01" + bytes(6)), ("4a", b"\x00\x5a" + bytes(6))):
        dialect = Socks(None)
        dialect.hear(SOCKS[kind][0])
        assert dialect.granted() == answer


@pytest.mark.parametrize("command", [2, 3], ids=["BIND", "UDP ASSOCIATE"])
def test_socks_commands_that_are_not_carried(command: int) -> None:
    with pytest.raises(Rejected) as rejected:
        Socks(None).hear(HELLO + bytes([5, command]) + b"\x00\x01\xc0\x00\x02\x07\x00\x16")
    assert rejected.value.answer.startswith(b"\x05\x00\x05\x07")


def test_socks_login() -> None:
    """RFC 1929; nothing goes without it, SOCKS 4 not at all."""
    wish = SOCKS["5, a name"][0][3:]
    dialect = Socks(LOGIN)
    assert dialect.hear(b"\x05\x02\x00\x02" + b"\x01\x02me\x06secret" + wish) == b"\x05\x02\x01\x00"
    assert dialect.target == Target("example.com", 80)
    for said, answer in (
        (b"\x05\x01\x02\x01\x02me\x06secreT" + wish, b"\x05\x02\x01\x01"),
        (b"\x05\x01\x02\x01\x02mE\x06secret" + wish, b"\x05\x02\x01\x01"),
        (b"\x05\x01\x02\x01\x02me\x00" + wish, b"\x05\x02\x01\x01"),
        (SOCKS["5, a name"][0], b"\x05\xff"),
        (SOCKS["4"][0], b""),
    ):
        dialect = Socks(LOGIN)
        with pytest.raises(Rejected) as rejected:
            dialect.hear(said)
        assert rejected.value.answer == answer
        assert dialect.target is None
        assert "secre" not in str(rejected.value)


def ask(line: str, *headers: str, login: Login | None = None, local: bool = True) -> str:
    """Return the answer to an HTTP request that leads to no connection."""
    with pytest.raises(Rejected) as rejected:
        Http(login, (lambda: "PAC") if local else None).hear("\r\n".join([line, *headers, "", ""]).encode())
    return rejected.value.answer.decode()


@pytest.mark.parametrize(
    ("authority", "target"),
    [
        ("example.com:443", ("example.com", 443)),
        ("[2001:db8::7]:22", ("2001:db8::7", 22)),
        ("192.0.2.7:1", ("192.0.2.7", 1)),
    ],
)
def test_connect(authority: str, target: tuple[str, int]) -> None:
    dialect = Http(None, None)
    said = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode()
    assert dialect.hear(said + b"more") == b""
    assert dialect.target == target
    assert dialect.rest == b"more"
    assert dialect.granted() == b"HTTP/1.1 200 Connection established\r\n\r\n"


@pytest.mark.parametrize(
    "authority", ["example.com", ":22", "a:0", "a:65536", "a:1e3", "2001:db8::7:22", "../etc:22", "a\x01:22", "a:²"]
)
def test_connect_to_nowhere(authority: str) -> None:
    with pytest.raises(Rejected) as rejected:
        Http(None, None).hear(f"CONNECT {authority} HTTP/1.1\r\nHost: a\r\n\r\n".encode("latin-1"))
    assert rejected.value.answer.startswith(b"HTTP/1.1 400 ")


def test_connect_with_content() -> None:
    assert ask("CONNECT a:1 HTTP/1.1", "Host: a", "Content-Length: 2").startswith("HTTP/1.1 400 ")


def test_what_http_failures_say() -> None:
    dialect = Http(None, None)
    dialect.hear(b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert dialect.failed(ConnectionRefusedError(111, "a port 1: Connection refused")).startswith(b"HTTP/1.1 502 ")
    dialect = Http(None, None)
    dialect.hear(b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n")
    answer = dialect.failed(TimeoutError("a port 1 did not open"))
    assert answer.startswith(b"HTTP/1.1 504 ")
    assert answer.endswith(b"knockknock-proxy: a port 1 did not open\n")


def test_http_login() -> None:
    for given_, wanted in ((BASIC, True), (BASIC.lower(), False), (b"Basic bWU6c2VjcmV", False), (b"", False)):
        dialect = Http(LOGIN, None)
        said = b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\nProxy-Authorization: " + given_ + b"\r\n\r\n"
        if wanted:
            dialect.hear(said)
            assert dialect.target == Target("a", 1)
        else:
            with pytest.raises(Rejected) as rejected:
                dialect.hear(said)
            assert rejected.value.answer.startswith(b"HTTP/1.1 407 ")
            assert b'Proxy-Authenticate: Basic realm="' in rejected.value.answer
    assert ask("GET /proxy.pac HTTP/1.1", "Host: localhost", login=LOGIN).startswith("HTTP/1.1 401 ")
    words = "GET /proxy.pac HTTP/1.1", "Host: localhost", f"Authorization: {BASIC.decode()}"
    assert ask(*words, login=LOGIN).endswith("\r\n\r\nPAC")


def test_proxy_pac() -> None:
    for host in ("127.0.0.1:1080", "localhost:1080", "[::1]:1080", "LOCALHOST"):
        answer = ask("GET /proxy.pac HTTP/1.1", f"Host: {host}")
        assert answer.startswith("HTTP/1.1 200 ")
        assert answer.endswith("\r\n\r\nPAC")
        for header in ("Content-Type: application/x-ns-proxy-autoconfig", "X-Content-Type-Options: nosniff"):
            assert header in answer
    assert "Content-Length: 3" in (answer := ask("HEAD /proxy.pac HTTP/1.1", "Host: localhost"))
    assert answer.endswith("\r\n\r\n")


@pytest.mark.parametrize(
    ("line", "header", "status"),
    [
        ("GET /proxy.pac HTTP/1.1", "Host: evil.example:1080", 403),
        ("GET /proxy.pac HTTP/1.1", "Host: 127.0.0.1.evil.example", 403),
        ("GET /proxy.pac HTTP/1.0", "Accept: */*", 403),
        ("GET /proxy.pac HTTP/1.1", "Host: localhost\r\nSec-Fetch-Site: cross-site", 403),
        ("GET /proxy.pac HTTP/1.1", "Host: localhost\r\nOrigin: https://evil.example", 403),
        ("POST /proxy.pac HTTP/1.1", "Host: localhost\r\nContent-Length: 3", 405),
        ("GET / HTTP/1.1", "Host: localhost", 404),
        ("POST / HTTP/1.1", "Host: localhost\r\nContent-Length: 300", 404),
        ("GET http://server.example/ HTTP/1.1", "Host: server.example", 501),
        ("POST http://server.example/ HTTP/1.1", "Host: server.example\r\nContent-Length: 3", 501),
        ("HEAD http://server.example/ HTTP/1.1", "Host: server.example", 501),
        ("OPTIONS * HTTP/1.1", "Host: localhost", 501),
        ("GET / HTTP/1.1", "Host", 400),
        ("NONSENSE", "", 400),
    ],
)
def test_what_a_page_can_make_a_browser_ask(line: str, header: str, status: int) -> None:
    """A page of any site may let the browser connect here; it gets neither the hosts nor a connection."""
    answer = ask(line, header)
    assert answer.startswith(f"HTTP/1.1 {status} ")
    assert "PAC" not in answer.partition("\r\n\r\n")[2].replace("/proxy.pac", "")


def test_request_without_end() -> None:
    """No more of it is kept than a request may have; 1024 bytes at a time, as they are read."""
    http, socks = Http(None, None), Socks(None)
    for piece in [b"GET / HTTP/1.1\r\nX: ", *[b"a" * 1024] * 7]:
        assert http.hear(piece) == b""
    with pytest.raises(Rejected) as rejected:
        http.hear(b"a" * 2048)
    assert rejected.value.answer.startswith(b"HTTP/1.1 431 ")
    assert socks.hear(b"\x04\x01\x00\x50\xc0\x00\x02\x07" + b"a" * 1000) == b""
    with pytest.raises(Rejected):
        socks.hear(b"a" * 1024)


def test_proxy_pac_is_for_loopback() -> None:
    assert ask("GET /proxy.pac HTTP/1.1", "Host: localhost", local=False).startswith("HTTP/1.1 403 ")


@given(
    st.binary(max_size=400), st.sampled_from([None, LOGIN]), st.sampled_from([b"", b"\x04", b"\x05", b"CONNECT a:1 "])
)
def test_any_bytes(data: bytes, login: Login | None, front: bytes) -> None:
    """They are refused, or a request, or the beginning of one."""
    makers: list[Callable[[], Dialect]] = [lambda: Socks(login), lambda: Http(login, lambda: "PAC")]
    for make in makers:
        dialect = make()
        try:
            dialect.hear(front + data or b"x")
        except Rejected:
            assert dialect.target is None or dialect.target.port


@given(st.lists(st.text(min_size=1, max_size=40)))
def test_pac_holds_any_names(names: list[str]) -> None:
    """A directory's name cannot become code."""
    text = pac.write(names, "127.0.0.1:1080", False)
    line = next(line for line in text.splitlines() if "var hosts" in line)
    assert re.fullmatch(r'    var hosts = \[("([^"\\\n]|\\["\\/bfnrtu])*"(, )?)*\];', line)
    assert line.isascii()


class Running:
    """The command, on loopback; it has no profiles unless they are put there."""

    def __init__(self, directory: Path, *options: str, user: int = NOBODY) -> None:
        self.profiles = directory / "profiles"
        self.profiles.mkdir(exist_ok=True)
        words = ["--listen", "127.0.0.1:0", "--debug", "--profiles", str(self.profiles), *options]
        program = [str(VIEW["python"]), str(VIEW["root"] / "bin" / "knockknock-proxy"), *words]
        self.log_path = directory / "log"
        with self.log_path.open("w") as log:
            environment = {**os.environ, "SUDO_UID": str(user)}
            self.process = subprocess.Popen(program, stderr=log, stdin=subprocess.DEVNULL, env=environment)
        end = time.monotonic() + 10
        while not (found := re.search(r"listening at 127.0.0.1:(\d+)", self.log())):
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < end
            time.sleep(0.01)
        self.address = "127.0.0.1", int(found[1])

    def log(self) -> str:
        return self.log_path.read_text()

    def says(self, text: str) -> None:
        """Wait for a text in the log."""
        end = time.monotonic() + 5
        while text not in self.log():
            assert time.monotonic() < end, self.log()
            time.sleep(0.01)

    def says_once(self, text: str) -> None:
        """Wait until the log has a text, and no more than once."""
        self.says(text)
        assert self.log().count(text) == 1, self.log()

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, 5)

    def through(self, target: tuple[str, int]) -> socket.socket:
        """A connection by CONNECT."""
        client = self.connect()
        client.sendall(b"CONNECT %s:%d HTTP/1.1\r\nHost: a\r\n\r\n" % (target[0].encode(), target[1]))
        answer = client.recv(100)
        assert answer == b"HTTP/1.1 200 Connection established\r\n\r\n", answer
        return client


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that anybody may look into, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="knockknock-proxy-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.fixture
def start(place: Path, nobody: int) -> Iterator[Callable[..., Running]]:
    """Starts the command."""
    started: list[Running] = []

    def one(*options: str) -> Running:
        started.append(Running(place, *options))
        return started[-1]

    yield one
    for running in started:
        if running.process.poll() is None:
            running.process.kill()
        running.process.wait()
        assert "Traceback" not in running.log()


@pytest.fixture
def echo() -> Iterator[socket.socket]:
    """A service to which connections can be made; the test accepts."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        yield listener


def everything(end: socket.socket) -> bytes:
    parts = []
    while part := end.recv(1 << 20):
        parts.append(part)
    return b"".join(parts)


def test_ends_pass_both_ways(start: Callable[..., Running], echo: socket.socket) -> None:
    """Each side may finish first, and still hears the other to its end."""
    running = start()
    for first_is_client in (True, False):
        with running.through(echo.getsockname()) as client, echo.accept()[0] as server:
            server.settimeout(5)
            first, second = (client, server) if first_is_client else (server, client)
            first.sendall(b"question")
            first.shutdown(socket.SHUT_WR)
            assert everything(second) == b"question"
            second.sendall(b"answer")
            second.shutdown(socket.SHUT_WR)
            assert everything(first) == b"answer"


def test_what_comes_with_the_request_is_passed_on(start: Callable[..., Running], echo: socket.socket) -> None:
    running = start()
    with running.connect() as client:
        port = echo.getsockname()[1]
        client.sendall(HELLO + b"\x05\x01\x00\x01\x7f\x00\x00\x01" + port.to_bytes(2, "big") + b"early")
        client.shutdown(socket.SHUT_WR)
        with echo.accept()[0] as server:
            assert everything(server) == b"early"


def test_slow_reader_stops_the_writer(start: Callable[..., Running], echo: socket.socket) -> None:
    """Data that is not read is held back where it comes from: the proxy keeps neither it nor the memory for it."""
    running = start()

    def resident() -> int:
        return int(Path(f"/proc/{running.process.pid}/statm").read_text().split()[1]) * 4096

    with running.through(echo.getsockname()) as client, echo.accept()[0] as server:
        before, sent = resident(), 0
        client.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            while sent < 1 << 30:
                sent += client.send(bytes(1 << 20))
        assert sent < 1 << 28
        assert resident() - before < 16 << 20
        client.shutdown(socket.SHUT_WR)
        assert len(everything(server)) == sent


def test_reset_is_passed_on(start: Callable[..., Running], echo: socket.socket) -> None:
    running = start()
    with running.through(echo.getsockname()) as client, echo.accept()[0] as server:
        server.settimeout(5)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
        client.close()
        with pytest.raises(ConnectionResetError):
            server.recv(1)


def test_slow_and_malformed_clients_disturb_nobody(start: Callable[..., Running], echo: socket.socket) -> None:
    running = start("--handshake", "1", "--connections", "40")
    silent = [running.connect() for _ in range(10)]
    slow = [running.connect() for _ in range(10)]
    for number, client in enumerate(slow):
        client.sendall([b"\x05", b"\x05\x02\x00", b"\x04\x01", b"CONNECT a:22 HTTP/1.1\r\n"][number % 4])
    for nonsense in (
        b"\x00" * 3000,
        b"\x16\x03\x01\x02\x00",
        b"\x05\x00",
        b"\xff\n\n",
        b"\x04\x09" + bytes(20),
        b"\r\n",
    ):
        with running.connect() as client:
            client.sendall(nonsense)
    with running.through(echo.getsockname()) as client, echo.accept()[0] as server:
        server.sendall(b"well")
        assert client.recv(10) == b"well"
        for one in silent + slow:
            one.settimeout(5)
            assert everything(one) in (b"", b"\x05\x00"), "after its seconds it is closed"
            one.close()
        server.sendall(b"still")
        assert client.recv(10) == b"still"


def asks(running: Running, echo: socket.socket) -> bytes:
    """Return the answer to one more client, which asks for the echo server."""
    with running.connect() as client:
        client.sendall(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: a\r\n\r\n" % echo.getsockname()[1])
        return client.recv(1000)


def test_connections_are_limited(start: Callable[..., Running], echo: socket.socket) -> None:
    """One too many is told so at once, and the log says it once; when another has ended, there is room."""
    running = start("--connections", "2")
    one, two = running.through(echo.getsockname()), running.through(echo.getsockname())
    for _ in range(20):
        assert b"2 connections are open" in asks(running, echo)
    running.says_once("WARNING")
    one.close()
    echo.accept()[0].close()
    end = time.monotonic() + 5
    while not asks(running, echo).startswith(b"HTTP/1.1 200 "):
        assert time.monotonic() < end
    two.close()


class Direct:
    """Connects without a knock, as HiddenHosts do where there is no profile."""

    def hosts(self) -> list[str]:
        return []

    async def open(self, target: Target, wanted: Callable[[], bool]) -> socket.socket:
        return await directly(*target, 5)


Asks = Callable[[str, int], Awaitable[socket.socket]]
"""Makes a client that asks for a host and port."""


@contextlib.asynccontextmanager
async def serving(limits: ClientLimits) -> AsyncIterator[Asks]:
    """A server in this process."""
    loop = asyncio.get_running_loop()
    server = Server(Direct(), "", None, limits)  # type: ignore[arg-type]  # all that it takes of HiddenHosts
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener, contextlib.ExitStack() as clients:

        async def ask(host: str, port: int) -> socket.socket:
            client = clients.enter_context(socket.socket())
            client.setblocking(False)
            await loop.sock_connect(client, listener.getsockname())
            await loop.sock_sendall(client, f"CONNECT {host}:{port} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            return client

        task = loop.create_task(server.serve(listener))
        try:
            yield ask
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def heard(client: socket.socket) -> bytes:
    return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 100), 5)


def test_who_was_idle_for_long_makes_room(echo: socket.socket, caplog: pytest.LogCaptureFixture) -> None:
    async def three() -> None:
        async with serving(ClientLimits(2, 5, 0)) as ask:
            clients = []
            for _ in range(3):
                clients.append(await ask(*echo.getsockname()))
                assert (await heard(clients[-1])).startswith(b"HTTP/1.1 200 ")
            assert await heard(clients[0]) == b""

    asyncio.run(three())
    assert "2 connections are open" in caplog.text


def test_hidden_hosts_have_resolvers_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """All threads for other names wait for a resolver that is dead."""
    known, stop = socket.getaddrinfo, threading.Event()

    def slow(name: bytes, *words: int, **more: int) -> object:
        if name.endswith(b".invalid") and not more.get("flags"):
            stop.wait(10)
        return known(b"127.0.0.1" if name == b"hidden.example" else name, *words, **more)

    async def one() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(2))
        waiting = [loop.create_task(resolve(f"{number}.invalid", 1)) for number in range(4)]
        await asyncio.sleep(0.1)
        hidden = HiddenHosts("/nowhere", lambda _: None, 1)
        try:
            assert await asyncio.wait_for(resolve("hidden.example", 1, hidden._resolvers), 5)
        finally:
            stop.set()
            await asyncio.gather(*waiting, return_exceptions=True)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    asyncio.run(one())


def test_look_ups_that_take_long_hold_up_no_other(echo: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as there may be connections."""
    resolve, stop, many = socket.getaddrinfo, threading.Event(), 300

    def slow(name: bytes, *words: int, **more: int) -> object:
        if name == b"black.hole" and "flags" not in more:
            stop.wait(10)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return resolve(name, *words, **more)

    async def one_more() -> bytes:
        async with serving(ClientLimits(many + 1, 5)) as ask:
            for _ in range(many):
                await ask("black.hole", 22)
            try:
                return await heard(await ask("localhost", echo.getsockname()[1]))
            finally:
                stop.set()

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    assert asyncio.run(one_more()).startswith(b"HTTP/1.1 200 ")


def test_many_who_say_nothing_whole_hold_up_nobody(start: Callable[..., Running], echo: socket.socket) -> None:
    running = start()
    silent = [running.connect() for _ in range(700)]
    for one in silent:
        one.sendall(b"\x05")
    begin = time.monotonic()
    running.through(echo.getsockname()).close()
    assert time.monotonic() - begin < 2
    running.says_once("clients have not said what they want")
    for one in silent:
        one.close()


@pytest.fixture
def secret(place: Path) -> str:
    """A login file, of me with the password secret."""
    path = place / "login"
    path.write_text("me:secret\n")
    path.chmod(0o600)
    os.chown(path, NOBODY, NOBODY)
    return str(path)


def logs_in(running: Running, word: bytes, user: int = 0) -> socket.socket:
    """A client of a user of this machine that has said a password."""
    os.seteuid(user)
    try:
        client = running.connect()
    finally:
        os.seteuid(0)
    client.sendall(b"\x05\x01\x02\x01\x02me%c%b" % (len(word), word))
    return client


def hears(client: socket.socket) -> bytes:
    """Return what a client hears, up to the bytes that say if it is in."""
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while len(said) < 4 and (more := client.recv(100)):
            said += more
    return said


IN = b"\x05\x02\x01\x00"


@pytest.mark.parametrize(("address", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "::/64")])
def test_who_is_at_the_other_end(nobody: int, address: str, shown: str) -> None:
    """The user that made the connection; its address when the kernel no longer knows that user."""
    with socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET) as listener:
        os.seteuid(NOBODY)
        try:
            client = socket.create_connection(listener.getsockname()[:2])
        finally:
            os.seteuid(0)
        with listener.accept()[0] as accepted:
            assert peer.name(accepted) == f"user {NOBODY} of this machine"
            client.close()
            assert peer.name(accepted) == shown


def test_guesses_are_slow_and_hold_up_nobody(start: Callable[..., Running], secret: str) -> None:
    """Whatever the number of connections that they come by; a good login does not wait for their answers."""
    running = start("--login-file", secret)
    begin = time.monotonic()
    with running.connect() as client:
        client.sendall(b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Basic YTpi\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 407 ")
    guesses = [logs_in(running, b"letmein") for _ in range(50)]
    with logs_in(running, b"secret") as good:
        assert hears(good) == IN
    for client in guesses[:3]:
        assert hears(client).endswith(b"\x01\x01")
    assert time.monotonic() - begin > 0.9, "four a second"
    running.says_once("user 0 of this machine: a wrong name or password")
    assert "letmein" not in running.log()
    for client in guesses:
        client.close()


def test_who_does_not_wait_for_the_answer_to_a_guess(start: Callable[..., Running], secret: str) -> None:
    """He is not heard for a while, and every other user is."""
    running = start("--login-file", secret)
    guesses: list[socket.socket] = []
    heard, end = IN, time.monotonic() + 10
    while heard == IN:
        assert time.monotonic() < end
        guesses += [logs_in(running, b"letmein") for _ in range(100)]
        with logs_in(running, b"secret") as good:
            heard = hears(good)
    assert heard == b""
    with logs_in(running, b"secret", NOBODY) as good:
        assert hears(good) == IN
    running.says("this one is not looked at")
    running.says_once(": a wrong name or password")
    for client in guesses:
        client.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stops_cleanly(start: Callable[..., Running], echo: socket.socket, number: int) -> None:
    running = start()
    with running.through(echo.getsockname()) as client, echo.accept()[0] as server, running.connect() as waiting:
        running.process.send_signal(number)
        assert running.process.wait(5) == 0
        for end in (client, server, waiting):
            end.settimeout(5)
            assert end.recv(1) == b"", "closed"
    assert running.log().endswith("stopped\n")


def test_root_is_gone(start: Callable[..., Running]) -> None:
    """It keeps the raw sockets, and neither an id, a capability nor a way to any."""
    running = start()
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{running.process.pid}/status").read_text().splitlines()
        if ":\t" in line
    )
    assert {*status["Uid"].split(), *status["Gid"].split()} == {str(NOBODY)}
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status[name], 16) == 0
    assert status["NoNewPrivs"] == "1"


def test_user(start: Callable[..., Running]) -> None:
    running = start("--user", "daemon")
    assert "Uid:\t1\t1\t1\t1" in Path(f"/proc/{running.process.pid}/status").read_text()


def test_asks_are_logged_at_debug_only(start: Callable[..., Running]) -> None:
    running = start()
    with running.connect() as client:
        client.sendall(b"CONNECT nowhere.invalid:22 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert everything(client).startswith(b"HTTP/1.1 502 ")
    running.says("nowhere.invalid")
    lines = [line for line in running.log().splitlines() if "nowhere.invalid" in line]
    assert all(" DEBUG " in line for line in lines)


def test_login_file(start: Callable[..., Running], secret: str, echo: socket.socket) -> None:
    running = start("--login-file", secret)
    with running.connect() as client:
        client.sendall(b"\x05\x01\x02\x01\x02me\x06secret\x05\x01\x00\x01\x7f\x00\x00\x01")
        client.sendall(echo.getsockname()[1].to_bytes(2, "big"))
        with echo.accept()[0] as server:
            server.sendall(b"in")
            server.shutdown(socket.SHUT_WR)
            assert everything(client).endswith(b"in")
    with running.connect() as client:
        client.sendall(SOCKS["4"][0])
        assert everything(client) == b""
    assert "secret" not in running.log()


def run(home: Path, *words: str, caller: int = 0) -> subprocess.CompletedProcess[str]:
    """caller: the user who called sudo."""
    return command("knockknock-proxy", *words, home=home, SUDO_UID=str(caller))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--listen", "0.0.0.0:1080"], "can be reached by other machines"),
        (["--listen", "[::]:1080"], "can be reached by other machines"),
        (["--listen", "192.0.2.7:1080"], "can be reached by other machines"),
        (["--listen", "0.0.0.0:1080", "--listen-beyond-loopback"], "takes --login-file"),
        (["--listen", "1080"], "is not ADDRESS:PORT"),
        (["--listen", "::1:1080"], "is not ADDRESS:PORT"),
        (["--listen", "localhost:1080"], "is not ADDRESS:PORT"),
        (["--connections", "0"], "is not a number from 1 to 65536"),
        (["--timeout", "nan"], "is not a number of seconds"),
        (["--handshake", "soon"], "is not a number of seconds"),
    ],
)
def test_usage(tmp_path: Path, words: list[str], text: str) -> None:
    done = run(tmp_path, *words)
    assert done.returncode == 2
    assert text in done.stderr


def test_does_not_stay_root(tmp_path: Path) -> None:
    done = run(tmp_path, "--listen", "127.0.0.1:0")
    assert done.returncode == 1
    assert done.stderr.startswith("knockknock-proxy: the proxy does not stay root")
    done = run(tmp_path, "--listen", "127.0.0.1:0", "--user", "no-such-user")
    assert done.stderr == "knockknock-proxy: there is no user no-such-user on this machine\n"


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("me:secret\n", 0o640, "chmod 600"),
        ("me:secret\n", 0o604, "chmod 600"),
        ("mesecret\n", 0o600, "does not hold one line NAME:PASSWORD"),
        (":secret\n", 0o600, "does not hold one line NAME:PASSWORD"),
        ("me:secret\nyou:too\n", 0o600, "does not hold one line NAME:PASSWORD"),
        (f"me:{'s' * 256}\n", 0o600, "does not hold one line NAME:PASSWORD"),
        (None, 0o600, "cannot be read"),
    ],
)
def test_bad_login_file(tmp_path: Path, place: Path, nobody: int, text: str | None, mode: int, said: str) -> None:
    secret = place / "login"
    if text is not None:
        secret.write_text(text)
        secret.chmod(mode)
        os.chown(secret, NOBODY, NOBODY)
    done = run(tmp_path, "--listen", "127.0.0.1:0", "--login-file", str(secret), caller=NOBODY)
    assert done.returncode == 1
    assert said in done.stderr
    assert "secret\n" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_port_that_is_taken(tmp_path: Path, echo: socket.socket) -> None:
    port = echo.getsockname()[1]
    done = run(tmp_path, "--listen", f"127.0.0.1:{port}", caller=NOBODY)
    assert done.returncode == 1
    assert done.stderr.startswith(f"knockknock-proxy: 127.0.0.1:{port} cannot be listened at: Address already in use;")


def test_print_pac(tmp_path: Path) -> None:
    """It needs no root; the hosts of profiles go through us, by what the browser can log in with."""
    for name in ("server.example", "10.0.0.1", "FD00::1"):
        (tmp_path / ".knockknock" / name).mkdir(parents=True)
    done = command("knockknock-proxy", "--print-pac", home=tmp_path)
    assert done.returncode == 0
    assert '["10.0.0.1", "fd00::1", "server.example"]' in done.stdout
    assert '"SOCKS5 127.0.0.1:1080; SOCKS 127.0.0.1:1080"' in done.stdout
    with_login = run(tmp_path, "--print-pac", "--login-file", "x", "--listen", "[::1]:9")
    assert '"PROXY [::1]:9"' in with_login.stdout


@pytest.mark.parametrize("package", ["siosocks", "h11"])
def test_missing_package(tmp_path: Path, package: str) -> None:
    """Test that one sentence says what is missing, and how to get it."""
    code = f"import sys; sys.modules[{package!r}] = None; from knockknock.cli.proxy import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=VIEW["root"])
    assert done.returncode == 1
    assert f"the Python package {package}" in done.stderr
    assert "[proxy]" in done.stderr
    assert done.stderr.count("\n") == 1


def test_pace_is_of_a_server_and_the_share_of_doors_is_of_a_profile() -> None:
    """One that uses up its own holds up neither another profile of the same server nor another server."""

    async def pauses() -> list[float]:
        doors, busy, idle = HiddenHosts("", print, 5), profile("busy"), profile("idle")
        for _ in range(40):
            last = doors._pause(busy, "192.0.2.1")
        return [last, *(doors._pause(idle, server) for server in ("192.0.2.1", "192.0.2.2"))]

    own, same, other = asyncio.run(pauses())
    assert own > 15, "one in two seconds, after 30"
    assert 0 < same < 1, "18 a second, after 32"
    assert other == 0


def test_of_two_connections_that_stand_at_once_the_first_is_taken() -> None:
    """A door is for the one that is complete first, and resets the other: twenty times, as a set has any order."""

    async def race() -> bool:
        sockets = [socket.socket(), socket.socket()]
        stand = [asyncio.Event(), asyncio.Event()]

        async def attempt(number: int) -> socket.socket:
            await stand[number].wait()
            return sockets[number]

        taken = asyncio.ensure_future(first([(0, partial(attempt, 0)), (0, partial(attempt, 1))], 5))
        await asyncio.sleep(0.01)
        stand[1].set()
        stand[0].set()
        good = await taken is sockets[1]
        for one in sockets:
            one.close()
        return good

    assert [asyncio.run(race()) for _ in range(20)] == [True] * 20


@pytest.mark.parametrize("later", range(6))
def test_a_connection_that_stands_right_behind_the_first_is_closed(later: int) -> None:
    """Whatever steps of the loop lie between the two."""

    async def race() -> tuple[bool, int]:
        sockets = [socket.socket(), socket.socket()]
        stand = asyncio.Event()

        async def attempt(number: int) -> socket.socket:
            await stand.wait()
            for _ in range(number * later):
                await asyncio.sleep(0)
            return sockets[number]

        taken = asyncio.ensure_future(first([(0, partial(attempt, 0)), (0, partial(attempt, 1))], 5))
        await asyncio.sleep(0.01)
        stand.set()
        good = await taken is sockets[0]
        await asyncio.sleep(0.01)
        left = sockets[1].fileno()
        for one in sockets:
            one.close()
        return good, left

    good, left = asyncio.run(race())
    assert good
    assert left == -1 or later > 1, "one that is cancelled before it stands is its own"
