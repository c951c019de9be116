"""Vectors by their texts: those of the index before, and those of a journal that grows.

The journal is a file: what is encoded is appended at once, so that a run that is killed goes on
where it stopped. A damaged end is cut off, the journal of another encoder thrown away.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragbot.types import Progress

if TYPE_CHECKING:
    from numpy import float32, uint8, uint16
    from numpy.typing import NDArray

    InParts = Callable[
        [Sequence[Sequence[str]], Progress | None], Iterator[tuple[int, NDArray[float32]]]
    ]
    """Given parts of texts, gives each part's number and vectors, (n, d), as they are done; in
    turn, it may tell how many texts of the one at work are done, and of how many."""

KEY = 16  # bytes

_SLAB = 40_000  # bytes of text that are encoded, then kept: what a kill can lose is seconds


def key(text: str) -> bytes:
    """What a text's vector is found by: its hash, so that two texts never share one."""
    return hashlib.blake2b(text.encode(), digest_size=KEY).digest()


def short(vectors: NDArray[float32]) -> NDArray[uint16]:
    """The upper halves of numbers, rounded (bfloat16): cosines differ by less than 0.0005."""
    import numpy as np

    halves: NDArray[uint16] = ((vectors.view(np.uint32) + 0x8000) >> 16).astype(np.uint16)
    return halves


def floats(rows: NDArray[uint16]) -> NDArray[float32]:
    """What `short` made of numbers, as numbers."""
    import numpy as np

    whole = rows.astype(np.uint32)  # ten times as fast as numpy is with float16
    whole <<= 16
    return whole.view(np.float32)


def joined(keys: Sequence[bytes]) -> NDArray[uint8]:
    """Keys as an array that can be saved: (n, KEY) uint8."""
    import numpy as np

    return np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY)


class Vectors:
    """Rows, (d,) uint16 each, by key. For one writer at a time."""

    def __init__(
        self,
        path: Path,
        encoder: str,
        width: int,
        old: tuple[NDArray[uint8], NDArray[uint16]] | None = None,
    ):
        """Open the journal at `path`, of the encoder of that fingerprint; `old` are keys and rows.

        Raises OSError when the journal cannot be written.
        """
        import numpy as np

        keys, rows = old or (np.empty((0, KEY), np.uint8), np.empty((0, width), np.uint16))
        self._old: NDArray[uint16] = rows
        self._places = {row.tobytes(): place for place, row in enumerate(keys)}
        self.width, self._path = width, path
        self._kind = np.dtype([("key", "u1", KEY), ("row", "<u2", width), ("check", "<u4")])
        self._head = json.dumps([encoder, width]).encode() + b"\n"
        self._count = 0
        for row in self._kept()["key"]:
            self._note(row.tobytes())

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def add(self, keys: Sequence[bytes], rows: NDArray[uint16]) -> None:
        """Keep the rows, (n, d), of n keys for good. Raises OSError."""
        import numpy as np

        records = np.empty(len(keys), self._kind)
        records["key"], records["row"] = joined(keys), rows
        records["check"] = [_check(record) for record in records]
        with self._path.open("ab") as file:
            file.write(records.tobytes())
        for one in keys:
            self._note(one)

    def rows(self, keys: Sequence[bytes]) -> NDArray[uint16]:
        """The rows of keys that it has: (n, d)."""
        import numpy as np

        places = np.array([self._places[key] for key in keys], dtype=np.int64)
        rows = np.empty((len(places), self.width), np.uint16)
        old = places < len(self._old)
        rows[old] = self._old[places[old]]
        if not old.all():
            journal = np.memmap(self._path, self._kind, "r", len(self._head), self._count)
            rows[~old] = journal["row"][places[~old] - len(self._old)]
        return rows

    def discard(self) -> None:
        """Delete the journal: what it held lies in an index now."""
        self._path.unlink(missing_ok=True)

    def _note(self, key: bytes) -> None:
        self._places.setdefault(key, len(self._old) + self._count)
        self._count += 1

    def _kept(self) -> NDArray[Any]:
        """The whole records of the journal that is there; what is not of them is cut off."""
        import numpy as np

        head, size = len(self._head), self._kind.itemsize
        with self._path.open("a+b") as file:
            file.seek(0)
            if file.read(head) != self._head:
                file.truncate(0)
                file.write(self._head)
            whole = (file.seek(0, 2) - head) // size
            records = np.empty(0, self._kind)
            if whole:  # nothing cannot be mapped
                records = np.memmap(file, self._kind, "r", head, whole)
            good = next((n for n, one in enumerate(records) if one["check"] != _check(one)), whole)
            kept = np.array(records[:good])
            del records
            file.truncate(head + good * size)
        return kept


def _check(record: Any) -> int:
    return zlib.crc32(record.tobytes()[:-4])


# --- encoding --------------------------------------------------------------------------------


def encode(
    vectors: Vectors,
    texts: Mapping[bytes, str],
    in_parts: InParts,
    progress: Progress | None = None,
) -> None:
    """Encode texts, given by their keys, and keep their vectors, a part at a time.

    `progress` counts bytes, which tell the time left: the longest come first. Raises OSError.
    """
    size = {one: len(text.encode()) for one, text in texts.items()}
    slabs = list(_slabs(sorted(texts, key=lambda one: -size[one]), size))
    amounts = [sum(size[one] for one in slab) for slab in slabs]
    total, parts, done = sum(amounts), 0, 0

    def step(ready: int, of: int) -> None:
        if progress:
            progress(done + amounts[parts] * ready // of, total)

    for number, rows in in_parts([[texts[one] for one in slab] for slab in slabs], step):
        vectors.add(slabs[number], short(rows))
        parts, done = parts + 1, done + amounts[number]
        if progress:
            progress(done, total)


def _slabs(keys: Sequence[bytes], size: Mapping[bytes, int]) -> Iterator[list[bytes]]:
    slab: list[bytes] = []
    room = _SLAB
    for one in keys:
        slab.append(one)
        room -= size[one]
        if room <= 0:
            yield slab
            slab, room = [], _SLAB
    if slab:
        yield slab
