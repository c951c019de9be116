"""Chunks and documents on the disk, a line each, read when they are asked for.

So an index of any size opens at once. What is written here is a slice of what readers may see;
how the files are kept whole, the store knows.
"""

from __future__ import annotations

import json
import mmap
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

from ragbot.types import Chunk, Document, LeftOut, Paragraph

_KEPT = 32  # documents that are held once read: a page asks for the same again and again


class Chunks(Sequence[Chunk]):
    """The chunks of `write_chunks`, in order; each is made anew whenever it is asked for."""

    def __init__(self, folder: Path):
        self._lines = _Lines(folder / "chunks.jsonl")
        self._numbers: Sequence[int] = range(len(self._lines))

    def some(self, numbers: Sequence[int]) -> Chunks:
        """Those of some numbers."""
        chunks = copy(self)
        chunks._numbers = numbers
        return chunks

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, at: int) -> Chunk: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Chunk, ...]: ...
    def __getitem__(self, at: int | slice) -> Chunk | tuple[Chunk, ...]:
        if isinstance(at, slice):
            return tuple(map(self._chunk, self._numbers[at]))
        return self._chunk(self._numbers[at])

    def _chunk(self, number: int) -> Chunk:
        record = self._lines.record(number)
        return Chunk(**record | {"headings": tuple(record["headings"])})


class Named(Mapping[str, Document]):
    """Documents by their names, each of which is read when it is asked for."""

    @property
    @abstractmethod
    def _names(self) -> Mapping[str, object]: ...

    @abstractmethod
    def _document(self, name: str) -> Document: ...

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __getitem__(self, name: str) -> Document:
        if name not in self._names:
            raise KeyError(name)
        return self._document(name)


class Documents(Named):
    """The documents of `write_documents`."""

    def __init__(self, folder: Path):
        names = json.loads((folder / "names.json").read_text(encoding="utf-8"))
        self._lines = _Lines(folder / "documents.jsonl")
        if len(names) != len(self._lines):
            raise ValueError("documents are missing or added")
        self._numbers = {name: number for number, name in enumerate(names)}
        self._kept = lru_cache(_KEPT)(self._read)

    @property
    def _names(self) -> Mapping[str, object]:
        return self._numbers

    def _document(self, name: str) -> Document:
        return self._kept(self._numbers[name])

    def _read(self, number: int) -> Document:
        return document_from(self._lines.record(number))


def document_from(record: Mapping[str, Any]) -> Document:
    """The document of which `asdict`, written as JSON, made a record."""
    paragraphs = (
        Paragraph(**row | {"headings": tuple(row["headings"])}) for row in record["paragraphs"]
    )
    left_out = (LeftOut(**piece) for piece in record["left_out"])
    rest = {"paragraphs": tuple(paragraphs), "left_out": tuple(left_out)}
    return Document(**{**record, **rest})


def write_chunks(folder: Path, chunks: Sequence[Chunk]) -> None:
    """Write chunks for `Chunks` to read. Raises OSError."""
    _write(folder / "chunks.jsonl", chunks)


def write_documents(folder: Path, documents: Sequence[Document]) -> None:
    """Write documents for `Documents` to read. Raises OSError."""
    _write(folder / "documents.jsonl", documents)
    names = json.dumps([document.name for document in documents], ensure_ascii=False)
    (folder / "names.json").write_text(names, encoding="utf-8")


class _Lines:
    """JSON objects, a line each, found by their numbers."""

    def __init__(self, path: Path):
        import numpy as np

        self._ends = np.load(path.with_suffix(".npy"), allow_pickle=False)
        with path.open("rb") as file:
            # An empty file cannot be mapped.
            whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if self._ends[-1] else b""
        if len(whole) != self._ends[-1]:
            raise ValueError(f"{path.name} is cut off")
        self._whole = whole

    def __len__(self) -> int:
        return len(self._ends) - 1

    def record(self, number: int) -> dict[str, Any]:
        line = self._whole[int(self._ends[number]) : int(self._ends[number + 1])]
        record: dict[str, Any] = json.loads(line)
        return record


def _write(path: Path, records: Sequence[Chunk] | Sequence[Document]) -> None:
    import numpy as np

    ends = [0]
    with path.open("wb") as file:
        for record in records:
            line = json.dumps(asdict(record), ensure_ascii=False) + "\n"
            ends.append(ends[-1] + file.write(line.encode()))
    np.save(path.with_suffix(".npy"), np.array(ends, dtype=np.int64))
