"""Tests for structure in a sequence of messages of one length, such as the carrying fields of consecutive knocks.

Each gives a p-value. For random bytes it is uniform between 0 and 1; structure of the kind that the test looks for
makes it tiny. Monobit and runs test as in NIST SP 800-22 (2.1, 2.3), serial correlation as in Knuth 3.3.2 K.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence

from .pvalues import chi_square, fit, normal, poisson_above

Messages = Sequence[bytes]
"""Two or more, all as long as the first."""
Test = Callable[[Messages], float]


def _histogram(data: bytes) -> float:
    counts = Counter(data)
    return fit([counts[value] for value in range(256)], len(data) / 256)


def all_bytes(messages: Messages) -> float:
    """Test that the 256 values are equally frequent over all bytes: chi-square, 255 degrees of freedom."""
    return _histogram(b"".join(messages))


def each_position(messages: Messages) -> float:
    """The same at each byte of the message alone: the smallest p-value, corrected for how many there are."""
    size = len(messages[0])
    return _smallest([_histogram(bytes(message[at] for message in messages)) for at in range(size)])


def _smallest(values: Sequence[float]) -> float:
    """The p-value of the smallest of several independent ones (Sidak)."""
    return -math.expm1(len(values) * math.log1p(-min(min(values), 1 - 1e-16)))


def monobit(messages: Messages) -> float:
    """Test that there are as many ones as zeros."""
    bits = 8 * sum(map(len, messages))
    ones = sum(int.from_bytes(message, "big").bit_count() for message in messages)
    return normal((2 * ones - bits) / math.sqrt(bits))


def each_bit(messages: Messages) -> float:
    """Test that each bit of the message is 1 in half of the messages: chi-square over all bit positions."""
    number, width = len(messages), 8 * len(messages[0])
    ones = [0] * width
    for message in messages:
        bits = int.from_bytes(message, "big")
        for at in range(width):
            ones[at] += bits >> at & 1
    return chi_square(sum((2 * count - number) ** 2 / number for count in ones), width)


def runs(messages: Messages) -> float:
    """Test that the bits change as often as they should: the runs test."""
    data = b"".join(messages)
    bits, width = int.from_bytes(data, "big"), 8 * len(data)
    share = bits.bit_count() / width
    changes = ((bits ^ bits >> 1) & ((1 << (width - 1)) - 1)).bit_count()
    expected = 2 * width * share * (1 - share)
    if not expected:
        return 0.0
    return normal((changes + 1 - expected) / (2 * math.sqrt(width) * share * (1 - share)))


def _correlation(left: bytes, right: bytes) -> float:
    """Test that two equally long rows of bytes are not correlated; the coefficient's standard error is 1/sqrt(n)."""
    number = len(left)
    mean_left, mean_right = sum(left) / number, sum(right) / number
    both = sum((a - mean_left) * (b - mean_right) for a, b in zip(left, right, strict=True))
    spread = sum((a - mean_left) ** 2 for a in left) * sum((b - mean_right) ** 2 for b in right)
    return normal(both / math.sqrt(spread) * math.sqrt(number)) if spread else 0.0


def serial_correlation(messages: Messages) -> float:
    """Test that a byte tells nothing of the next one, in the same message or at the start of the next."""
    data = b"".join(messages)
    return _correlation(data[:-1], data[1:])


def from_one_to_the_next(messages: Messages) -> float:
    """Test that a byte tells nothing of that at the same place in the next message: the smallest p-value, as above."""
    columns = [bytes(message[at] for message in messages) for at in range(len(messages[0]))]
    return _smallest([_correlation(column[:-1], column[1:]) for column in columns])


def differences(messages: Messages) -> float:
    """Test that consecutive messages, XORed, are random too, at each position: finds a mask that is used again."""
    # Every other pair, so that no message is in two of them and the differences are independent.
    return each_position(
        [
            bytes(a ^ b for a, b in zip(left, right, strict=True))
            for left, right in zip(messages[::2], messages[1::2], strict=False)
        ]
    )


def repeated_words(messages: Messages) -> float:
    """Test that 32-bit words, such as sequence numbers, come again no more often than by chance."""
    words: Counter[tuple[int, bytes]] = Counter()
    expected = 0.0
    for at in range(len(messages[0]) - 3):
        words.update((at, message[at : at + 4]) for message in messages)
        expected += math.comb(len(messages), 2) / 2**32
    return poisson_above(sum(math.comb(count, 2) for count in words.values()), expected)


def repeated_pairs(messages: Messages) -> float:
    """Test that the first 16 bits, the identification field, come again as often as by chance, no more and no less."""
    counts = Counter(message[:2] for message in messages)
    pairs, expected = sum(math.comb(count, 2) for count in counts.values()), math.comb(len(messages), 2) / 2**16
    return normal((pairs - expected) / math.sqrt(expected * (1 - 2**-16)))


TESTS: dict[str, Test] = {
    "byte histogram, all bytes (chi-square)": all_bytes,
    "byte histogram at each position (chi-square)": each_position,
    "as many ones as zeros (monobit)": monobit,
    "balance of each bit (chi-square)": each_bit,
    "runs of equal bits (runs test)": runs,
    "correlation with the next byte": serial_correlation,
    "correlation with the next knock": from_one_to_the_next,
    "differences of consecutive knocks (chi-square)": differences,
    "repeated 32-bit words (Poisson)": repeated_words,
    "repeated identifications (birthdays)": repeated_pairs,
}


def examine(messages: Messages) -> dict[str, float]:
    """The p-value of each test."""
    return {name: test(messages) for name, test in TESTS.items()}
