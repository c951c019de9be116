"""From what a model wrote to what may be shown: each sentence proven by a quotation, or dropped.

The model's markers are hostile input: they are parsed, taken as a hint of where it looked, and
thrown away. A sentence is kept when a sentence of the passages supports it, and gets a marker of
its own that stands for exactly that quotation. No model is asked; `Similarity` is the only thing
not computed here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ragbot.text import (
    HAN,
    detect_language,
    fold,
    mentioned_numbers,
    names,
    sentences,
    spans_of_words,
    stated_numbers,
    to_language,
)
from ragbot.types import Citation, Hit, Language

Similarity = Callable[[str], Sequence[float]]
"""A claim's cosine with each piece of evidence, in the order of `gather`."""

# --- markers ---------------------------------------------------------------------------------

_LABEL = r"(?:资料|資料|来源|來源|段落|文献|文獻|source|sources|passage|doc|document)"
_LIST = r"\^?\d+\^?(?:\s*(?:[-–~,，、;；]|and|和|与|與)\s*\^?\d+\^?)*"
_MARKER = re.compile(
    rf"\s*(?:[\[［【〔]\s*{_LABEL}?\s*[:：]?\s*{_LIST}\s*[\]］】〕]"
    rf"|[(（]\s*(?:see\s+)?{_LABEL}\s*[:：]?\s*[\[［【]?{_LIST}[\]］】]?\s*[)）])",
    re.IGNORECASE,
)
_MARKER_RANGE = re.compile(r"(\d+)\s*[-–~]\s*(\d+)|(\d+)")
_MOST_IN_A_RANGE = 20


def strip_markers(text: str) -> tuple[str, list[int]]:
    """The text without anything that looks like a citation marker, and the numbers it held."""
    numbers: list[int] = []
    for marker in _MARKER.findall(text):
        for first, last, single in _MARKER_RANGE.findall(marker):
            low, high = (int(single), int(single)) if single else (int(first), int(last))
            numbers += range(low, min(high, low + _MOST_IN_A_RANGE) + 1)
    return _MARKER.sub("", text), numbers


def stream_sentences(pieces: Iterable[str]) -> Iterator[str]:
    """Whole sentences out of a stream of pieces, each with the markers that follow it.

    A sentence is complete when the next one has begun; what is left at the end is one, too.
    """
    buffer = ""
    for piece in pieces:
        buffer += piece
        while (cut := _first_end(buffer)) is not None:
            yield buffer[:cut].strip()
            buffer = buffer[cut:]
    if buffer.strip():
        yield from (part.strip() for part in _split(buffer) if part.strip())


def _first_end(buffer: str) -> int | None:
    ends = _ends(buffer)
    return ends[0] if len(ends) > 1 else None


