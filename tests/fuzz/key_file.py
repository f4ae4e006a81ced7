"""A key file."""

import base64

from knockknock.core.key_text import parse_key, write_key
from knockknock.errors import ProfileError

CORPUS = [
    base64.b64encode(bytes(range(16))) + b"\n",
    base64.b64encode(bytes(range(32))) + b"\n",
    base64.b64encode(b"\xff" * 32),
    base64.b64encode(bytes(24)) + b"\r\n",
    b"AAAA====\n",
    b"",
]


def target(data: bytes) -> None:
    """A text is refused without being shown, or is a key of 16 or 32 bytes that stays the same when written."""
    text = data.decode("utf-8", "replace")
    try:
        key = parse_key(text, "/p/mac.key")
    except ProfileError as error:
        sentence = str(error)
        assert sentence == "/p/mac.key: not a key: base64 of 16 or 32 bytes is expected"
        return
    assert len(key) in (16, 32)
    assert parse_key(write_key(key), "/p/mac.key") == key
    assert text.strip()[:-2] == write_key(key).strip()[:-2] or text.strip()[:-3] == write_key(key).strip()[:-3]
