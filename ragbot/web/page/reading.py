"""Documents as HTML for the reading pane: paragraphs with numbers, a quotation marked in its place.

A long document is shown in parts, so that hundreds of thousands of characters stall no browser.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

from ragbot.types import Document, Language, Paragraph
from ragbot.web.page.markup import escaped, lang
from ragbot.web.page.strings import word

WHOLE = 60_000  # characters of a document that is shown at once
_PART = 20_000  # of a longer one, about, on either side of the quotation

Part = Literal["around", "before", "after"]


@dataclass(frozen=True, slots=True)
class Spot:
    """Where to open a document: at `quote`, which is said to be `text[start:end]`.

    For a part `before` or `after` what is shown already, `start` is where that part ends or begins.
    """

    doc: str
    start: int = 0
    end: int = 0
    quote: str = ""
    part: Part = "around"


@dataclass(frozen=True, slots=True)
class Opened:
    """What the pane shows. There is text before `start` and after `end` if they say so."""

    title: str
    html: str
    start: int
    end: int
    length: int
    language: Language


def opened(documents: Mapping[str, Document], spot: Spot, language: Language) -> Opened:
    """A document, or its part around a spot; where it is gone, the quotation alone."""
    document = documents.get(spot.doc)
    if document is None:
        return Opened(spot.doc, _lost(spot, "gone", language), 0, 0, 0, language)
    length = len(document.text)
    stands = spot.part != "around" or _stands(document, spot)
    start, end = _window(document, spot)
    html = _paragraphs(document, (start, end), spot if stands else Spot(spot.doc), language)
    if not stands:
        html = _lost(spot, "changed", language) + html
    # A page of a whole document begins with its title; a part in the middle need not.
    return Opened(
        document.title or document.name, html, start, end, length, lang(document.text, language)
    )


def _stands(document: Document, spot: Spot) -> bool:
    return not spot.quote or document.text[spot.start : spot.end] == spot.quote


def _window(document: Document, spot: Spot) -> tuple[int, int]:
    """What is shown: all, or a part that begins and ends with a paragraph where these are short."""
    length = len(document.text)
    at = min(max(spot.start, 0), length)
    if length <= WHOLE:
        return 0, length
    if spot.part == "before":
        return _snapped(document, at - _PART), at
    if spot.part == "after":
        return at, _snapped(document, at + _PART)
    until = min(max(spot.end, at), length)
    return _snapped(document, at - _PART), _snapped(document, until + _PART)


def _snapped(document: Document, at: int) -> int:
    """The nearest beginning of a paragraph, if one is near; both ends of the text stay."""
    length = len(document.text)
    if not 0 < at < length:
        return min(max(at, 0), length)
    near = min(document.paragraphs, key=lambda one: abs(one.start - at), default=None)
    return near.start if near and abs(near.start - at) < _PART // 2 else at


def _paragraphs(document: Document, window: tuple[int, int], spot: Spot, language: Language) -> str:
    parts: list[str] = []
    headings: tuple[str, ...] | None = None if window[0] == 0 else ()
    for paragraph in document.paragraphs:
        start, end = max(paragraph.start, window[0]), min(paragraph.end, window[1])
        if start >= end and not (paragraph.start == paragraph.end and start == end):
            continue
        if paragraph.headings != headings:
            known = headings or ()
            parts += [_heading(one) for one in paragraph.headings[_common(known, paragraph) :]]
            headings = paragraph.headings
        parts.append(_paragraph(document, paragraph, (start, end), spot, language))
    return "".join(parts)


def _common(known: tuple[str, ...], paragraph: Paragraph) -> int:
    """How many of a paragraph's headings, from the outermost, stand above it already."""
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(known, paragraph.headings, strict=False))
    return sum(1 for _ in alike)


def _heading(text: str) -> str:
    return f'<h3 dir="auto">{escaped(text)}</h3>'


def _paragraph(
    document: Document,
    paragraph: Paragraph,
    shown: tuple[int, int],
    spot: Spot,
    language: Language,
) -> str:
    label = escaped(word("paragraph", language).format(paragraph.number))
    body = _marked(document.text, shown, spot, language)
    return (
        f'<div class="paragraph" data-paragraph="{paragraph.number}">'
        f'<span class="number" lang="{language}"><span aria-hidden="true">{paragraph.number}</span>'
        f'<span class="unseen">{label}</span></span><p dir="auto">{body}</p></div>'
    )


def _marked(text: str, shown: tuple[int, int], spot: Spot, language: Language) -> str:
    start, end = shown
    first, last = max(start, spot.start), min(end, spot.end)
    if spot.part != "around" or not spot.quote or first >= last:
        return escaped(text[start:end])
    quoted, quoted_end = (
        f'<span class="unseen" lang="{language}">{escaped(word(key, language))}</span>'
        for key in ("quoted", "quoted_end")
    )
    return (
        f"{escaped(text[start:first])}<mark>{quoted}{escaped(text[first:last])}{quoted_end}</mark>"
        f"{escaped(text[last:end])}"
    )


def _lost(spot: Spot, key: Literal["gone", "changed"], language: Language) -> str:
    quote = escaped(spot.quote)
    return (
        f'<div class="lost"><p lang="{language}">{escaped(word(key, language))}</p>'
        f'<blockquote lang="{lang(spot.quote)}" dir="auto">{quote}</blockquote></div>'
    )
