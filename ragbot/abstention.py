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

SIGNALS = ("score", "log_none", "log_least", "proven", "english", "across", "size")
"""The score of the best sentence, with its passage's; the log probability that the generator, once
it has copied a sentence, says "none" instead of an answer, and that of its answer's least likely
token; whether that answer could be proven; whether what was read is English, and whether the
question is in another language than that; and how much was searched (`size`): among more chunks one
that answers nothing scores high by chance."""

FEWEST, MOST = 38, 300
"""Chunks below which a corpus counts as one of so many, since there was none to fit on, and beyond
which: more told no more about one of 611."""


class Weights(TypedDict):
    """The fitted regression; below `threshold` a question is refused."""

    intercept: float
    weights: dict[str, float]
    threshold: float


def size(chunks: int) -> float:
    """The signal of how much was searched."""
    return math.log(min(max(chunks, FEWEST), MOST))


def probability(signals: Mapping[str, float]) -> float:
    """How likely it is that the documents hold the answer and that this is it."""
    fitted = _fitted()
    logit = fitted["intercept"] + sum(
        weight * signals[name] for name, weight in fitted["weights"].items()
    )
    return 1 / (1 + math.exp(-logit))


def threshold() -> float:
    """The probability below which a question is refused."""
    return _fitted()["threshold"]


@cache
def _fitted() -> Weights:
    fitted: Weights = json.loads(files("ragbot").joinpath(DATA).read_text(encoding="utf-8"))
    return fitted
