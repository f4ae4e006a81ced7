"""The payload of a datagram to a knock port."""

from knockknock.schemes.otp.profile import read_payload

_DIGITS = b"0123456789abcdef" * 4
CORPUS = [
    _DIGITS,
    _DIGITS + b"\n",
    _DIGITS + b"\0",
    _DIGITS + b"\r\n",
    _DIGITS[1:],
    _DIGITS.upper(),
    b" " + _DIGITS[1:],
    b"",
]


def target(data: bytes) -> None:
    """A payload is 32 bytes in lowercase digits with at most one byte behind, or nothing at all."""
    digest = read_payload(data)
    if digest is None:
        good = len(data) in (64, 65) and set(data[:64]) <= set(b"0123456789abcdef")
        assert not good
        return
    assert len(digest) == 32
    assert data[:64] == digest.hex().encode()
    assert len(data) <= 65
