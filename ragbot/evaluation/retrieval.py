"""How well the right paragraphs are found: recall@k, MRR@10 and nDCG@10.

Computed by ir-measures. `recall@k` is the share of questions of whose gold paragraphs at least one
is among the first k (success@k, as open-domain question answering reports it); a paragraph's rank
is that of its best chunk. Questions without gold are not counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ragbot.evaluation.questions import Question
from ragbot.types import Hit

DEPTH = 10
NAMES = ("recall@1", "recall@3", "recall@5", "recall@10", "mrr@10", "ndcg@10")


@dataclass(frozen=True, slots=True)
class Ranked:
    """A question with the hits that a search for it gave, best first."""

    question: Question
    hits: Sequence[Hit]


def retrieval_figures(results: Sequence[Ranked]) -> Mapping[str, Mapping[str, float]]:
    """Each measure for each question that has gold: {measure: {question id: value}}."""
    import ir_measures
    from ir_measures import RR, Success, nDCG

    judged = [ranked for ranked in results if ranked.question.gold]
    measures = (Success @ 1, Success @ 3, Success @ 5, Success @ 10, RR @ 10, nDCG @ 10)
    names = dict(zip(measures, NAMES, strict=True))
    relevant = {r.question.id: {gold: 1 for gold in _gold(r)} for r in judged}
    found = {r.question.id: _run(r.hits) for r in judged}
    figures: dict[str, dict[str, float]] = {name: {} for name in NAMES}
    for result in ir_measures.iter_calc(list(names), relevant, found):
        figures[names[result.measure]][result.query_id] = result.value
    for values in figures.values():
        for ranked in judged:
            values.setdefault(ranked.question.id, 0.0)  # found nothing: a miss, not a gap
    return figures


def mean(values: Mapping[str, float]) -> float:
    """The mean over questions; 0 where there are none."""
    return sum(values.values()) / len(values) if values else 0.0


def _gold(ranked: Ranked) -> list[str]:
    # A gold paragraph without a document is meant for the only one there is.
    only = {hit.doc for hit in ranked.hits}
    default = only.pop() if len(only) == 1 else ""
    return [f"{gold.doc or default}\t{gold.paragraph}" for gold in ranked.question.gold]


def _run(hits: Sequence[Hit]) -> dict[str, float]:
    run: dict[str, float] = {}
    for hit in hits:  # by rank, not by score: two equal scores would be a draw
        run.setdefault(f"{hit.doc}\t{hit.paragraph}", float(len(hits) - hit.rank))
    return run
