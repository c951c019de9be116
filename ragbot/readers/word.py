"""Word documents, by python-docx."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

from ragbot.errors import CorpusError
from ragbot.readers.base import Block, Source, clean

_MOST_UNPACKED = 200 << 20  # bytes
_MOST_TIMES = 200  # how many times its size a document may unpack to


def read_docx(path: Path, keep_all: bool) -> Source:
    """A Word document: headings, paragraphs and tables, a line a row, in their order."""
    from docx import Document
    from docx.opc.exceptions import PackageNotFoundError
    from docx.table import Table
    from lxml.etree import LxmlError

    try:
        _refuse_bomb(path)
        document = Document(str(path))
    except (PackageNotFoundError, zipfile.BadZipFile, LxmlError, KeyError, ValueError) as error:
        raise CorpusError(f"{path} is a damaged Word document ({error}): save it anew.") from error
    blocks = []
    for item in document.iter_inner_content():
        if isinstance(item, Table):
            rows = (" | ".join(cell.text.strip() for cell in row.cells) for row in item.rows)
            blocks.append(Block(clean("\n".join(rows)).strip()))
        else:
            text = clean(item.text).strip()
            level = _heading_level(item)
            blocks.append(Block(text, level, text if level else ""))
    title = clean(document.core_properties.title or "").strip()
    return Source([block for block in blocks if block.text], title)


def _heading_level(paragraph: Any) -> int:
    style = paragraph.style.name if paragraph.style is not None else ""
    match = re.fullmatch(r"(?:Heading|heading|標題|标题) ?(\d)", style or "")
    return int(match.group(1)) if match else int(style == "Title")


def _refuse_bomb(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > _MOST_UNPACKED or unpacked > _MOST_TIMES * max(path.stat().st_size, 1):
        raise ValueError("it unpacks to far more than a document holds")
