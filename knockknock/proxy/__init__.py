"""SOCKS and HTTP CONNECT on loopback, with a knock before each connection to a host that has a profile.

A client speaks one of two dialects, and its first byte tells which. A dialect does no I/O: it hears bytes and says what
to answer, so that it can be tried on any bytes at all.
"""

from typing import NamedTuple, Protocol

MAX_HEAD = 8192
"""Bytes that a client may say before its request is complete."""


class Target(NamedTuple):
    """The host and port that a client wants to be connected to."""

    host: str
    """A name or an address, as the client wrote it."""
    port: int

    def __str__(self) -> str:
        return f"{self.host} port {self.port}"


class Login(NamedTuple):
    """The user name and password that a client has to say first, as bytes. The repr shows neither."""

    user: bytes
    password: bytes

    def __repr__(self) -> str:
        return "<login>"


class Refused(Exception):
    """The conversation is over. The text says why; `answer` is what the client is still to be told, in bytes.

    guess: whether a name and a password were said that are wrong.
    """

    def __init__(self, reason: str, answer: bytes = b"", *, guess: bool = False) -> None:
        super().__init__(reason)
        self.answer, self.guess = answer, guess


class Dialect(Protocol):
    """A request for a connection."""

    target: Target | None
    """Set once the request is complete."""
    rest: bytes
    """Bytes that the client sent behind its request: they belong to the connection."""

    def hear(self, data: bytes) -> bytes:
        """Take what the client said, never nothing; what to answer now. Raises Refused."""

    def granted(self) -> bytes:
        """The answer once the connection stands."""

    def failed(self, error: Exception) -> bytes:
        """The answer if it cannot be made."""


def check_target(host: str, port: int) -> Target:
    """A target that a resolver and a file system may be asked for. Raises Refused.

    A host name has at most 255 bytes (RFC 1035 section 2.3.4); what is no printable ASCII has to come in its IDNA form.
    """
    if not (0 < len(host) <= 255 and host.isascii() and host.isprintable() and " " not in host and "/" not in host):
        raise Refused("that is no host name")
    if not 0 < port < 65536:
        raise Refused(f"there is no port {port}")
    return Target(host, port)
