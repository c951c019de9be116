"""Files to documents: what a reader may see of them, cut into paragraphs.

Decoding, HTML, PDF and Word are libraries' work (trafilatura, pypdf, python-docx); what is kept of
a text, how it is numbered, and what is web-page litter is decided here. Nothing is left out
silently: each document and each corpus lists what it lacks, and why.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ragbot.errors import CorpusError
from ragbot.litter import litter_lines
from ragbot.readers import READERS, Block
from ragbot.readers.base import clean
from ragbot.types import Document, LeftOut, Paragraph

SUFFIXES = tuple(READERS)

_SIDECAR = ".meta.json"
# Controls, marks that turn the direction of writing, and bytes that are no UTF-8.
_UNFIT = re.compile("[\0-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Corpus:
    """Documents in order of their names, and the files that gave none, with the reason."""

    documents: tuple[Document, ...]
    skipped: tuple[LeftOut, ...] = ()


def corpus_files(path: Path) -> list[tuple[str, Path]]:
    """The files a corpus consists of, with their names in it: sorted, hidden ones left out."""
    if path.is_file():
        return [(_shown(path.name), path)]
    root = path.resolve()
    return sorted(
        (_shown(file.relative_to(path).as_posix()), file)
        for file in path.rglob("*")
        if file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
        and file.resolve().is_relative_to(root)  # a link must not lead out of the corpus
    )


def load_corpus(path: Path, *, keep_all: bool = False) -> Corpus:
    """Read a file or a folder. Raises CorpusError when there is nothing in it to answer from.

    In a folder a bad file does not stop the others: it is among the skipped ones.
    """
    files = files_to_read(path)
    return corpus_of(path, (read_or_skip(file, name, keep_all=keep_all) for name, file in files))


def files_to_read(path: Path) -> list[tuple[str, Path]]:
    """The files of a corpus that should give a document, with their names. Raises CorpusError."""
    if not path.exists():
        raise CorpusError(missing(path))
    alone = path.is_file()
    return [one for one in corpus_files(path) if alone or not one[0].endswith(_SIDECAR)]


def read_or_skip(path: Path, name: str, *, keep_all: bool = False) -> Document | LeftOut:
    """Read one file, to be known as `name`; what it gives when it cannot be read is the reason."""
    try:
        return read_document(path, name, keep_all=keep_all)
    except CorpusError as error:
        return LeftOut(name, str(error))


def corpus_of(path: Path, read: Iterable[Document | LeftOut]) -> Corpus:
    """The corpus at `path`, of what its files gave, in their order. Raises CorpusError: nothing."""
    documents, skipped = [], []
    for one in read:
        if isinstance(one, Document):
            documents.append(one)
        else:
            skipped.append(one)
    if not documents and path.is_file():
        raise CorpusError(skipped[0].reason)
    if not documents:
        why = f" ({skipped[0].reason})" if skipped else ""
        raise CorpusError(
            f"The folder {path} has no document that can be read{why}: put {', '.join(SUFFIXES)} "
            "files there."
        )
    return Corpus(tuple(documents), tuple(skipped))


def _shown(name: str) -> str:
    """A file's name, which may hold anything, without what no text or terminal should hold."""
    return _UNFIT.sub(lambda found: found.group().encode("unicode_escape").decode(), name)


def missing(path: Path) -> str:
    """What is said of a corpus that is not there."""
    return f"There is no corpus at {path}: name a file or a folder with --corpus."


def read_document(path: Path, name: str, *, keep_all: bool = False) -> Document:
    """Read one file, to be known as `name`. Raises CorpusError."""
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise CorpusError(f"{path} is not of a known type: use {', '.join(SUFFIXES)}.")
    try:
        source = read(path, keep_all)
        title = _sidecar_title(path) or source.title or _shown(path.stem)
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror or error}.") from error
    litter = (
        litter_lines([block.text for block in source.blocks])
        if source.plain and not keep_all
        else {}
    )
    text, paragraphs = _laid_out(source.blocks, litter)
    if not paragraphs:
        raise CorpusError(f"{path} has no text in it: give a document with text.")
    left_out = (LeftOut(source.blocks[n].text, why) for n, why in sorted(litter.items()))
    return Document(name, title, text, paragraphs, (*source.left_out, *left_out))


def _laid_out(
    blocks: Sequence[Block], litter: Mapping[int, str]
) -> tuple[str, tuple[Paragraph, ...]]:
    """The text that the blocks make up, and its paragraphs; litter keeps its number and no more.

    So a paragraph has the same number with and without litter.
    """
    kept: list[str] = []
    paragraphs = []
    path: list[tuple[int, str]] = []
    number, at = 0, 0
    for index, block in enumerate(blocks):
        number += block.level == 0
        if index in litter:
            continue
        if block.level:
            path = [*(item for item in path if item[0] < block.level), (block.level, block.title)]
        else:
            headings = tuple(title for _, title in path)
            paragraphs.append(Paragraph(number, at, at + len(block.text), headings))
        kept.append(block.text)
        at += len(block.text) + 1
    return "\n".join(kept), tuple(paragraphs)


def _sidecar_title(path: Path) -> str:
    """The title in `NAME.meta.json` beside a document, if there is one. Raises CorpusError."""
    sidecar = path.with_name(path.stem + _SIDECAR)
    if not sidecar.is_file():
        return ""
    try:
        fields = json.loads(sidecar.read_text(encoding="utf-8"))
        title = fields.get("title", "")
    except (ValueError, AttributeError, RecursionError) as error:
        raise CorpusError(
            f'{sidecar} is not of the form {{"title": "..."}}: mend or delete it ({error}).'
        ) from error
    return clean(title).strip() if isinstance(title, str) else ""
