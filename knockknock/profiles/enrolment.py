"""The enrolment line: a profile and its first counter as one line of text, and back. Pure.

    knockknock1:BASE32    of bytes, numbers in network order:

    size      2    of all of it, in bytes
    server    1+n  its length, then the name of the server, ASCII
    keys      1+n  twice: a length of 16 or 32, then the cipher key, then the HMAC key
    counter   8    the first one that the client is to use
    config    n    what the profile's file config says, UTF-8
    check     4    CRC-32 (ISO 3309, as in gzip) of all before it

Base32 (RFC 4648, no padding), because a QR code has a mode for capital letters and digits that takes 5.5 bits for each.
A CRC of 32 bits finds every error that lies within 32 bits, and so every single wrong character. It is against
accidents: a forger could send another line anyway.
"""

import base64
import re
import zlib

from ..core.counter_text import MAX_COUNTER
from ..core.key_text import KEY_SIZES
from ..errors import ConfigError, ProfileError
from ..schemes.syn.profile import Profile
from .text import parse_config, write_config

PREFIX = "knockknock1:"
MAX_TEXT = 16384
"""The most characters of a paste that are read."""
_WORD = re.compile(r"knockknock([0-9]{1,3}):", re.IGNORECASE)
_QUOTING = re.compile(r"[\s>|\"'`*\u00a0\u200b\ufeff]+")
"""Characters that mail programs, chats and shells put around and into a line; none can be a part of one."""
_AGAIN = "paste the whole line, as knockknock-genprofile has printed it"


def check_server(name: str) -> str:
    """Return the client's name for a server in small letters: ASCII, no slash. Raises ProfileError."""
    plain = name.rstrip(".").lower()
    if not re.fullmatch(r"[a-z0-9:][a-z0-9:.%_-]{0,252}", plain) or plain == "config":
        raise ProfileError(
            f"{name!a} is not the name or address of a server; write a name with other letters as xn--..."
        )
    return plain


def encode(profile: Profile, counter: int) -> str:
    """Return the line for a client. profile: named as its server. counter: the first, 0 to 2**64 - 1."""
    name, config = profile.name.encode("ascii"), write_config(profile).encode()
    parts = [bytes([len(one)]) + one for one in (name, profile.cipher_key, profile.mac_key)]
    body = b"".join([*parts, counter.to_bytes(8, "big"), config])
    body = (2 + len(body) + 4).to_bytes(2, "big") + body
    data = body + zlib.crc32(body).to_bytes(4, "big")
    return PREFIX + base64.b32encode(data).decode().rstrip("=")


def decode(text: str) -> tuple[Profile, int]:
    """Return the profile, named as its server, and the first counter in a pasted line. Raises ProfileError.

    Lines that a mail program has broken or quoted are joined. No error quotes more of it than one character.
    """
    data = _bytes(text[: MAX_TEXT + 1])
    size = int.from_bytes(data[:2], "big")
    if len(data) < max(size, 7):
        raise ProfileError(f"the line was cut off: of {_characters(max(size, 7))} characters, the end is missing")
    if len(data) > size:
        raise ProfileError(f"the line is longer than it says: something was joined to it; {_AGAIN}")
    if zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "big"):
        raise ProfileError(f"the line was damaged on the way: its checksum is wrong; {_AGAIN}")
    return _values(data[2:-4])


def _characters(size: int) -> int:
    return len(PREFIX) + (size * 8 + 4) // 5


def _bytes(text: str) -> bytes:
    """Decode the characters after the prefix. Raises ProfileError."""
    if len(text) > MAX_TEXT:
        raise ProfileError(f"that is more than one line: {_AGAIN}")
    text = _QUOTING.sub("", text)
    if not (found := _WORD.match(text)):
        raise ProfileError(f"that is no line that enrols: it begins with {PREFIX}; {_AGAIN}")
    if found[1] != "1":
        raise ProfileError(f"the line is of a newer kind (knockknock{found[1]}): install a newer knockknock here")
    rest = text[found.end() :].upper()
    if _WORD.search(rest):
        raise ProfileError("these are two lines, joined to one: paste them one at a time")
    if strange := re.search(r"[^A-Z2-7]", rest):
        raise ProfileError(
            f"{strange[0]!a}, after {found.end() + strange.start()} characters, cannot be in the line, "
            "which has letters and the digits 2 to 7 only"
        )
    try:
        data = base64.b32decode(rest + "=" * (-len(rest) % 8))
    except ValueError:
        data = b""
    if base64.b32encode(data).decode().rstrip("=") != rest:
        raise ProfileError(f"the line was damaged on the way, or cut off at its end; {_AGAIN}")
    return data


def _values(body: bytes) -> tuple[Profile, int]:
    fields = []
    for _ in range(3):
        size = body[0] if body else 0
        fields.append(body[1 : 1 + size])
        body = body[1 + size :]
    name, cipher_key, mac_key = fields
    counter = int.from_bytes(body[:8], "big")
    if len(body) < 8 or len(cipher_key) not in KEY_SIZES or len(mac_key) not in KEY_SIZES or counter > MAX_COUNTER:
        raise ProfileError("the line is whole, but does not hold a profile: it was not made by knockknock-genprofile")
    try:
        draft = parse_config(body[8:].decode(), "the profile in the line")
        if not isinstance(draft, Profile):
            raise ProfileError(f"a line carries keys, which {draft.kind} has none of: copy the profile instead")
        return draft._replace(name=check_server(name.decode("ascii")), cipher_key=cipher_key, mac_key=mac_key), counter
    except UnicodeDecodeError:
        raise ProfileError("the line is whole, but its text is not: it was not made by knockknock-genprofile") from None
    except ConfigError as error:
        raise ProfileError(str(error)) from None
