"""From a test's figure to its p-value: how often figures that extreme come from random bytes. Pure, no dependency."""

import itertools
import math
from collections.abc import Sequence

_ENOUGH = 10_000
"""Terms; both expansions below converge in some square roots of their argument."""


def gamma_above(a: float, x: float) -> float:
    """The regularized upper incomplete gamma function Q(a, x), for a > 0 and x >= 0.

    By its power series below a + 1 and by Lentz's continued fraction above (Abramowitz and Stegun 6.5.29, 6.5.31).
    """
    if x <= 0:
        return 1.0
    scale = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1:
        term = total = 1 / a
        for step in range(1, _ENOUGH):
            term *= x / (a + step)
            total += term
            if term < total * 1e-15:
                break
        return 1 - scale * total
    tiny = 1e-300
    b = x + 1 - a
    c, d = 1 / tiny, 1 / b
    fraction = d
    for step in range(1, _ENOUGH):
        factor = -step * (step - a)
        b += 2
        d = 1 / (factor * d + b or tiny)
        c = b + factor / c or tiny
        fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return scale * fraction


def chi_square(figure: float, freedom: int) -> float:
    """The upper tail: how often chi-square with some degrees of freedom is at least this."""
    return gamma_above(freedom / 2, figure / 2)


def fit(counts: Sequence[int], expected: float) -> float:
    """Pearson's test that counts of equally likely outcomes are as even as chance makes them: its p-value."""
    return chi_square(sum((count - expected) ** 2 for count in counts) / expected, len(counts) - 1)


def normal(z: float) -> float:
    """Both tails of a standard normal figure."""
    return math.erfc(abs(z) / math.sqrt(2))


def poisson_above(count: int, mean: float) -> float:
    """Probability that a Poisson count with some mean is at least this: the lower incomplete gamma function."""
    return 1.0 if count == 0 else 1 - gamma_above(count, mean)


def mann_whitney(left: Sequence[float], right: Sequence[float]) -> float:
    """Test that neither of two samples tends to be larger: p-value by the normal approximation (20 or more each)."""
    ordered = sorted([(value, 0) for value in left] + [(value, 1) for value in right])
    ranks = ties = 0.0
    for _, group in itertools.groupby(enumerate(ordered, 1), key=lambda one: one[1][0]):
        places = list(group)
        middle = (places[0][0] + places[-1][0]) / 2
        ranks += middle * sum(1 for _, (_, side) in places if side == 0)
        ties += len(places) ** 3 - len(places)
    m, n = len(left), len(right)
    u = ranks - m * (m + 1) / 2
    variance = m * n / 12 * (m + n + 1 - ties / ((m + n) * (m + n - 1)))
    return normal((u - m * n / 2) / math.sqrt(variance)) if variance else 1.0
