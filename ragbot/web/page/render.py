"""Answers as HTML: each sentence with its state, its markers as buttons, and what they stand for.

The text is others' and is escaped piece by piece (`ragbot.web.page.markup`). Documents are shown by
`reading`, conversations saved by `saving`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ragbot.retriever import NEAR
from ragbot.text import sentences
from ragbot.types import Answer, Citation, Hit, Language
from ragbot.web.page.markup import escaped, lang
from ragbot.web.page.strings import word

_MARKER = re.compile(r"\s*\[(\d{1,4})\]")
_QUOTES = (("「", "」"), ("『", "』"), ("“", "”"), ("《", "》"))
_LISTED = 4  # passages that are named while they are read


@dataclass(frozen=True, slots=True)
class View:
    """For whom an answer is rendered: the page's language, and whether it is from own documents."""

    language: Language
    mine: bool = False


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of an answer without its markers, which stand at offsets into `text`.

    `gap` is the white space after it.
    """

    text: str
    markers: tuple[tuple[int, int], ...]
    gap: str = ""


# --- sentences -------------------------------------------------------------------------------


def split(text: str, known: frozenset[int]) -> list[Sentence]:
    """The sentences of an answer; only `known` markers are taken for markers."""
    bare, marks = _without_markers(text, known)
    spans = _whole(bare, sentences(bare))
    if not spans:
        return []
    owned: list[list[tuple[int, int]]] = [[] for _ in spans]
    for at, number in marks:
        place = next((n for n, (_, end) in enumerate(spans) if at <= end), len(spans) - 1)
        start, end = spans[place]
        owned[place].append((min(max(at, start), end) - start, number))
    following = [start for start, _ in spans[1:]] + [len(bare)]
    return [
        Sentence(bare[start:end], tuple(own), bare[end:after])
        for (start, end), after, own in zip(spans, following, owned, strict=True)
    ]


def _without_markers(text: str, known: frozenset[int]) -> tuple[str, list[tuple[int, int]]]:
    pieces: list[str] = []
    marks: list[tuple[int, int]] = []
    length = last = 0
    for match in _MARKER.finditer(text):
        if int(match[1]) in known:
            pieces.append(text[last : match.start()])
            length += len(pieces[-1])
            marks.append((length, int(match[1])))
            last = match.end()
    return "".join(pieces) + text[last:], marks


def _whole(text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The spans, those joined between which a quotation goes on: its frame proves all of it."""
    joined: list[tuple[int, int]] = []
    for start, end in spans:
        if joined and _open(text[joined[-1][0] : joined[-1][1]]):
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    return joined


def _open(text: str) -> bool:
    return any(text.count(left) > text.count(right) for left, right in _QUOTES)


# --- the answer ------------------------------------------------------------------------------


def answer_html(answer: Answer, view: View) -> str:
    """An answer with its sources, what comes nearest to a refusal, and what was not used."""
    shown = (*answer.citations, *(answer.related if answer.abstained else ()))
    return "".join(
        (
            _told(answer, {one.marker: one for one in shown}, view),
            _searched(answer, view.language),
            _sources(answer, answer.citations, "sources", view),
            _sources(answer, answer.related if answer.abstained else (), "related", view),
            _unused(answer, view),
            _figures(answer, view.language),
        )
    )


def piece_html(text: str) -> str:
    """What was said of an answer so far; its markers are numbers until it is finished."""
    lines = "".join(f"<p>{escaped(line)}</p>" for line in text.split("\n") if line.strip())
    return f'<div class="told" lang="{lang(text)}">{lines}</div>' if lines else ""


def reading_html(passages: Sequence[Hit], language: Language) -> str:
    """The passages that are being read, by name."""
    rows = [
        f"<li><bdi>{escaped(hit.doc)}</bdi> <span>{_paragraph(hit.paragraph, language)}</span></li>"
        for hit in passages[:_LISTED]
    ]
    more = len(passages) - _LISTED
    return "".join(rows) + (f"<li>+{more}</li>" if more > 0 else "")


def nearest_html(nearest: Citation, view: View) -> str:
    """The sentence that comes nearest, to read until there is an answer."""
    heading = escaped(word("nearest", view.language))
    return f"<h3>{heading}</h3>{_source(nearest, None, view)}"


def _told(answer: Answer, shown: dict[int, Citation], view: View) -> str:
    paragraphs: list[list[str]] = [[]]
    for sentence in split(answer.answer, frozenset(shown)):
        paragraphs[-1].append(_sentence(sentence, answer, shown, view))
        if "\n" in sentence.gap:
            paragraphs.append([])
        else:
            paragraphs[-1].append(" " if sentence.gap else "")
    body = "".join(f"<p>{''.join(parts)}</p>" for parts in paragraphs if "".join(parts).strip())
    kind = "told refused" if answer.abstained else "told"
    head = ""
    if answer.abstained and answer.passages:  # a greeting was not looked for
        said = escaped(word("refused", view.language))
        head = f'<p class="verdict" lang="{view.language}">{said}</p>'
    return f'{head}<div class="{kind}" lang="{answer.language}">{body}</div>'


