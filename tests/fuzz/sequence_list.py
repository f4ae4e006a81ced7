"""A file of one-time sequences."""

from knockknock.errors import ConfigError
from knockknock.schemes.sequence.notation import show_steps
from knockknock.schemes.sequence.profile import Profile, complete

DRAFT = Profile("", (), (), one_time="list")
CORPUS = [
    b"tcp/2002, udp/2001, tcp/2004\n",
    b"# for alice\n7, 8\n8:udp,7:tcp # used\n\n",
    b"1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33\n",
    b"7\r\n/,:\n",
]


def target(data: bytes) -> None:
    """A text is refused with its place, or gives sequences that are the same when written and read again."""
    try:
        found = complete(DRAFT, data.decode("utf-8", "replace"), "list").sequences
    except ConfigError as error:
        sentence = str(error)
        assert sentence.startswith("list:")
        return
    assert found
    for steps in found:
        assert 2 <= len(steps) <= 32
        assert all(protocol in (6, 17) and 1 <= port <= 65535 for protocol, port in steps)
    assert complete(DRAFT, "\n".join(map(show_steps, found)), "list").sequences == found
