"""Harder conditions for the same questions, after RGB (Chen et al., AAAI 2024).

Noise robustness: passages that do not hold the answer are mixed into the prompt. Negative
rejection: the gold paragraphs cannot be found, so that a refusal is the only right answer.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ragbot.evaluation.questions import Question
from ragbot.types import Hit, Rerank

_REMOVED = "~removed"  # ends the id of a question that is asked once more without its gold


@dataclass(frozen=True, slots=True)
class Conditions:
    """`noise` passages are added to each prompt; gold is not found, or not the second time."""

    noise: int = 0
    remove_gold: bool = False
    also_removed: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """A question as it is judged, with the same question as it was set, and its hidden gold."""

    question: Question
    original: Question
    hidden: bool = False

    def rerank(self, conditions: Conditions, top_k: int, seed: int) -> Rerank | None:
        """What becomes of the hits of the question's search; None when nothing does.

        Hidden gold is taken out. The noise is drawn by the seed from the hits that rank below the
        prompt and are not gold, the lower half of them when that is enough: near enough to mislead,
        too far to help. Best passages and noise are shuffled, the rest follows.
        """
        if not self.hidden and not conditions.noise:
            return None
        gold = {(place.doc, place.paragraph) for place in self.original.gold}
        draw = random.Random(f"{seed} {self.question.id}")

        def rerank(query: str, hits: Sequence[Hit]) -> Sequence[Hit]:
            if self.hidden:
                hits = [hit for hit in hits if (hit.doc, hit.paragraph) not in gold]
            kept, rest = list(hits[:top_k]), list(hits[top_k:])
            if conditions.noise:
                useless = [hit for hit in rest if (hit.doc, hit.paragraph) not in gold]
                far = useless[-max(conditions.noise, len(useless) // 2) :]
                kept += draw.sample(far, min(conditions.noise, len(far)))
                draw.shuffle(kept)
            ordered = [*kept, *(hit for hit in rest if hit not in kept)]
            return [replace(hit, rank=rank) for rank, hit in enumerate(ordered, start=1)]

        return rerank


def cases(questions: Sequence[Question], conditions: Conditions) -> list[Case]:
    """What is asked: each question, without its gold, or both ways; without, it has no answer."""
    asked = []
    for question in questions:
        if not conditions.remove_gold or not question.gold:
            asked.append(Case(question, question))
        if question.gold and (conditions.remove_gold or conditions.also_removed):
            id = question.id + _REMOVED * (not conditions.remove_gold)
            nothing = {"answerable": False, "gold": (), "must_include": (), "reference_answer": ""}
            bare = question.model_copy(update={"id": id, **nothing})
            asked.append(Case(bare, question, hidden=True))
    return asked
