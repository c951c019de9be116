"""One reader for each type of file: from bytes to a title and blocks of text.

A block is a paragraph or a heading. What a library leaves out of a page is listed. Encodings are
found here, too; which lines of a plain text are litter is not.
"""

from __future__ import annotations

import re
import statistics
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ragbot.errors import CorpusError
from ragbot.text import HAN, fold
from ragbot.types import LeftOut


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph (level 0) or a heading of level 1 to 9, which also has a `title`."""

    text: str
    level: int = 0
    title: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """What a file holds. `plain` says that nobody has sorted out its litter yet."""

    blocks: Sequence[Block]
    title: str = ""
    left_out: Sequence[LeftOut] = field(default_factory=tuple)
    plain: bool = False


# --- encodings -------------------------------------------------------------------------------

_BOMS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_CANDIDATES = ("gb18030", "big5hkscs", "utf-16-le", "utf-16-be")
_SAMPLE = 20_000  # characters that decide about an encoding
_PLAUSIBLE = 0.7


def decode(data: bytes) -> str | None:
    """The text of a file in whatever encoding, or None when it is not text.

    Legacy Chinese encodings decode each other's bytes without complaint, into rare characters; so
    the reading with the most common ones is right.
    """
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            return _decoded(data, encoding)
    if (text := _decoded(data, "utf-8")) is not None and "\0" not in text:
        return text
    readings = [text for name in _CANDIDATES if (text := _decoded(data, name)) is not None]
    best = max(readings, key=_plausibility, default="")
    if best and _plausibility(best) >= _PLAUSIBLE:
        return best
    return None if b"\0" in data else _guessed(data)


def _decoded(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return None


def _guessed(data: bytes) -> str | None:
    from charset_normalizer import from_bytes

    best = from_bytes(data).best()
    return None if best is None else str(best)


def _plausibility(text: str) -> float:
    """The share of the characters beyond ASCII that ordinary texts use; controls count against."""
    odd = [char for char in text[:_SAMPLE] if not "\x20" <= char <= "\x7e" and char not in "\r\n\t"]
    return sum(map(_is_common, odd)) / len(odd) if odd else 1.0


@cache
def _is_common(char: str) -> bool:
    if unicodedata.category(char)[0] == "P" or "\uff01" <= char <= "\uff5e" or char == "\u3000":
        return True
    try:  # the first level of GB 2312: the 3,755 characters in common use, simplified
        code = fold(char).text.encode("gb2312")
    except UnicodeEncodeError:
        return False
    return len(code) == 2 and 0xB0 <= code[0] <= 0xD7


def read_text(path: Path) -> str:
    """A text file's content, cleaned of what no reader sees. Raises CorpusError, OSError."""
    text = decode(path.read_bytes())
    if text is None:
        raise CorpusError(f"{path} is not a text file: give a document in one of the known types.")
    return clean(text)


def clean(text: str) -> str:
    """The text with plain newlines and without control, zero-width and half characters."""
    text = re.sub(r"\r\n?|[\u2028\u2029\x0b\x0c\x85]", "\n", text)
    return re.sub(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u200b\u2060\ufeff\ud800-\udfff]", "", text)


# --- plain text and Markdown -----------------------------------------------------------------

_WRAPPED_WIDTH = 100  # characters; wider lines were not wrapped by hand
_TERMINAL = tuple("。！？.!?…」』”\"')）:：;；")


def read_txt(path: Path, keep_all: bool) -> Source:
    """Plain text: a paragraph a line, or a block of lines where they are plainly wrapped."""
    text = read_text(path)
    groups = [group for group in re.split(r"\n\s*\n", text) if group.strip()]
    if _is_wrapped(groups):
        return Source([Block(group.strip()) for group in groups])
    lines = (line.strip() for line in text.split("\n"))
    return Source([Block(line) for line in lines if line], plain=True)


def _is_wrapped(groups: Sequence[str]) -> bool:
    """Whether lines end at a margin rather than at an end: long ones, few of them finished."""
    inner = [line.strip() for group in groups for line in group.strip().split("\n")[:-1]]
    if len(groups) < 2 or len(inner) < len(groups):
        return False
    widths = sorted(map(len, inner))
    unfinished = sum(not line.endswith(_TERMINAL) for line in inner)
    even = sum(width >= 0.7 * widths[-1] for width in widths)
    return (
        30 <= widths[-1] <= _WRAPPED_WIDTH
        and unfinished >= 0.8 * len(inner)
        and even >= 0.7 * len(inner)
    )


