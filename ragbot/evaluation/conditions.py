"""Harder conditions for the same questions, after RGB (Chen et al., AAAI 2024).

Noise robustness: passages that do not hold the answer are mixed into the prompt. Negative
rejection: the gold paragraphs cannot be found, so that a refusal is the only right answer.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ragbot.evaluation.questions import Question
from ragbot.evaluation.retrieval import Place
from ragbot.retriever import Rerank
from ragbot.types import Hit


@dataclass(frozen=True, slots=True)
class Conditions:
    """`noise` passages are added to each prompt; with `remove_gold` the gold ones are not found."""

    noise: int = 0
    remove_gold: bool = False


def as_judged(question: Question, conditions: Conditions) -> Question:
    """What is expected of a question: without its gold it cannot be answered."""
    if not conditions.remove_gold or question.answerable is None:
        return question
    return question.model_copy(
        update={"answerable": False, "gold": (), "must_include": (), "reference_answer": ""}
    )


def disturbed(
    gold: Mapping[str, Sequence[Place]], conditions: Conditions, top_k: int, seed: int
) -> Rerank:
    """What becomes of the hits of a query, of whose gold paragraphs `gold` tells.

    The gold is taken out, if that was asked for. The noise is drawn by the seed from the hits that
    rank below the prompt and are not gold, the lower half of them when that is enough: near enough
    to mislead, too far to help. Best passages and noise are shuffled, the rest follows.
    """

    def rerank(query: str, hits: Sequence[Hit]) -> Sequence[Hit]:
        right = set(gold.get(query, ()))
        if conditions.remove_gold:
            hits = [hit for hit in hits if (hit.doc, hit.paragraph) not in right]
        if not conditions.noise:
            return _renumbered(hits)
        kept, rest = list(hits[:top_k]), list(hits[top_k:])
        useless = [hit for hit in rest if (hit.doc, hit.paragraph) not in right]
        far = useless[-max(conditions.noise, len(useless) // 2) :]
        draw = random.Random(f"{seed} {query}")
        mixed = kept + draw.sample(far, min(conditions.noise, len(far)))
        draw.shuffle(mixed)
        return _renumbered([*mixed, *(hit for hit in rest if hit not in mixed)])

    return rerank


def _renumbered(hits: Sequence[Hit]) -> Sequence[Hit]:
    return [replace(hit, rank=rank) for rank, hit in enumerate(hits, start=1)]
