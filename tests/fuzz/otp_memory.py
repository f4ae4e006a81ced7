"""Record of used one-time passwords, as the server keeps it."""

from knockknock.errors import CounterError
from knockknock.schemes.otp.profile import read_memory, write_memory

CORPUS = [
    b"floor 0\n",
    b"floor 29380000\nopen 29380001 c0000207\n",
    b"floor 29380000\nclose 29380001 20010db8000000000000000000000007\nopen 29380001 c0000207\n",
    b"floor 0\ncrc32 1b98fccd\n",
    b"floor 1",
    b"floor 1\nopen 1 c00002\n",
    b"0\n",
    b"",
]


def target(data: bytes) -> None:
    """A text raises CounterError, or means the same when it is written and read again."""
    try:
        memory = read_memory(data.decode("utf-8", "replace"), "state/laptop")
    except CounterError:
        return
    assert read_memory(write_memory(memory), "state/laptop") == memory
    assert len(memory.used) <= data.count(b"\n") - 1
    assert {len(source) for _, _, source in memory.used} <= {4, 16}