def _sentence(sentence: Sentence, answer: Answer, shown: dict[int, Citation], view: View) -> str:
    parts: list[str] = []
    last = 0
    for at, number in sentence.markers:
        parts.append(escaped(sentence.text[last:at]))
        parts.append(_marker(shown[number], answer.abstained, view))
        last = at
    parts.append(escaped(sentence.text[last:]))
    if sentence.markers or answer.abstained:
        state = "proven" if not answer.abstained else "plain"
        return f'<span class="said {state}">{"".join(parts)}</span>'
    label = escaped(word("unproven", view.language))
    return (
        f'<span class="said unproven"><span class="claim">{"".join(parts)}</span>'
        f'<span class="state" lang="{view.language}">{label}</span></span>'
    )


def _marker(citation: Citation, related: bool, view: View) -> str:
    key = "marker_related" if related else "marker_mine" if view.mine else "marker"
    label = word(key, view.language).format(
        n=citation.marker, doc=citation.doc, paragraph=citation.paragraph
    )
    return (
        f'<button type="button" class="marker" data-n="{citation.marker}" {_place(citation)}'
        f' lang="{view.language}" aria-label="{escaped(label)}">{citation.marker}</button>'
    )


def _place(item: Citation | Hit) -> str:
    """Where the reading pane is to open, and what stands there."""
    quote = item.quote if isinstance(item, Citation) else item.text
    return (
        f'data-doc="{escaped(item.doc)}" data-paragraph="{item.paragraph}"'
        f' data-start="{item.start}" data-end="{item.end}"'
        f' data-quote="{escaped(quote)}" data-lang="{lang(quote)}"'
    )


# --- beneath it ------------------------------------------------------------------------------


def _sources(answer: Answer, citations: Sequence[Citation], kind: str, view: View) -> str:
    if not citations:
        return ""
    rows = "".join(
        f'<li><span class="number" aria-hidden="true">{one.marker}</span>'
        f"{_source(one, _score(one, answer.passages), view)}</li>"
        for one in citations
    )
    heading = escaped(word(kind, view.language))
    return f'<section class="sources {kind}"><h3>{heading}</h3><ol>{rows}</ol></section>'


def _unused(answer: Answer, view: View) -> str:
    """Passages that nothing was taken from; none for what is far from all, such as a greeting."""
    used = (*answer.citations, *answer.related)
    if not used:
        return ""
    rest = [
        hit
        for hit in answer.passages
        if hit.score >= NEAR and not any(_holds(hit, one) for one in used)
    ]
    if not rest:
        return ""
    rows = "".join(f"<li>{_source(hit, hit.score, view)}</li>" for hit in rest)
    heading = escaped(word("unused", view.language).format(len(rest)))
    return f'<details class="unused"><summary>{heading}</summary><ol>{rows}</ol></details>'


def _source(item: Citation | Hit, score: float | None, view: View) -> str:
    quote = item.quote if isinstance(item, Citation) else item.text
    mine = f'<span class="badge">{escaped(word("mine", view.language))}</span>'
    figure = escaped(word("score", view.language).format(f"{score:.2f}")) if score else ""
    # Opened by the name, so that the quote can be selected; what is under it opens it, too.
    return (
        f'<div class="source" {_place(item)}><button type="button" class="open">'
        f'<bdi class="doc">{escaped(item.doc)}</bdi></button>{mine if view.mine else ""}'
        f'<span class="where">{_paragraph(item.paragraph, view.language)}</span>'
        f'<span class="score">{figure}</span>'
        f'<blockquote lang="{lang(quote)}" dir="auto">{escaped(quote)}</blockquote></div>'
    )


def _searched(answer: Answer, language: Language) -> str:
    others = [query for query in answer.queries if query != answer.question]
    if not others:
        return ""
    queries = " · ".join(f'<q lang="{lang(one)}">{escaped(one)}</q>' for one in others)
    return f'<p class="searched">{escaped(word("searched_for", language)).format(queries)}</p>'


def _figures(answer: Answer, language: Language) -> str:
    said = [word("took", language).format(f"{answer.timings.total_ms / 1000:.1f}")]
    if not answer.abstained:
        said.append(word("confidence", language).format(round(answer.confidence * 100)))
    return f'<p class="figures">{" · ".join(map(escaped, said))}</p>'


def _paragraph(number: int, language: Language) -> str:
    return escaped(word("paragraph", language).format(number))


def _score(citation: Citation, passages: Sequence[Hit]) -> float | None:
    return next(_scores(citation, passages), None)


def _scores(citation: Citation, passages: Sequence[Hit]) -> Iterator[float]:
    return (hit.score for hit in passages if _holds(hit, citation))


def _holds(hit: Hit, citation: Citation) -> bool:
    return hit.doc == citation.doc and hit.start <= citation.start and citation.end <= hit.end