def read_markdown(path: Path, keep_all: bool) -> Source:
    """Markdown as written: headings, and a paragraph for each paragraph, list, table or quote."""
    from markdown_it import MarkdownIt

    text = read_text(path)
    left_out = []
    if (matter := re.match(r"---\n.*?\n(?:---|\.\.\.)\n", text, re.DOTALL)) is not None:
        left_out.append(LeftOut(matter.group().strip(), "front matter"))
        text = text[matter.end() :]
    lines = text.split("\n")
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    blocks = []
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        if token.level or token.map is None or token.nesting < 0:
            continue
        written = "\n".join(lines[token.map[0] : token.map[1]]).strip()
        is_heading = token.type == "heading_open" and following is not None
        level = int(token.tag[1]) if is_heading else 0
        title = following.content if is_heading and following is not None else ""
        if written:
            blocks.append(Block(written, level, title))
    title = next((block.title for block in blocks if block.level == 1), "")
    return Source(blocks, title, left_out, plain=True)


# --- HTML ------------------------------------------------------------------------------------

_INVISIBLE = {"script", "style", "noscript", "template", "head", "svg", "iframe", "select"}
_INLINE = set(
    "a abbr b bdi bdo big cite code data del dfn em font i img ins kbd label mark q rp rt ruby s"
    " samp small span strong sub sup time tt u var wbr".split()
)


def read_html(path: Path, keep_all: bool) -> Source:
    """A web page's main content, as trafilatura finds it; all that is visible with `keep_all`."""
    import trafilatura
    from lxml import etree, html

    data = path.read_bytes()
    try:
        page = html.document_fromstring(_marked_up(data))
        visible = [Block(text) for text in _visible(page)]
        found = None
        if not keep_all:
            found = trafilatura.bare_extraction(
                page, include_comments=False, favor_recall=True, config=_extraction()
            )
    except (etree.LxmlError, ValueError, AssertionError, RecursionError) as error:
        raise CorpusError(f"{path} is not a page that can be read ({error}).") from error
    title = clean(page.findtext(".//title") or "").strip()
    blocks = list(_main_blocks(found.body)) if found is not None else []
    if not any(block.level == 0 for block in blocks):
        return Source(visible, title)
    kept = _squeezed("".join(block.text for block in blocks))
    left_out = [
        LeftOut(block.text, "not part of the page's main content")
        for block in visible
        if _squeezed(block.text) not in kept
    ]
    return Source(blocks, title, left_out)


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
    if declared and not data.startswith(tuple(bom for bom, _ in _BOMS)):
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
    pieces = [""]
    for event, element in _walk(page):
        if element.tag not in _INLINE:
            pieces.append("")
        pieces[-1] += (element.text if event == "start" else element.tail) or ""
    for piece in pieces:
        if text := " ".join(clean(piece).split()):
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


# --- PDF -------------------------------------------------------------------------------------


def read_pdf(path: Path, keep_all: bool) -> Source:
    """A PDF's text, its lines put together to paragraphs, without running heads and feet."""
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    try:
        reader = PdfReader(path)
        if reader.is_encrypted and not reader.decrypt(""):
            raise CorpusError(f"{path} is encrypted: save it without a password.")
        pages = [clean(page.extract_text() or "").split("\n") for page in reader.pages]
        title = clean((reader.metadata.title if reader.metadata else "") or "").strip()
    except (PyPdfError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorpusError(f"{path} is a damaged PDF ({error}): export it anew.") from error
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
            if text.endswith(_TERMINAL):
                yield text
                text = ""
            continue
        between = "" if not text or re.search(f"[{HAN}，。、；：]$", text) else " "
        text = text[:-1] + line if _is_hyphenated(text, line) else text + between + line
        if (len(line) < full and line.endswith(_TERMINAL)) or len(line) < full / 2:
            yield text
            text = ""
    if text:
        yield text


def _is_hyphenated(text: str, line: str) -> bool:
    return bool(re.search(r"[a-z]-$", text)) and line[:1].islower()


# --- Word ------------------------------------------------------------------------------------

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
