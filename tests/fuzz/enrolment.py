"""The line that enrols a client."""

from knockknock.errors import ProfileError
from knockknock.profiles.enrolment import MAX_TEXT, decode, encode
from knockknock.schemes.syn.profile import Profile

LINE = encode(Profile("server.example", bytes(16), bytes(range(32)), 4242, "compact"), 7)
CORPUS = [
    LINE.encode(),
    LINE.lower().encode(),
    f"> {LINE[:60]}\n> {LINE[60:]}\n".encode(),
    (LINE + LINE).encode(),
    LINE[:-9].encode(),
    b"knockknock1:",
    b"knockknock2:AAAA",
    b"",
]


def target(data: bytes) -> None:
    """A text raises ProfileError, without what it holds, or is exactly the line that its profile is encoded to."""
    text = data.decode("utf-8", "replace")
    try:
        profile, counter = decode(text)
    except ProfileError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert "\n" not in refusal
        assert len(refusal) < 1000
        return
    assert len(text) <= MAX_TEXT
    assert 0 <= counter < 2**64
    assert decode(encode(profile, counter)) == (profile._replace(legacy=False), counter)
