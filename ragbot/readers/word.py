"""Word documents, by python-docx."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ragbot.readers.base import Block, Source, clean, mended_by

_MOST_UNPACKED = 200 << 20  # bytes
_MOST_TIMES = 200  # how many times its size a document may unpack to
_MARKS = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
_UNSEEN = {"pPr", "rPr", "del", "moveFrom", "Fallback", "instrText"}  # Fallback says it once more


def read_docx(path: Path, keep_all: bool) -> Source:
    """A Word document: headings, paragraphs and tables, a line a row, in their order."""
    from docx import Document

    with mended_by(path, "a damaged Word document", "save it anew"):
        _refuse_bomb(path)
        document = Document(str(path))
        blocks = [block for block in _blocks(document) if block.text]
        title = clean(document.core_properties.title or "").strip()
    return Source(blocks, title)


def _blocks(document: Any) -> Iterator[Block]:
    levels = {style.style_id: _heading_level(style.name or "") for style in document.styles}
    for element in _elements(document.element.body):
        if element.tag.endswith("}tbl"):
            yield Block(_shown(_table(element)))
        else:
            text = _shown(_text(element))
            level = levels.get(element.style, 0)
            yield Block(text, level, text if level else "")


def _shown(text: str) -> str:
    return clean(text).strip()


def _elements(parent: Any) -> Iterator[Any]:
    """Paragraphs and tables in their order, those in content controls among them."""
    for element in parent.iterchildren("{*}p", "{*}tbl", "{*}sdt", "{*}sdtContent"):
        if element.tag.endswith(("}p", "}tbl")):
            yield element
        else:
            yield from _elements(element)


def _table(table: Any) -> str:
    """A line a row. A cell that spans others is told once, however many it says that it spans."""
    return "\n".join(
        " | ".join(_cell(cell) for cell in row.iterchildren("{*}tc"))
        for row in table.iterchildren("{*}tr")
    )


def _cell(cell: Any) -> str:
    inner = (_table(one) if one.tag.endswith("}tbl") else _text(one) for one in _elements(cell))
    return "\n".join(filter(None, map(str.strip, inner)))


def _text(element: Any) -> str:
    """What a paragraph shows: links, insertions and text boxes, too; nothing deleted."""
    said = []
    for node in element.iterchildren("{*}*"):
        kind = node.tag.partition("}")[2]
        if kind == "t":
            said.append(node.text or "")
        elif kind in _MARKS:
            said.append(_MARKS[kind])
        elif kind not in _UNSEEN:
            said.append(_text(node))
    return "".join(said)


def _heading_level(style: str) -> int:
    match = re.fullmatch(r"(?:Heading|heading|標題|标题) ?(\d)", style)
    return int(match.group(1)) if match else int(style == "Title")


def _refuse_bomb(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > _MOST_UNPACKED or unpacked > _MOST_TIMES * max(path.stat().st_size, 1):
        raise ValueError("it unpacks to far more than a document holds")
