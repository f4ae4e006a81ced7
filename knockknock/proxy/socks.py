"""SOCKS 5 (RFC 1928, without UDP and BIND; RFC 1929), 4 and 4a, by siosocks."""

import errno
import hmac
import socket
from collections.abc import Callable
from typing import Any

from siosocks.exceptions import SocksException
from siosocks.protocol import SocksServer

from . import MAX_HEAD, Login, Rejected, Target, check_target

_CODES = {errno.ENETUNREACH: 3, errno.EHOSTUNREACH: 4, errno.ECONNREFUSED: 5, errno.ETIMEDOUT: 4}
"""Replies of RFC 1928 section 6."""
_FAILURE, _NO_HOST = 1, 4


class _Word(str):
    """A word of the login, compared in constant time: siosocks uses ==, whose time tells how much was right."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and hmac.compare_digest(_bytes(self), _bytes(other))

    __hash__ = str.__hash__


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


class Socks:
    """The conversation with one client."""

    def __init__(self, login: Login | None) -> None:
        self.target: Target | None = None
        self.rest = b""
        self._heard = 0
        self._version = 0
        # SOCKS 4 has no password, so it is refused if one is required.
        versions, words = ({5}, map(_Word, (part.decode() for part in login))) if login else ({4, 5}, (None, None))
        user, password = words
        self._protocol = SocksServer(allowed_versions=versions, username=user, password=password)
        self._go(lambda: next(self._protocol))

    def _go(self, resume: Callable[[], dict[str, Any]]) -> bytes:
        """Continue until the protocol wants something other than a write, and return what it wrote."""
        answer = b""
        try:
            message = resume()
            while message["method"] == "write":
                answer += message["data"]
                message = self._protocol.send(None)
        except (SocksException, UnicodeDecodeError, StopIteration) as error:
            guess = str(error) == "Wrong username or password"  # siosocks has one exception for all
            raise Rejected(f"SOCKS: {error or 'not understood'}", answer, guess=guess) from None
        if message["method"] == "connect":
            self.target = check_target(message["host"], message["port"])
        return answer

    def hear(self, data: bytes) -> bytes:
        answer = b""
        # Byte by byte, because siosocks would keep what it reads beyond the request.
        for place, byte in enumerate(data):
            self._heard += 1
            self._version = self._version or byte
            if self._heard > MAX_HEAD:
                raise Rejected("SOCKS: the request does not end", answer)
            try:
                answer += self._go(lambda byte=byte: self._protocol.send(bytes([byte])))  # type: ignore[misc]  # mypy cannot infer it
            except Rejected as rejected:
                raise Rejected(str(rejected), answer + rejected.answer, guess=rejected.guess) from None
            if self.target:
                self.rest = data[place + 1 :]
                break
        return answer

    def granted(self) -> bytes:
        return self._go(lambda: self._protocol.send(None))

    def failed(self, error: Exception) -> bytes:
        try:
            answer = self._go(lambda: self._protocol.throw(error))
        except Rejected as rejected:
            answer = rejected.answer
        if self._version == 5:  # siosocks calls every failure a general one; the field has words for some
            number = error.errno if isinstance(error, OSError) else None
            code = _NO_HOST if isinstance(error, socket.gaierror) else _CODES.get(number or 0, _FAILURE)
            answer = answer[:1] + bytes([code]) + answer[2:]
        return answer
