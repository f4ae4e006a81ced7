"""A packet that somebody asks to be sent (knockknock --send)."""

from knockknock.core.headers import check_syn, total_length
from knockknock.errors import SendError

IPV4 = bytes.fromhex(
    "4500003c6b3c40004006b48f0a4d00020a4d0001c3501092a1b2c3d400000000a002faf0aaaa0000020405b40402080a4cdd9c2f0000000001030307"
)
IPV6 = bytes.fromhex(
    "6003a5c7002806400000fd77000000000000000000000002fd770000000000000000000000000001"
    "c3501092a1b2c3d400000000a002faf0aaaa0000020405a00402080a4cdd9c2f0000000001030307"
)
CORPUS = [IPV4, IPV6, IPV4[:20], IPV4[:-4], IPV6 + b"x", b"GET / HTTP/1.0\r\n"]


def target(data: bytes) -> None:
    """It is refused, or is a SYN without data from one host to another, exactly as long as it says."""
    try:
        source, destination = check_syn(data)
    except SendError:
        return
    assert len(data) == total_length(data)
    start = 20 if len(source) == 4 else 40
    assert data[0] >> 4 == (4 if start == 20 else 6)
    assert source + destination == data[start - 2 * len(source) : start]
    assert data[9 if start == 20 else 6] == 6
    assert data[start + 13] & 0x3F == 2
    assert start + 20 <= len(data) == start + (data[start + 12] >> 4) * 4
