"""First bytes that a client sends to the proxy."""

from knockknock.proxy import MAX_HEAD, Dialect, Login, Rejected
from knockknock.proxy.http import Http
from knockknock.proxy.socks import Socks

_LOGIN = Login(b"me", b"secret")
CORPUS = [
    b"\x05\x01\x00\x05\x01\x00\x01\xc0\x00\x02\x07\x00\x16SSH-2.0",
    b"\x05\x01\x00\x05\x01\x00\x03\x0bexample.com\x01\xbb\x16\x03\x01",
    b"\x05\x02\x00\x02\x05\x01\x00\x04" + bytes(15) + b"\x01\x00\x50",
    b"\x05\x01\x02\x01\x02me\x06secret\x05\x01\x00\x03\x01a\x00\x50",
    b"\x05\x01\x00\x05\x02\x00\x01\xc0\x00\x02\x07\x00\x16",
    b"\x05\x01\x00\x05\x03\x00\x01\xc0\x00\x02\x07\x00\x16",
    b"\x04\x01\x00\x50\xc0\x00\x02\x07me\x00",
    b"\x04\x01\x00\x50\x00\x00\x00\x01\x00example.com\x00GET /",
    b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n\x16\x03\x01",
    b"CONNECT [2001:db8::7]:22 HTTP/1.0\r\n\r\n",
    b"CONNECT a:22 HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Basic bWU6c2VjcmV0\r\n\r\n",
    b"GET /proxy.pac HTTP/1.1\r\nHost: 127.0.0.1:1080\r\n\r\n",
    b"HEAD /proxy.pac HTTP/1.1\r\nHost: [::1]:1080\r\nAuthorization: Basic bWU6c2VjcmV0\r\n\r\n",
    b"GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n",
    b"POST /proxy.pac HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}",
]


def target(data: bytes) -> None:
    """With a login and without, it is refused, wants more, or names one target; in pieces as in one."""
    if not data:
        return
    middle = len(data) // 2
    for login in (None, _LOGIN):
        if data[0] in (4, 5):
            heard = [_hear(Socks(login), pieces) for pieces in ([data], [data[:middle], data[middle:]])]
        else:
            heard = [_hear(Http(login, lambda: "pac"), pieces) for pieces in ([data], [data[:middle], data[middle:]])]
        # What is too long for one is cut where the pieces end.
        assert heard[0] == heard[1] or len(data) > MAX_HEAD


def _hear(dialect: Dialect, pieces: list[bytes]) -> tuple[object, ...]:
    """All that comes of it: what was answered, the target, what remains, whether it was refused."""
    answer, left = b"", b"".join(pieces)
    for piece in pieces:
        if not piece:
            continue
        try:
            answer += dialect.hear(piece)
        except Rejected as rejected:
            return answer + rejected.answer, "refused"
        left = left[len(piece) :]
        if target := dialect.target:
            assert 0 < target.port < 65536
            assert 0 < len(target.host) <= 255
            assert target.host.isascii()
            assert target.host.isprintable()
            assert not set(target.host) & set(" /")
            assert dialect.granted()
            return answer, target, dialect.rest + left
    return answer, "more"
