"""SOCKS 5 (RFC 1928, without UDP and BIND; RFC 1929), 4 and 4a, by siosocks."""

import errno
import hmac
import socket
from collections.abc import Callable
from typing import Any

from siosocks.exceptions import SocksException
from siosocks.protocol import SocksServer

from . import MAX_HEAD, Login, Refused, Target, check_target

_CODES = {errno.ENETUNREACH: 3, errno.EHOSTUNREACH: 4, errno.ECONNREFUSED: 5, errno.ETIMEDOUT: 4}
"""Replies of RFC 1928 section 6."""
_FAILURE, _NO_HOST = 1, 4


class _Word(str):
    """A word of the login: siosocks compares with ==, which tells by its time how much was right."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and hmac.compare_digest(_bytes(self), _bytes(other))

    __hash__ = str.__hash__


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


class Socks:
    """One client's conversation."""

    def __init__(self, login: Login | None) -> None:
        self.target: Target | None = None
        self.rest = b""
        self._heard = 0
        self._version = 0
        # SOCKS 4 has no password, so it is not spoken where there is one.
        versions, words = ({5}, map(_Word, (part.decode() for part in login))) if login else ({4, 5}, (None, None))
        user, password = words
        self._protocol = SocksServer(allowed_versions=versions, username=user, password=password)
        self._go(lambda: next(self._protocol))

    def _go(self, resume: Callable[[], dict[str, Any]]) -> bytes:
        """Go on until the protocol wants something that is not a write; what it wrote."""
        answer = b""
        try:
            message = resume()
            while message["method"] == "write":
                answer += message["data"]
                message = self._protocol.send(None)
        except (SocksException, UnicodeDecodeError, StopIteration) as error:
            guess = str(error) == "Wrong username or password"  # siosocks has one exception for all
            raise Refused(f"SOCKS: {error or 'not understood'}", answer, guess=guess) from None
        if message["method"] == "connect":
            self.target = check_target(message["host"], message["port"])
        return answer

    def hear(self, data: bytes) -> bytes:
        answer = b""
        # Byte by byte: what siosocks has read beyond the request it would keep.
        for place, byte in enumerate(data):
            self._heard += 1
            self._version = self._version or byte
            if self._heard > MAX_HEAD:
                raise Refused("SOCKS: the request does not end", answer)
            try:
                answer += self._go(lambda byte=byte: self._protocol.send(bytes([byte])))  # type: ignore[misc]  # mypy cannot infer it
            except Refused as refused:
                raise Refused(str(refused), answer + refused.answer, guess=refused.guess) from None
            if self.target:
                self.rest = data[place + 1 :]
                break
        return answer

    def granted(self) -> bytes:
        return self._go(lambda: self._protocol.send(None))

    def failed(self, error: Exception) -> bytes:
        try:
            answer = self._go(lambda: self._protocol.throw(error))
        except Refused as refused:
            answer = refused.answer
        if self._version == 5:  # siosocks calls every failure a general one; the field has words for some
            number = error.errno if isinstance(error, OSError) else None
            code = _NO_HOST if isinstance(error, socket.gaierror) else _CODES.get(number or 0, _FAILURE)
            answer = answer[:1] + bytes([code]) + answer[2:]
        return answer
