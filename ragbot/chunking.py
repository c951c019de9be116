"""Documents to chunks: a paragraph each, or runs of sentences of a paragraph that is too long.

Every chunk is a slice of its document's text. What a token is, the caller says by `count`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise

from ragbot.text import sentences, stripped
from ragbot.types import Chunk, Document, Paragraph

Count = Callable[[str], int]

# Where a sentence that is too long for one chunk may be cut, the best places first.
_CUTS = (re.compile(r"(?<=[；;：:，,、。！？])"), re.compile(r"(?<=\s)"))
_LONGEST_PIECE = 64  # characters, where nothing but force helps


@dataclass(frozen=True, slots=True)
class _Piece:
    start: int
    end: int
    tokens: int


def chunk(document: Document, *, limit: int, count: Count) -> list[Chunk]:
    """The chunks of a document, in order, none of whose passages has more than `limit` tokens.

    Together they cover every paragraph but for white space between sentences.
    """
    return [
        Chunk(
            doc=document.name,
            paragraph=paragraph.number,
            start=start,
            end=end,
            text=document.text[start:end],
            headings=headings,
        )
        for paragraph in document.paragraphs
        for headings in (_fitting(paragraph.headings, limit // 2, count),)
        for start, end in _spans(document.text, paragraph, limit - _tokens(headings, count), count)
    ]


def _fitting(headings: tuple[str, ...], limit: int, count: Count) -> tuple[str, ...]:
    # The outer headings go first: the inner ones say most about the paragraph.
    while headings and _tokens(headings, count) > limit:
        headings = headings[1:]
    return headings


def _tokens(headings: tuple[str, ...], count: Count) -> int:
    return sum(count(heading) + 1 for heading in headings)


def _spans(text: str, paragraph: Paragraph, limit: int, count: Count) -> Iterator[tuple[int, int]]:
    pieces = [
        piece
        for start, end in sentences(text[paragraph.start : paragraph.end])
        for piece in _pieces(text, paragraph.start + start, paragraph.start + end, limit, count)
    ]
    if not pieces:
        return
    # As few chunks as fit, of about the same length, so that none is a forlorn last sentence.
    total = sum(piece.tokens for piece in pieces)
    aim = total / -(-total // limit)
    start, used = pieces[0].start, 0
    for before, piece in zip([pieces[0], *pieces], pieces, strict=False):
        if used and (used + piece.tokens > limit or used + piece.tokens / 2 > aim):
            yield start, before.end
            start, used = piece.start, 0
        used += piece.tokens
    yield start, pieces[-1].end


def _pieces(text: str, start: int, end: int, limit: int, count: Count) -> Iterator[_Piece]:
    """A sentence, or, when it is too long, the parts that it can be cut into."""
    # No token is longer than this many characters by far, so a huge text is not counted whole.
    if end - start <= limit * 16:
        tokens = count(text[start:end])
        if tokens <= limit:
            yield _Piece(start, end, tokens)
            return
    for part in _cut(text, start, end):
        first, last = stripped(text, *part)
        if last - first == end - start:  # a single character that no budget is small enough for
            yield _Piece(first, last, limit)
        elif first < last:
            yield from _pieces(text, first, last, limit, count)


def _cut(text: str, start: int, end: int) -> list[tuple[int, int]]:
    for pattern in _CUTS:
        parts = [part for part in pattern.split(text[start:end]) if part]
        if len(parts) > 1:
            ends = list(accumulate(map(len, parts), initial=start))
            return list(pairwise(ends))
    step = min(_LONGEST_PIECE, max(1, (end - start) // 2))
    return [(at, min(at + step, end)) for at in range(start, end, step)]
