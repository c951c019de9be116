"""Whether the documents hold the answer: what is known of a question, weighed to a probability.

A logistic regression of a handful of coefficients, which `scripts/fit_abstention.py` fits on the
records of evaluations and writes to `abstention.json` (docs/architecture.md has its curves). The
generator's whim decides nothing: how likely it was to say "none" is one signal among others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import TypedDict

DATA = "abstention.json"

SIGNALS = ("score", "margin", "log_none", "proven", "checked", "across")
"""Of the passages as they were read: the best one's retrieval score, and how far the next one's is
below it; the log probability that the generator says at once that they hold no answer; whether its
answer could be proven; the log odds that, read again beside the sentence it is from alone, it
answers; whether the question is in another language."""


# Log odds that checks give: 96 of 100 are between. Of 162 questions 66 % need no check by these
# bounds, and none of them was decided otherwise by its own.
_DOUBTED, _ASSURED = -2.0, 6.0


class Weights(TypedDict):
    """The fitted regression; below `threshold` a question is refused."""

    intercept: float
    weights: dict[str, float]
    threshold: float


def probability(signals: Mapping[str, float]) -> float:
    """How likely it is that the documents hold the answer and that this is it."""
    fitted = _fitted()
    logit = fitted["intercept"] + sum(
        weight * signals[name] for name, weight in fitted["weights"].items()
    )
    return 1 / (1 + math.exp(-logit))


def decided(signals: Mapping[str, float]) -> bool:
    """Whether a check, which takes a second, could hardly change what the others decide."""
    if signals["proven"]:
        return probability({**signals, "checked": _DOUBTED}) >= threshold()
    return probability({**signals, "checked": _ASSURED}) < threshold()


def threshold() -> float:
    """The probability below which a question is refused."""
    return _fitted()["threshold"]


@cache
def _fitted() -> Weights:
    fitted: Weights = json.loads(files("ragbot").joinpath(DATA).read_text(encoding="utf-8"))
    return fitted
