"""Figures over samples: middle, tail, ratio, fairness. Where there is nothing to count: None."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

Value = float | None


def known(values: Iterable[Value]) -> list[float]:
    """The values that were measured."""
    return [value for value in values if value is not None]


def median(values: Iterable[Value]) -> Value:
    """The middle value, or the mean of the middle two."""
    found = known(values)
    return statistics.median(found) if found else None


def p95(values: Iterable[Value]) -> Value:
    """The 95th percentile, between the two values next to it in proportion; of one value itself."""
    found = known(values)
    if len(found) < 2:
        return found[0] if found else None
    return statistics.quantiles(found, n=20, method="inclusive")[-1]


def largest(values: Iterable[Value]) -> Value:
    """The largest value."""
    return max(known(values), default=None)


def mean(values: Iterable[Value]) -> Value:
    """The mean; of yes and no, the share of yes."""
    found = known(values)
    return statistics.fmean(found) if found else None


def jain(values: Iterable[Value]) -> Value:
    """Jain's index of fairness, (sum)^2 / (n * sum of squares): 1 when all have the same.

    Jain, Chiu and Hawe, "A quantitative measure of fairness and discrimination", 1984.
    """
    found = known(values)
    squares = sum(value * value for value in found)
    if not found or not squares:
        return 1.0 if found else None
    return sum(found) ** 2 / (len(found) * squares)


def whole(value: Value) -> int | None:
    """A count as one, though it is a mean of two."""
    return None if value is None else round(value)


def ratio(value: Value, base: Value) -> Value:
    """One value as a multiple of another."""
    return None if value is None or not base else value / base


def paired_ratio(values: Sequence[Value], bases: Sequence[Value]) -> Value:
    """The median of the ratios of what belongs together, such as two answers to one question."""
    return median(ratio(value, base) for value, base in zip(values, bases, strict=True))
