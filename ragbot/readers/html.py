"""Web pages: the main content, as trafilatura finds it, and a list of what it leaves out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ragbot.readers.base import BOMS, Block, Source, clean, decode, mended_by
from ragbot.types import LeftOut

_INVISIBLE = {"script", "style", "noscript", "template", "head", "svg", "iframe", "select"}
_INLINE = set(
    "a abbr b bdi bdo big cite code data del dfn em font i img ins kbd label mark q rp rt ruby s"
    " samp small span strong sub sup time tt u var wbr".split()
)


def read_html(path: Path, keep_all: bool) -> Source:
    """A web page's main content, as trafilatura finds it; all that is visible with `keep_all`."""
    import trafilatura
    from lxml import html

    data = path.read_bytes()
    with mended_by(path, "not a page that can be read", "save it anew as text"):
        page = html.document_fromstring(_marked_up(data))
        visible = [Block(text) for text in _visible(page)]
        found = None
        if not keep_all:
            found = trafilatura.bare_extraction(
                page, include_comments=False, favor_recall=True, config=_extraction()
            )
    title = clean(page.findtext(".//title") or "").strip()
    blocks = list(_main_blocks(found.body)) if found is not None else []
    if not any(block.level == 0 for block in blocks):
        return Source(visible, title)
    left_out = [
        LeftOut(text, "not part of the page's main content") for text in _lost(visible, blocks)
    ]
    return Source(blocks, title, left_out)


def _lost(visible: Sequence[Block], kept: Sequence[Block]) -> Iterator[str]:
    """What is visible and not among what is kept, looked for from where the last was found."""
    text, at = _squeezed("".join(block.text for block in kept)), 0
    for block in visible:
        piece = _squeezed(block.text)
        if text.startswith(piece, at):  # what follows mostly follows: a search each would take long
            at += len(piece)
        elif (found := text.find(piece)) >= 0:
            at = found + len(piece)
        else:
            yield block.text


@cache
def _extraction() -> Any:
    # The library's least sizes are meant for English; so short a Chinese text is whole.
    from trafilatura.settings import use_config

    config = use_config()
    config.set("DEFAULT", "MIN_EXTRACTED_SIZE", "40")
    config.set("DEFAULT", "MIN_OUTPUT_SIZE", "10")
    return config


def _marked_up(data: bytes) -> str | bytes:
    # A page that declares its encoding is lxml's to decode; else the rule for all files holds.
    declared = re.search(rb"<(?:meta|\?xml)[^>]{0,200}(?:charset|encoding)\s*=", data[:4096], re.I)
    if declared and not data.startswith(tuple(bom for bom, _ in BOMS)):
        return data
    text = decode(data)
    if text is None:
        raise ValueError("it is not text")
    return clean(text)


def _main_blocks(body: Any) -> Iterator[Block]:
    for element in body:
        text = clean("\n".join(_lines(element))).strip()
        if text and element.tag == "head":
            rend = element.get("rend") or "h2"
            yield Block(text, int(rend[1]) if rend[1:].isdigit() else 2, text)
        elif text:
            yield Block(text)


def _lines(element: Any) -> Iterator[str]:
    """A block's text; a line for each item of a list and each row of a table."""
    rows = list(element.iter("item", "row"))
    if not rows:
        yield " ".join("".join(element.itertext()).split())
    for row in rows:
        cells = row.findall("cell") or [row]
        yield " | ".join(" ".join("".join(cell.itertext()).split()) for cell in cells)


def _visible(page: Any) -> Iterator[str]:
    """The page's visible text, a piece for each run that no block element interrupts."""
    pieces: list[list[str]] = [[]]
    for event, element in _walk(page):
        if element.tag not in _INLINE:
            pieces.append([])
        pieces[-1].append((element.text if event == "start" else element.tail) or "")
    for piece in pieces:
        if text := " ".join(clean("".join(piece)).split()):
            yield text


def _walk(page: Any) -> Iterator[tuple[str, Any]]:
    from lxml import etree

    walker = etree.iterwalk(page, events=("start", "end"))
    for event, element in walker:
        hidden = not isinstance(element.tag, str) or element.tag in _INVISIBLE
        if event == "start" and hidden:
            walker.skip_subtree()
        if not (event == "start" and hidden):
            yield event, element


def _squeezed(text: str) -> str:
    return re.sub(r"[\s|]+", "", text)
