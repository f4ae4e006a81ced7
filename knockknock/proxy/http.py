"""HTTP CONNECT (RFC 9110 section 9.3.6) and /proxy.pac, by h11."""

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Callable

import h11

from . import MAX_HEAD, Login, Rejected, Target, check_target

PAC_PATH = b"/proxy.pac"
_HEADERS = [
    ("Connection", "close"),
    ("Cache-Control", "no-store"),
    # A web page may name this port in a <script>: these two headers hide the text from it.
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
]
_BY_SOCKS = (
    "this proxy carries http:// pages by SOCKS5 only, and https:// by SOCKS5 or CONNECT: "
    "set it as a SOCKS5 proxy, or use /proxy.pac"
)


class Http:
    """The conversation with one client, which has one request."""

    def __init__(self, login: Login | None, pac: Callable[[], str] | None) -> None:
        """login: for Proxy-Authorization, and for Authorization of /proxy.pac.

        pac: returns the text of /proxy.pac; None for a client that does not get it.
        """
        self.target: Target | None = None
        self.rest = b""
        self._login = login
        self._pac = pac
        self._head = False
        """True for a HEAD, whose answer has no body."""
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)

    def hear(self, data: bytes) -> bytes:
        try:
            self._connection.receive_data(data)
            event = self._connection.next_event()
        except h11.RemoteProtocolError as error:
            raise self._rejected(error.error_status_hint, "that is no HTTP request") from None
        if isinstance(event, h11.Request):
            self._request(event)
            self._connection.next_event()  # the end of the request: a CONNECT has no body
            self.rest = self._connection.trailing_data[0]
        return b""

    def _request(self, request: h11.Request) -> None:
        """Check a CONNECT, or answer /proxy.pac. Raises Rejected."""
        headers = dict(request.headers)
        connect, self._head = request.method == b"CONNECT", request.method == b"HEAD"
        said = headers.get(b"proxy-authorization" if connect else b"authorization", b"")
        if self._login and not self._knows(said):
            ask = "Proxy-Authenticate" if connect else "WWW-Authenticate"
            rejected = self._rejected(
                407 if connect else 401, "this proxy wants a name and a password", (ask, 'Basic realm="knockknock"')
            )
            rejected.guess = bool(said)  # a browser asks without credentials first
            raise rejected
        if connect:
            if b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0":
                raise self._rejected(400, "a CONNECT has no content")
            try:
                self.target = _authority(request.target)
            except Rejected as error:
                raise self._rejected(400, str(error)) from None
            return
        if not request.target.startswith(b"/"):
            raise self._rejected(501, _BY_SOCKS)
        if request.target != PAC_PATH:
            raise self._rejected(404, "there is only /proxy.pac here; as a proxy this port speaks SOCKS and CONNECT")
        if request.method not in (b"GET", b"HEAD"):
            raise self._rejected(405, "/proxy.pac can only be read", ("Allow", "GET, HEAD"))
        # An attacker's name that resolves to loopback, or another site's page, gets nothing.
        if self._pac is None or not _is_loopback(headers.get(b"host", b"")):
            raise self._rejected(403, "/proxy.pac is for this machine, under the address of its loopback")
        if headers.get(b"sec-fetch-site", b"none") != b"none" or b"origin" in headers:
            raise self._rejected(403, "/proxy.pac is not for the pages of a site")
        answer = self._say(200, self._pac().encode(), ("Content-Type", "application/x-ns-proxy-autoconfig"))
        raise Rejected("/proxy.pac was read", answer)

    def _knows(self, credentials: bytes) -> bool:
        """Return True if credentials (RFC 7617 section 2) are those of the login."""
        scheme, _, encoded = credentials.partition(b" ")
        try:
            said = base64.b64decode(encoded.strip(), validate=True)
        except binascii.Error:
            return False
        return scheme.lower() == b"basic" and hmac.compare_digest(said, b":".join(self._login or ()))

    def _say(self, status: int, body: bytes, *headers: tuple[str, str]) -> bytes:
        connection = self._connection
        if connection.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return b""
        length = ("Content-Length", str(len(body)))
        answer = connection.send(h11.Response(status_code=status, headers=[*_HEADERS, *headers, length])) or b""
        return answer + (b"" if self._head else connection.send(h11.Data(data=body)) or b"")

    def _rejected(self, status: int, reason: str, *headers: tuple[str, str]) -> Rejected:
        body = f"knockknock-proxy: {reason}\n".encode()
        return Rejected(reason, self._say(status, body, ("Content-Type", "text/plain; charset=utf-8"), *headers))

    def granted(self) -> bytes:
        return self._connection.send(h11.Response(status_code=200, headers=[], reason=b"Connection established")) or b""

    def failed(self, error: Exception) -> bytes:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return self._rejected(504 if isinstance(error, TimeoutError) else 502, reason).answer


def _authority(target: bytes) -> Target:
    """Parse host:port, with IPv6 addresses in brackets (RFC 9112 section 3.2.3). Raises Rejected."""
    host, colon, port = target.decode("latin-1").rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not colon or not (port.isascii() and port.isdigit() and len(port) <= 5):
        raise Rejected("CONNECT takes HOST:PORT")
    return check_target(host, int(port))


def _is_loopback(host: bytes) -> bool:
    """Return True if a Host header names the loopback itself."""
    name = host.decode("latin-1").lower()
    name = name.partition("]")[0][1:] if name.startswith("[") else name.partition(":")[0]
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
