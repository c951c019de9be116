"""Sources that disagree: a sentence that tells the same as the cited one, with other numbers.

Only numbers are compared: in other words for the same thing nothing can be told apart reliably
without a model that is better than the one at hand.
"""

from __future__ import annotations

from collections.abc import Sequence

from ragbot.evidence import Evidence, content_words, coverage
from ragbot.text import across, detect_language, fold
from ragbot.words import stated_numbers

# The part of the cited sentence's words, numbers aside, that the other one must hold, and of the
# question's: 2016 and 2019 are no disagreement when one is of a bridge and one of a tower.
_ALIKE = 0.75
_ASKED = 0.8


def disagreeing(
    question: str, claim: str, proof: Evidence, others: Sequence[Evidence]
) -> Evidence | None:
    """The first piece of evidence, of another passage, that answers with other numbers than a
    claim and its proof do; None when none does, or the claim has no number."""
    said = stated_numbers(claim) & stated_numbers(proof.text)
    asked = stated_numbers(question)
    if not said - asked:
        return None
    words = _without_numbers(proof.text)
    wanted = _without_numbers(question)
    for other in others:
        told = stated_numbers(other.text)
        elsewhere = (other.hit.doc, other.hit.start) != (proof.hit.doc, proof.hit.start)
        alike = elsewhere and not across(detect_language(other.text), detect_language(proof.text))
        if not alike or not told - asked or told & (said - asked):
            continue
        source = fold(other.text).text
        if coverage(words, source) >= _ALIKE and coverage(wanted, source) >= _ASKED * coverage(
            wanted, fold(proof.text).text
        ):
            return other
    return None


def _without_numbers(text: str) -> dict[str, int]:
    return {
        word: weight
        for word, weight in content_words(text).items()
        if not any(map(str.isdigit, word))
    }