def _split(buffer: str) -> list[str]:
    ends = _ends(buffer)
    return [buffer[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def _ends(buffer: str) -> list[int]:
    # Markers are blanked, not removed, so that offsets stay; one that follows a full stop then
    # falls into the gap before the next sentence and is handed to the sentence it follows.
    blank = _MARKER.sub(lambda marker: " " * len(marker.group()), buffer)
    if (opened := re.search(r"[\[［【〔][^\]］】〕]{0,12}$", blank)) is not None:
        blank = blank[: opened.start()]
    spans = sentences(blank)
    return [start for start, _ in spans[1:]] + [len(buffer)]


# --- evidence --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Evidence:
    """A sentence of a passage that could prove something. `passage` counts from 0."""

    passage: int
    hit: Hit
    start: int
    end: int

    @property
    def text(self) -> str:
        return self.hit.text[self.start - self.hit.start : self.end - self.hit.start]


def gather(hits: Sequence[Hit]) -> list[Evidence]:
    """The sentences of the passages, in order, with their offsets in the document."""
    return [
        Evidence(number, hit, hit.start + start, hit.start + end)
        for number, hit in enumerate(hits)
        for start, end in sentences(hit.text)
    ]


# --- support ---------------------------------------------------------------------------------

# Calibrated on sentence pairs of a parallel corpus (docs/architecture.md): 96 % of translations
# have a cosine above this, 20 % of the nearest wrong sentences of the same paragraph do.
ACROSS_LANGUAGES = 0.81
# Within a language: the part of a claim's words, and of those the question did not supply, that
# its quotation must hold.
_ALL_WORDS = 0.45
_NEW_WORDS = 0.5
_HINT = 0.05  # how much the model's own marker is worth, as a part of all words
_TWO_HELP = 0.2  # a second quotation is added when it raises the covered part by this much

_STOP_WORDS = frozenset(
    "a an and are as at be been but by can could did do does for from had has have he her his in"
    " into is it its not of on or she so than that the their them there these they this to was were"
    " which while who will with would source sources article text says said states mentioned"
    " made make makes called"
    " 的 了 是 在 和 与 及 或 也 就 都 而 但 被 把 将 对 从 向 以 为 于 由 这 那 其 他 她 它 们"
    " 个 有 可以 因为 所以 如果 以及 并 等 中 上 下 里 来 去 到 说 文章 资料 提到 指出 根据 没有"
    " 不 会 能 要 该 此 之".split()
)


def _content(text: str) -> dict[str, int]:
    """The content words of a text with their weights: a Chinese word's length, a Latin word's 2."""
    found = {}
    for word, _, _ in spans_of_words(fold(text).text):
        if word not in _STOP_WORDS:
            found[_stem(word)] = len(word) if re.match(f"[{HAN}]", word) else 2
    return found


def _stem(word: str) -> str:
    # Enough to match plurals and tenses; a real stemmer gained nothing here.
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 4 and word.isascii():
            return word[: -len(ending)]
    return word


def _covered(content: dict[str, int], source: str) -> float:
    """The share of the words' weight that the folded source holds; 1 when there are no words."""
    total = sum(content.values())
    held = sum(weight for word, weight in content.items() if word in source)
    # A Chinese word that is not there as a whole counts by its characters, at half: 宣布 / 宣告.
    partly = sum(
        sum(char in source for char in word) / 2
        for word in content
        if word not in source and len(word) > 1 and re.match(f"[{HAN}]", word)
    )
    return (held + partly) / total if total else 1.0


@dataclass(slots=True)
class Citer:
    """Turns the sentences of one answer into proven ones, numbering quotations as they appear."""

    question: str
    language: Language
    evidence: Sequence[Evidence]
    similarity: Similarity
    citations: list[Citation] = field(default_factory=list)

    def cite(self, written: str) -> str | None:
        """The sentence as it may be shown, with its markers, or None when nothing supports it."""
        stripped, hinted = strip_markers(written)
        claim = to_language(_tidy(stripped), self.language)
        if not claim:
            return None
        found = self.support(claim, {number - 1 for number in hinted})
        if not found:
            return None
        markers = dict.fromkeys(self._marker(evidence) for evidence in found)
        return claim + "".join(f"[{marker}]" for marker in markers)

    def support(self, claim: str, hinted: set[int]) -> list[Evidence]:
        """The one or two sentences that prove a claim, best first; none when nothing does."""
        if not self.evidence:
            return []
        claimed = stated_numbers(claim)
        named = names(claim) - names(self.question)
        scored = []
        for evidence, cosine in zip(self.evidence, self.similarity(claim), strict=True):
            score = self._score(claim, evidence, cosine, named)
            if score:
                scored.append((score + _HINT * (evidence.passage in hinted), evidence))
        scored.sort(key=lambda pair: -pair[0])
        for _, first in scored:
            missing = claimed - mentioned_numbers(first.text) - mentioned_numbers(self.question)
            second = self._complement(claim, first, [e for _, e in scored[:6]])
            if second:
                missing -= mentioned_numbers(second.text)
            if not missing:
                return [first, second] if second else [first]
        return []

    def _score(self, claim: str, evidence: Evidence, cosine: float, named: set[str]) -> float:
        """How well one sentence supports the claim, new names and all; 0 when it does not."""
        if _across(claim, evidence.text):
            return cosine if cosine >= ACROSS_LANGUAGES else 0.0
        if not _names_all(evidence.hit.text, named):
            return 0.0
        source = fold(evidence.text).text
        words = _content(claim)
        asked = fold(self.question).text
        new = {word: weight for word, weight in words.items() if word not in asked}
        every, fresh = _covered(words, source), _covered(new, source)
        return every + fresh if every >= _ALL_WORDS and fresh >= _NEW_WORDS else 0.0

    def _complement(self, claim: str, first: Evidence, rest: list[Evidence]) -> Evidence | None:
        if _across(claim, first.text):
            return None
        words = _content(claim)
        have = _covered(words, fold(first.text).text)
        gains = [
            (_covered(words, fold(first.text + "\n" + other.text).text) - have, -order)
            for order, other in enumerate(rest)
            if other != first
        ]
        gain, order = max(gains, default=(0.0, 0))
        return [e for e in rest][-order] if gain >= _TWO_HELP else None

    def _marker(self, evidence: Evidence) -> int:
        for citation in self.citations:
            if (citation.doc, citation.start) == (evidence.hit.doc, evidence.start):
                return citation.marker
        marker = len(self.citations) + 1
        self.citations.append(
            Citation(
                marker=marker,
                doc=evidence.hit.doc,
                paragraph=evidence.hit.paragraph,
                start=evidence.start,
                end=evidence.end,
                quote=evidence.text,
            )
        )
        return marker


def _names_all(passage: str, named: set[str]) -> bool:
    """Whether a passage holds every name: a sentence may call "he" whom another one names."""
    folded = fold(passage).text
    return all(name in folded for name in named)


def _across(claim: str, source: str) -> bool:
    return (detect_language(claim) == "en") != (detect_language(source) == "en")


def _tidy(text: str) -> str:
    text = re.sub(r"\s+([.,;:!?。，；：！？])", r"\1", text.strip())
    return re.sub(r"^(?:[-*•]|\d+[.)、])\s+", "", text)
