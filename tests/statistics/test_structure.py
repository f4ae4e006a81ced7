"""No structure in 10,000 consecutive knocks; and the tests that say so find structure where there is some."""

import hashlib
import random

import pytest

from knockknock.schemes.syn.profile import FORMATS

from . import pvalues, structure
from .knocks import carried

NUMBER = 10_000
LEAST = 1e-4
"""The keys are fixed, so this holds for ever or never; at 30 p-values, chance alone would go below it once in 330."""
FOUND = 1e-9


def key(word: str) -> bytes:
    return hashlib.sha256(word.encode()).digest()


@pytest.mark.parametrize("first", [0, 2**32 - 5000], ids=["from 0", "across 2^32"])
@pytest.mark.parametrize("format", sorted(FORMATS))
def test_ten_thousand_knocks_show_nothing(format: str, first: int) -> None:
    found = structure.examine(carried(format, key(f"cipher {format}"), key(f"mac {format}"), NUMBER, first))
    assert min(found.values()) > LEAST, found


@pytest.mark.parametrize("size", [8, 10, 12])
def test_random_bytes_pass(size: int) -> None:
    source = random.Random(size)
    found = structure.examine([source.randbytes(size) for _ in range(NUMBER)])
    assert min(found.values()) > LEAST, found


def random_with(change: str) -> list[bytes]:
    """Random messages of 8 bytes with one flaw."""
    source, made = random.Random(change), list[bytes]()
    for number in range(NUMBER):
        data = bytearray(source.randbytes(8))
        last = made[-1] if made else data
        if change == "a field that never changes":
            data[6:] = b"\x00\x16"
        elif change == "a counter in a field":
            data[:2] = number.to_bytes(2, "big")
        elif change == "a field that follows the last one":
            data[3] = (last[3] + source.randrange(100)) % 256
        elif change == "a bit that is set more often":
            data[5] |= source.randrange(5) == 0
        elif change == "a byte that follows its neighbour":
            data[1] = (data[0] + source.randrange(100)) % 256
        elif change == "a keystream that is used twice" and number % 2:
            data = bytearray(bytes(a ^ b for a, b in zip(last, b"\0\x05\0\0\0\0\0\0", strict=True)))
        elif change == "sequence numbers that come again" and number % 1000 == 999:
            data[2:6] = made[number // 2][2:6]
        elif change == "ASCII text":
            data = bytearray(byte & 0x7F for byte in data)
        made.append(bytes(data))
    return made


@pytest.mark.parametrize(
    ("change", "finder"),
    [
        ("a field that never changes", structure.each_position),
        ("a counter in a field", structure.repeated_pairs),
        ("a counter in a field", structure.from_one_to_the_next),
        ("a field that follows the last one", structure.from_one_to_the_next),
        ("a bit that is set more often", structure.each_bit),
        ("a byte that follows its neighbour", structure.serial_correlation),
        ("a keystream that is used twice", structure.differences),
        ("sequence numbers that come again", structure.repeated_words),
        ("ASCII text", structure.monobit),
        ("ASCII text", structure.runs),
        ("ASCII text", structure.all_bytes),
    ],
)
def test_structure_is_found(change: str, finder: structure.Test) -> None:
    assert finder(random_with(change)) < FOUND


@pytest.mark.parametrize(
    ("figure", "freedom", "p"),
    # Tables of the chi-square distribution; the last by its closed form for two degrees of freedom, exp(-x/2).
    [
        (3.841459, 1, 0.05),
        (18.307038, 10, 0.05),
        (124.342113, 100, 0.05),
        (310.457388, 255, 0.01),
        (10, 2, 0.006737947),
    ],
)
def test_chi_square(figure: float, freedom: int, p: float) -> None:
    assert pvalues.chi_square(figure, freedom) == pytest.approx(p, rel=1e-5)


def test_normal_and_poisson() -> None:
    assert pvalues.normal(1.959964) == pytest.approx(0.05, rel=1e-5)
    assert pvalues.normal(-2.575829) == pytest.approx(0.01, rel=1e-5)
    assert pvalues.poisson_above(0, 0.01) == 1
    assert pvalues.poisson_above(1, 0.5) == pytest.approx(0.3934693, rel=1e-6)
    assert pvalues.poisson_above(3, 1) == pytest.approx(0.0803014, rel=1e-6)


def test_mann_whitney() -> None:
    source = random.Random(1)
    one, other = ([source.gauss(place, 1) for _ in range(400)] for place in (0, 0.5))
    assert pvalues.mann_whitney(one, other) < 1e-6
    assert pvalues.mann_whitney(one[:200], one[200:]) > 0.05
    assert pvalues.mann_whitney([1.0] * 30, [1.0] * 30) == 1
    # By hand: U = 0, m = n = 20, so z = -200 / sqrt(400 * 41 / 12), for samples that do not overlap.
    assert pvalues.mann_whitney(range(20), range(20, 40)) == pytest.approx(6.302e-8, rel=1e-3)
