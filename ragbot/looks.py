"""What a generator reads at once: the sentences that bear most on a question, of whatever passages.

A small model reads little well, and each token takes time. The best sentences of the best passages
hold the answer as often as twice as many tokens of whole passages do, and what is left out is not
worth a second look (docs/architecture.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ragbot.evidence import Evidence
from ragbot.text import across, detect_language
from ragbot.types import Hit, Language

# Tokens, about, of a look; a single sentence may be longer. Between languages the small model loses
# its way among other sentences sooner.
ROOM, ROOM_ACROSS = 160.0, 80.0


@dataclass(frozen=True, slots=True)
class Look:
    """Passages, the one with the best sentence first, and of each the sentences that are read, in
    order."""

    passages: Sequence[Hit]
    sentences: Sequence[Sequence[Hit]]

    @property
    def texts(self) -> list[str]:
        """What is read of each passage: the headings over it, and its sentences."""
        return ["\n".join((*parts[0].chunk.headings, _joined(parts))) for parts in self.sentences]

    @property
    def score(self) -> float:
        """That of the best sentence."""
        return max(part.score for part in self._parts)

    def best(self, evidence: Sequence[Evidence]) -> list[Evidence]:
        """The evidence that is the best sentence."""
        best = max(self._parts, key=lambda part: part.score)
        return [one for one in evidence if _in(one, best)]

    def behind(self, evidence: Sequence[Evidence]) -> float:
        """How far the best of some evidence scores below the best sentence."""
        scores = [part.score for part in self._parts if any(_in(one, part) for one in evidence)]
        return self.score - max(scores, default=0.0)

    @property
    def _parts(self) -> list[Hit]:
        return [part for parts in self.sentences for part in parts]


def _in(evidence: Evidence, part: Hit) -> bool:
    return evidence.hit.doc == part.doc and part.start <= evidence.start < part.end


def look_at(hits: Sequence[Hit], ranked: Sequence[Hit], asked: Language) -> Look | None:
    """What is read of `hits` for a question in a language, of which `ranked` are the sentences, the
    best first; None where there are none."""
    return _arranged(_fitting(ranked, asked), hits) if ranked else None


def weight(text: str) -> float:
    """About how many tokens a text has: a bound for no model, near enough to plan by."""
    return sum(0.9 if ord(char) > 0x2E7F else 0.3 for char in text)


def _fitting(ranked: Sequence[Hit], asked: Language) -> list[Hit]:
    """The best sentence, and the next ones in its language as long as there is room."""
    language = detect_language(ranked[0].text, asked)
    chosen: list[Hit] = []
    free = ROOM_ACROSS if across(language, asked) else ROOM
    for part in ranked:
        taken = weight(part.text)
        fits = taken <= free and not across(detect_language(part.text, language), language)
        if fits or not chosen:
            chosen.append(part)
            free -= taken
    return chosen


def _arranged(chosen: Sequence[Hit], hits: Sequence[Hit]) -> Look:
    ranks = dict.fromkeys(part.rank for part in chosen)  # each once, in order
    return Look(
        [next(hit for hit in hits if hit.rank == rank) for rank in ranks],
        [sorted((p for p in chosen if p.rank == rank), key=lambda p: p.start) for rank in ranks],
    )


def _joined(parts: Sequence[Hit]) -> str:
    text = ""
    for part in parts:
        text += " " * (text[-1:].isascii() and bool(text)) + part.text
    return text
