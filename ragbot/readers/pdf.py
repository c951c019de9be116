"""PDF: the text that pypdf extracts, put together to paragraphs."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ragbot.errors import CorpusError
from ragbot.readers.base import TERMINAL, Block, Source, clean, mended_by
from ragbot.text import HAN
from ragbot.types import LeftOut

if TYPE_CHECKING:
    from pypdf import PdfReader


def read_pdf(path: Path, keep_all: bool) -> Source:
    """A PDF's text, its lines put together to paragraphs, without running heads and feet."""
    from pypdf import PdfReader

    with mended_by(path, "a damaged PDF", "export it anew"):
        reader = PdfReader(path)
        _refuse_locked(path, reader)
        pages = [clean(page.extract_text() or "").split("\n") for page in reader.pages]
        title = clean((reader.metadata.title if reader.metadata else "") or "").strip()
    pages = [[line.strip() for line in page if line.strip()] for page in pages]
    if not any(pages):
        raise CorpusError(f"{path} is a PDF without text: run text recognition (OCR) over it.")
    running = set() if keep_all else _running_lines(pages)
    left_out = [
        LeftOut(line, "running head, foot or page number")
        for page in pages
        for line in page
        if _pattern(line) in running
    ]
    lines = [
        line
        for page in pages
        for line in (*page, _PAGE_END)
        if line == _PAGE_END or _pattern(line) not in running
    ]
    return Source([Block(text) for text in _joined(lines)], title, left_out)


def _refuse_locked(path: Path, reader: PdfReader) -> None:
    from pypdf.errors import DependencyError

    if not reader.is_encrypted:
        return
    try:
        opened = bool(reader.decrypt(""))
    except DependencyError:  # a cipher that pypdf knows with another library's help only
        opened = False
    if not opened:
        raise CorpusError(f"{path} is encrypted: save it without a password.")


_PAGE_END = "\f"  # no line of a page: clean() makes it a newline


def _running_lines(pages: Sequence[Sequence[str]]) -> set[str]:
    """What stands at the edge of half the pages or more, but for its digits."""
    edges = Counter(
        pattern
        for page in pages
        for pattern in {_pattern(line) for line in (*page[:2], *page[-2:])}
    )
    return {pattern for pattern, count in edges.items() if count >= max(3, len(pages) / 2)}


def _pattern(line: str) -> str:
    return re.sub(r"\d+", "#", line)


def _joined(lines: Sequence[str]) -> Iterator[str]:
    """Paragraphs out of wrapped lines: one ends with a line that is finished and short, or very
    short, or finished and the last of its page."""
    full = 0.8 * statistics.quantiles([0, *map(len, lines)], n=10)[-1]
    text = ""
    for line in lines:
        if line == _PAGE_END:
            if text.endswith(TERMINAL):
                yield text
                text = ""
            continue
        between = "" if not text or re.search(f"[{HAN}，。、；：]$", text) else " "
        text = text[:-1] + line if _is_hyphenated(text, line) else text + between + line
        if (len(line) < full and line.endswith(TERMINAL)) or len(line) < full / 2:
            yield text
            text = ""
    if text:
        yield text


def _is_hyphenated(text: str, line: str) -> bool:
    return bool(re.search(r"[a-z]-$", text)) and line[:1].islower()
