"""Converts the keys of a profile to and from text. Pure."""

import base64
import binascii

from ..errors import ProfileError

KEY_SIZES = (16, 32)
"""Bytes of the AES key and of the HMAC key; new profiles have 32."""


def parse_key(text: str, where: str) -> bytes:
    """Return a key of 16 or 32 bytes from its base64 text. Raises ProfileError, which does not show the text."""
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) not in KEY_SIZES:
        raise ProfileError(f"{where}: not a key: base64 of 16 or 32 bytes is expected")
    return key


def write_key(key: bytes) -> str:
    """The text that parse_key() reads back."""
    return base64.b64encode(key).decode() + "\n"
