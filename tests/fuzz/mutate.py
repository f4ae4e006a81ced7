"""Endless inputs from a small corpus, the same ones every time: what a fuzzer does, without the feedback."""

import random
from collections.abc import Iterator, Sequence

_BYTES = b"\0\n\r\t ,;:=#[]()/-+.%\"'0189AFafx\x7f\x80\xff"


def change(source: random.Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    """Change data in one way."""
    at = source.randrange(len(data) + 1)
    end = min(len(data), at + source.randrange(1, 9))
    kind = source.randrange(8)
    if kind == 0 and at < len(data):
        data[at] ^= 1 << source.randrange(8)
    elif kind == 1 and at < len(data):
        data[at] = source.choice(_BYTES)
    elif kind == 2:
        data[at:at] = bytes([source.choice(_BYTES)])
    elif kind == 3:
        del data[at:end]
    elif kind == 4:
        data[at:at] = data[at:end] * source.choice((1, 2, 30))
    elif kind == 5:
        del data[at:]
    elif kind == 6:
        other = source.choice(corpus)
        begin = source.randrange(len(other) + 1)
        data[at:end] = other[begin : begin + source.randrange(60)]
    else:
        data[at:end] = str(source.choice((0, 1, 255, 65535, 65536, 2**32, 2**64, source.getrandbits(70)))).encode()


def inputs(corpus: Sequence[bytes], number: int, seed: int) -> Iterator[bytes]:
    """The corpus itself, then inputs with one to five changes each."""
    source = random.Random(seed)
    yield from corpus
    for _ in range(number):
        data = bytearray(source.choice(corpus))
        for _ in range(source.randrange(1, 6)):
            change(source, data, corpus)
        yield bytes(data)
