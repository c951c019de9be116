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

from ragbot.text import HAN, across, detect_language, fold, sentences, to_language
from ragbot.types import Citation, Hit, Language
from ragbot.words import mentioned_numbers, names, stated_numbers, topic, words

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
_CLAUSE = re.compile(r"[，；,;]|而(?!且)|\band\b|\bwhile\b")

_STOP_WORDS = frozenset(
    "a an and are as at be been but by can could did do does for from had has have he her his in"
    " into is it its not of on or she so than that the their them there these they this to was were"
    " which while who will with would source sources article text says said states mentioned"
    " made make makes called"
    " 的 了 是 在 和 与 及 或 也 就 都 而 但 被 把 将 对 从 向 以 为 于 由 这 那 其 他 她 它 们"
    " 个 有 可以 因为 所以 如果 以及 并 等 中 上 下 里 来 去 到 说 文章 资料 提到 指出 根据 没有"
    " 不 会 能 要 该 此 之 作者 时候".split()
)


def _content(text: str) -> dict[str, int]:
    """The content words of a text with their weights: a Chinese word's length, a Latin word's 2."""
    found = {}
    for word in words(text):
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
    retell: Callable[[str], str] = str
    """Makes of a proven claim what the reader is shown."""
    citations: list[Citation] = field(default_factory=list)

    def cite(self, written: str) -> str | None:
        """The sentence as it may be shown, with its markers, or None when nothing supports it."""
        stripped, hinted = strip_markers(written)
        claim = to_language(_tidy(stripped), self.language)
        if not _says_something(claim, self.question):
            return None
        proof = self.support(claim, {number - 1 for number in hinted})
        if not proof:
            return None
        markers = dict.fromkeys(self._marker(evidence) for evidence in proof)
        return self.retell(claim) + "".join(f"[{marker}]" for marker in markers)

    def support(self, claim: str, hinted: set[int]) -> Sequence[Evidence]:
        """The sentences that prove a claim; none when nothing does.

        The one that proves it best as a whole, and, for each clause that this one does not prove,
        the one that does.
        """
        whole = _best(self._scores(claim, hinted))
        proofs = [whole]
        clauses = [clause for clause in _CLAUSE.split(claim) if _content(clause)]
        for clause in clauses if len(clauses) > 1 else ():
            scores = self._scores(clause, hinted)
            proofs.append(whole if whole is not None and scores[whole] else _best(scores))
        if whole is None and (None in proofs[1:] or len(proofs) == 1):
            return ()
        return [self.evidence[proof] for proof in dict.fromkeys(proofs) if proof is not None]

    def _scores(self, claim: str, hinted: set[int]) -> list[float]:
        """How well each piece of evidence supports the claim; 0 where it does not."""
        language = detect_language(claim)
        foreign = [across(language, detect_language(piece.text)) for piece in self.evidence]
        cosines = self.similarity(claim) if any(foreign) else [0.0] * len(foreign)
        content = _content(claim)
        new = _unasked(content, self.question)
        named = names(claim) - names(self.question)
        about = topic(claim)
        if about and about[0] in _STOP_WORDS:  # 作者看好…: about the text itself
            about = []
        scores = []
        for evidence, abroad, cosine in zip(self.evidence, foreign, cosines, strict=True):
            if abroad:
                score = cosine if cosine >= ACROSS_LANGUAGES else 0.0
            else:
                fits = _names_all(evidence, named) and _speaks_of(evidence, about)
                score = _shared(content, new, evidence) if fits else 0.0
            if self._missing_numbers(claim, evidence.text):
                score = 0.0
            scores.append(score + _HINT * (score > 0 and evidence.passage in hinted))
        return scores

    def _missing_numbers(self, claim: str, source: str) -> set[str]:
        given = mentioned_numbers(source) | mentioned_numbers(self.question)
        return stated_numbers(claim) - given

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


# Of a folded question: what may be answered with its own words.
_CLOSED = re.compile(
    r"吗|是否|是不是|有没有|还是|\bor\b"
    r"|^(?:is|are|was|were|do|does|did|can|could|has|have|had|will|would|should)\b"
)


def _unasked(content: dict[str, int], question: str) -> dict[str, int]:
    """Those of a claim's content words that the question did not supply."""
    asked = fold(question).text
    return {word: weight for word, weight in content.items() if word not in asked}


def _says_something(claim: str, question: str) -> bool:
    """Whether a claim holds a word that the question does not, or answers yes or no or a choice.

    Of the answers of seven runs 8 held none, "Tencent's system kept the idea alive" for which one
    it was: each was wrong.
    """
    content = _content(claim)
    closed = _CLOSED.search(fold(question).text)
    return bool(content if closed else _unasked(content, question))


def _best(scores: Sequence[float]) -> int | None:
    """The place of the first of the highest scores, or None when none is above 0."""
    most = max(scores, default=0.0)
    return scores.index(most) if most > 0 else None


def _shared(content: dict[str, int], new: dict[str, int], evidence: Evidence) -> float:
    """How much of a claim's words, all and new, a sentence holds; 0 when it is too little."""
    source = fold(evidence.text).text
    every, fresh = _covered(content, source), _covered(new, source)
    return every + fresh if every >= _ALL_WORDS and fresh >= _NEW_WORDS else 0.0


def _names_all(evidence: Evidence, named: set[str]) -> bool:
    """Whether the passage holds every name: a sentence may call "he" whom another one names."""
    folded = fold(evidence.hit.text).text
    return all(name in folded for name in named)


def _speaks_of(evidence: Evidence, about: list[str]) -> bool:
    """Whether the passage knows what the claim is about: the price of apples proves none of pears.

    A pair of characters in common is enough, for the words of a paraphrase.
    """
    folded = fold(evidence.hit.text).text
    pairs = [word[i : i + 2] for word in about for i in range(max(1, len(word) - 1))]
    return not pairs or any(pair in folded for pair in pairs)


def _tidy(text: str) -> str:
    text = re.sub(r"\s+([.,;:!?。，；：！？])", r"\1", text.strip())
    return re.sub(r"^(?:[-*•]|\d+[.)、])\s+", "", text)
