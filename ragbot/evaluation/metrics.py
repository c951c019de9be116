"""From the records of many questions to rates with intervals.

Every rate is a sum over questions divided by another (`Terms`), so that one bootstrap, over
questions, serves them all: means, micro-averages and F1 alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ragbot.evaluation.judge import FAITHFULNESS, RELEVANCE
from ragbot.evaluation.records import Record
from ragbot.evaluation.retrieval import NAMES

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

Terms = tuple[float, float]
"""What one question adds to the numerator and to the denominator of a rate."""

RESAMPLES = 2000
_LEVEL = 0.95
_NONE: Terms = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Rate:
    """A figure with its 95 % interval; all None where no question counts towards it."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Difference:
    """B minus A over the same questions, with its 95 % interval."""

    a: float | None
    b: float | None
    difference: float | None
    low: float | None
    high: float | None

    @property
    def significant(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


# --- the rates -------------------------------------------------------------------------------


def _mean_of(score: str) -> Callable[[Record], Terms]:
    def terms(record: Record) -> Terms:
        value = record.scores.get(score)
        return _NONE if value is None else (value, 1.0)

    return terms


def _valid(record: Record) -> Terms:
    share = record.scores.get("valid")
    return _NONE if share is None else (share * len(record.citations), float(len(record.citations)))


def _refusals(record: Record) -> tuple[float, float, float]:
    """True positives, false positives, false negatives of a refusal as a detector of the
    unanswerable."""
    if record.abstained is None or record.answerable is None:
        return 0.0, 0.0, 0.0
    refused, unanswerable = record.abstained, not record.answerable
    return (
        float(refused and unanswerable),
        float(refused and not unanswerable),
        float(not refused and unanswerable),
    )


def _abstention_precision(record: Record) -> Terms:
    right, wrong, _ = _refusals(record)
    return right, right + wrong


def _abstention_recall(record: Record) -> Terms:
    right, _, missed = _refusals(record)
    return right, right + missed


def _abstention_f1(record: Record) -> Terms:
    right, wrong, missed = _refusals(record)
    return 2 * right, 2 * right + wrong + missed


def _false_refusals(record: Record) -> Terms:
    asked = record.abstained is not None and bool(record.answerable)
    return _refusals(record)[1], float(asked)


RATES: Mapping[str, Callable[[Record], Terms]] = {
    **{f"retrieval.{name}": _mean_of(name) for name in NAMES},
    **{
        f"answer.{name}": _mean_of(name)
        for name in ("accuracy", "fact_recall", "f1", "exact_match")
    },
    **{f"citation.{name}": _mean_of(f"citation_{name}") for name in ("precision", "recall", "f1")},
    "citation.gold_cited": _mean_of("gold_cited"),
    "citation.valid": _valid,
    "citation.support_precision": _mean_of("support_precision"),
    "citation.support_recall": _mean_of("support_recall"),
    "abstention.precision": _abstention_precision,
    "abstention.recall": _abstention_recall,
    "abstention.f1": _abstention_f1,
    "abstention.false_refusal_rate": _false_refusals,
    "language_match": _mean_of("language_match"),
    "judge.faithfulness": _mean_of(FAITHFULNESS),
    "judge.relevance": _mean_of(RELEVANCE),
}
"""Every rate by its dotted name in the summary."""

LOWER_IS_BETTER = frozenset({"abstention.false_refusal_rate"})

# A detector is not judged where there is nothing to detect.
_OF_THE_UNANSWERABLE = frozenset(f"abstention.{name}" for name in ("precision", "recall", "f1"))


def rate(name: str, records: Sequence[Record], seed: int = 0) -> Rate:
    """One rate over some records, with the percentile bootstrap's interval (Efron 1979)."""
    terms = _terms(name, records)
    if not terms[:, 1].any():
        return Rate(None, None, None)
    value = float(terms[:, 0].sum() / terms[:, 1].sum())
    low, high = _interval(_resampled(terms, seed))
    return Rate(round(value, 4), low, high)


def difference(name: str, a: Sequence[Record], b: Sequence[Record], seed: int = 0) -> Difference:
    """A rate over the same questions in two runs: each resample draws the pair of a question."""
    import numpy as np

    pair = [_terms(name, a), _terms(name, b)]
    if not all(terms[:, 1].any() for terms in pair):
        return Difference(rate(name, a).value, rate(name, b).value, None, None, None)
    first, second = (float(terms[:, 0].sum() / terms[:, 1].sum()) for terms in pair)
    draws = [_resampled(terms, seed) for terms in pair]  # one seed: the same questions in both
    low, high = _interval(np.subtract(draws[1], draws[0]))
    return Difference(round(first, 4), round(second, 4), round(second - first, 4), low, high)


def _terms(name: str, records: Sequence[Record]) -> NDArray[float64]:
    import numpy as np

    if name in _OF_THE_UNANSWERABLE and all(record.answerable is not False for record in records):
        return np.zeros((len(records), 2))
    return np.array([RATES[name](record) for record in records], dtype=np.float64).reshape(-1, 2)


def _resampled(terms: NDArray[float64], seed: int) -> NDArray[float64]:
    """The rate in each resample of the questions; NaN where none counts towards it.

    (n, 2) -> (RESAMPLES,). Resampling with replacement is drawing how often each question comes.
    """
    import numpy as np

    n = len(terms)
    times = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    over, under = (times @ terms).T
    rates: NDArray[float64] = np.divide(
        over, under, out=np.full(RESAMPLES, np.nan), where=under > 0
    )
    return rates


def _interval(draws: NDArray[float64]) -> tuple[float, float]:
    import numpy as np

    low, high = np.nanquantile(draws, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return round(float(low), 4), round(float(high), 4)
