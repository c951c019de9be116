"""One reader for each type of file: from a path to a title and blocks of text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ragbot.readers.base import Block, Source
from ragbot.readers.html import read_html
from ragbot.readers.pdf import read_pdf
from ragbot.readers.plain import read_markdown, read_txt
from ragbot.readers.word import read_docx

__all__ = ["READERS", "Block", "Source"]

READERS: Mapping[str, Callable[[Path, bool], Source]] = {
    ".txt": read_txt,
    ".text": read_txt,
    ".md": read_markdown,
    ".markdown": read_markdown,
    ".html": read_html,
    ".htm": read_html,
    ".xhtml": read_html,
    ".pdf": read_pdf,
    ".docx": read_docx,
}
