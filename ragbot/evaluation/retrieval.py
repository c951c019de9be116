"""How well the right paragraphs are found: recall@k, MRR@10 and nDCG@10, by ir-measures.

`recall@k` is 1 when at least one gold paragraph is among the first k (success@k, as open-domain
question answering reports it: Karpukhin et al., EMNLP 2020).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

from ragbot.types import Hit

DEPTH = 10  # paragraphs
CHUNKS_A_PARAGRAPH = 3  # asked for, so that ten paragraphs come up though some are in parts
NAMES = ("recall@1", "recall@3", "recall@5", "recall@10", "mrr@10", "ndcg@10")

Place = tuple[str, int]
"""A document and the number of a paragraph in it."""


def ranked_paragraphs(hits: Sequence[Hit], limit: int = DEPTH) -> dict[Place, float]:
    """The first paragraphs of the hits, best first, with the score of the best chunk of each."""
    ranked: dict[Place, float] = {}
    for hit in hits:
        ranked.setdefault((hit.doc, hit.paragraph), hit.score)
    return dict(list(ranked.items())[:limit])


def retrieval_figures(gold: Collection[Place], ranked: Sequence[Place]) -> dict[str, float]:
    """The measures of one question, `ranked` best first; nothing found is a miss in each."""
    relevant = {"q": {_id(place): 1 for place in gold}}
    # By rank, not by score: two equal scores would be a draw.
    run = {"q": {_id(place): float(-rank) for rank, place in enumerate(ranked)}}
    measures = _measures()
    values = dict.fromkeys(NAMES, 0.0)
    if ranked:
        import ir_measures

        for result in ir_measures.iter_calc(list(measures), relevant, run):
            values[measures[result.measure]] = float(result.value)
    return values


@cache
def _measures() -> dict[Any, str]:
    from ir_measures import RR, Success, nDCG

    wanted = (Success @ 1, Success @ 3, Success @ 5, Success @ 10, RR @ 10, nDCG @ 10)
    return dict(zip(wanted, NAMES, strict=True))


def _id(place: Place) -> str:
    return f"{place[0]}\t{place[1]}"
