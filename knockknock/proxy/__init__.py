"""SOCKS and HTTP CONNECT on loopback, with a knock before each connection to a host that has a profile.

A client speaks one of two dialects; its first byte tells which. A dialect does no I/O: it takes bytes and returns the
answer, so it can be tested with any bytes.
"""

from typing import NamedTuple, Protocol

MAX_HEAD = 8192
"""The most bytes of a client's request."""


class Target(NamedTuple):
    """The host and port that a client wants to reach."""

    host: str
    """A name or an address, as the client wrote it."""
    port: int

    def __str__(self) -> str:
        return f"{self.host} port {self.port}"


class Login(NamedTuple):
    """The user name and password that a client must present, as bytes. The repr shows neither."""

    user: bytes
    password: bytes

    def __repr__(self) -> str:
        return "<login>"


class Rejected(Exception):
    """The conversation ends. The text says why; `answer` is the last answer to the client, in bytes.

    guess: True if the client presented a wrong name or password.
    """

    def __init__(self, reason: str, answer: bytes = b"", *, guess: bool = False) -> None:
        super().__init__(reason)
        self.answer, self.guess = answer, guess


class Dialect(Protocol):
    """A request for a connection."""

    target: Target | None
    """Set once the request is complete."""
    rest: bytes
    """Bytes that the client sent after its request; they belong to the connection."""

    def hear(self, data: bytes) -> bytes:
        """Take a client's bytes, at least one, and return the answer so far. Raises Rejected."""

    def granted(self) -> bytes:
        """Return the answer for a connection that is established."""

    def failed(self, error: Exception) -> bytes:
        """Return the answer for a connection that failed."""


def check_target(host: str, port: int) -> Target:
    """Return a target that is safe for a resolver and a file system. Raises Rejected.

    A host name has at most 255 bytes (RFC 1035 section 2.3.4), and must be printable ASCII or in its IDNA form.
    """
    if not (0 < len(host) <= 255 and host.isascii() and host.isprintable() and " " not in host and "/" not in host):
        raise Rejected("that is no host name")
    if not 0 < port < 65536:
        raise Rejected(f"there is no port {port}")
    return Target(host, port)
