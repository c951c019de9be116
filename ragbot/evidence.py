"""Sentences that could prove something, and how much of what was written they hold.

What proves what is decided in `citations`; here texts are taken apart and held against each other.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import Match, SequenceMatcher

from ragbot.text import HAN, fold, sentences
from ragbot.types import Citation, Hit
from ragbot.words import words


@dataclass(frozen=True, slots=True)
class Evidence:
    """A sentence of a passage that could prove something."""

    hit: Hit
    start: int
    end: int

    @property
    def text(self) -> str:
        return self.hit.text[self.start - self.hit.start : self.end - self.hit.start]


def gather(hits: Sequence[Hit]) -> list[Evidence]:
    """The sentences of the passages, in order, with their offsets in the document."""
    return [
        Evidence(hit, hit.start + start, hit.start + end)
        for hit in hits
        for start, end in sentences(hit.text)
    ]


_RUN = 2  # characters in a row that count as copied
_COPIED = 0.4  # of a sentence, in one piece, which then counts as copied


def copied(sentence: str, evidence: Sequence[Evidence]) -> tuple[float, frozenset[int]]:
    """Which pieces of evidence a model copied, by their places, and the share of its copy, from 0
    to 1, that they account for; what it made up is in none.

    A copy may be cut short, leave words out or run over several sentences.
    """
    wanted = fold(sentence).text
    if not wanted:
        return 0.0, frozenset()
    texts = [fold(piece.text).text for piece in evidence]
    blocks = [_common(text, wanted) for text in texts]
    sizes = [sum(block.size for block in found) for found in blocks]
    best = max(range(len(sizes)), key=lambda n: (sizes[n], -len(texts[n])), default=None)
    if best is None or not sizes[best]:
        return 0.0, frozenset()
    # Besides the best one, those of which a good part stands in the copy in one piece.
    longest = [max((block.size for block in found), default=0) for found in blocks]
    places = {best} | {n for n, size in enumerate(longest) if size >= _COPIED * len(texts[n])}
    held = {
        at for n in places for block in blocks[n] for at in range(block.b, block.b + block.size)
    }
    return len(held) / len(wanted), frozenset(places)


def _common(source: str, copy: str) -> list[Match]:
    matcher = SequenceMatcher(None, source, copy, autojunk=False)
    return [block for block in matcher.get_matching_blocks() if block.size >= _RUN]


def cited(evidence: Evidence, marker: int) -> Citation:
    """The evidence as what a marker stands for."""
    return Citation(
        marker=marker,
        doc=evidence.hit.doc,
        paragraph=evidence.hit.paragraph,
        start=evidence.start,
        end=evidence.end,
        quote=evidence.text,
    )


_MEASURED = re.compile(r"(\d[\d,.]*)\s*(%|[^\W\d_]+)")


def rivals(claim: str, source: str) -> bool:
    """Whether a source has other numbers of the same measure than a claim has of it: 95 % and 85 %,
    two years. A small model often takes the wrong one."""
    told, known = _measures(claim), _measures(source)
    return any(known.get(unit, set()) - numbers for unit, numbers in told.items())


def _measures(text: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for number, unit in _MEASURED.findall(fold(text).text):
        # Of a Chinese measure the first character tells; a Latin one is a word.
        measure = unit[0] if re.match(f"[{HAN}]", unit) else unit
        found.setdefault(measure, set()).add(number.replace(",", "").rstrip("."))
    return found


_DENIAL = re.compile(
    r"没有|未能|[并从尚]未|不是|并非|不[会能再曾]|无法|从不|非(?=[，但])|\b(?:not|no|never|nor|cannot)\b|n't\b"
)


def denies(text: str) -> bool:
    """Whether a text says of something that it is not so."""
    return bool(_DENIAL.search(fold(text).text))


_SAID_AGAIN = 0.5  # of the words that follow a denial


def contradicts(claim: str, source: str) -> bool:
    """Whether a claim says what a clause of its source denies."""
    if denies(claim):
        return False
    told = fold(claim).text
    clauses = [_DENIAL.split(fold(clause).text) for clause in re.split("[，；,;]", source)]
    denied = [content_words(parts[-1]) for parts in clauses if len(parts) > 1]
    return any(content and coverage(content, told) >= _SAID_AGAIN for content in denied)


# --- words in common -------------------------------------------------------------------------

STOP_WORDS = frozenset(
    "a an and are as at be been but by can could did do does for from had has have he her his in"
    " into is it its not of on or she so than that the their them there these they this to was were"
    " which while who will with would source sources article text says said states mentioned"
    " made make makes called"
    " 的 了 是 在 和 与 及 或 也 就 都 而 但 被 把 将 对 从 向 以 为 于 由 这 那 其 他 她 它 们"
    " 个 有 可以 因为 所以 如果 以及 并 等 中 上 下 里 来 去 到 说 文章 资料 提到 指出 根据 没有"
    " 不 会 能 要 该 此 之 作者 时候".split()
)


def content_words(text: str) -> dict[str, int]:
    """The content words of a text with their weights: a Chinese word's length, a Latin word's 2."""
    found = {}
    for word in words(text):
        if word not in STOP_WORDS:
            found[_stem(word)] = len(word) if re.match(f"[{HAN}]", word) else 2
    return found


def _stem(word: str) -> str:
    # Enough to match plurals and tenses; a real stemmer gained nothing here.
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 4 and word.isascii():
            return word[: -len(ending)]
    return word


def coverage(content: dict[str, int], source: str) -> float:
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
