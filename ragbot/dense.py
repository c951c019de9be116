"""Vectors: which passages mean what the query means?

A chunk has a row of its own and, when it has more than one sentence, a row for each of them: the
best sentence finds what a long paragraph's average hides (recall@1 on 500 long paragraphs: 0.82
by the paragraph, 0.93 by the best sentence, 0.93 by both; across languages 0.74, 0.48 and 0.82).
A search goes over the chunks' own rows; sentences are scored for the best of these alone, a tenth
of the work. Rows are read from the disk as they are needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragbot.vectors import floats

if TYPE_CHECKING:
    import faiss
    from numpy import float32, int64, uint16
    from numpy.typing import NDArray

# Up to here every chunk's row is compared, in 4 ms: of 100,000 it would take 8, by short codes 3.
EXACT_CHUNKS = 50_000

# Chunks, for each one asked for, whose sentences are scored: among 100,000 the 800 best by their
# own row hold 99.9 % of the 50 best by both cosines, the 400 best 99.4 %.
WIDTH = 16
_DOUBT = 2  # how many more of them the short codes name, from which their whole rows choose

_BLOCK = 1 << 14  # rows a time, so that building needs little memory


class Dense:
    """Rows of unit length, (n, d) bfloat16; those of chunk i are `starts[i]` to `starts[i + 1]`."""

    def __init__(self, rows: NDArray[uint16], starts: NDArray[int64], finder: faiss.Index):
        import faiss

        self.rows, self.starts, self._finder = rows, starts, finder
        self._exact = not isinstance(finder, faiss.IndexRaBitQFastScan)

    @classmethod
    def build(cls, rows: NDArray[uint16], starts: NDArray[int64]) -> Dense:
        """Make what finds the rows of chunks: exactly or, when there are many, by short codes.

        The codes are RaBitQ's, one bit a dimension (Gao and Long 2024); what they find is measured
        again by the rows themselves.
        """
        import faiss

        width, chunks = rows.shape[1], len(starts) - 1
        metric, kind = faiss.METRIC_INNER_PRODUCT, faiss.ScalarQuantizer.QT_bf16
        if cls.exact(chunks):
            finder: Any = faiss.IndexScalarQuantizer(width, kind, metric)
        else:
            finder = faiss.IndexRaBitQFastScan(width, metric)
            some = starts[:-1][:: max(1, chunks // _BLOCK)]
            finder.train(floats(rows[some]))
        for first in range(0, chunks, _BLOCK):
            own = starts[first : min(first + _BLOCK, chunks)]
            finder.add(floats(rows[own]))
        return cls(rows, starts, finder)

    @classmethod
    def load(cls, folder: Path) -> Dense:
        """Open what `save` wrote. Raises OSError, ValueError or RuntimeError: not whole."""
        import faiss
        import numpy as np

        rows = np.load(folder / "rows.npy", mmap_mode="r", allow_pickle=False)
        starts = np.load(folder / "starts.npy", allow_pickle=False)
        return cls(rows, starts, faiss.read_index(str(folder / "passages.faiss")))

    def save(self, folder: Path) -> None:
        """Write all but the rows into `folder`, which has them already as `rows.npy`.

        Raises OSError.
        """
        import faiss
        import numpy as np

        try:
            faiss.write_index(self._finder, str(folder / "passages.faiss"))
        except RuntimeError as error:  # as FAISS calls a full disk, with its own source lines
            raise OSError("the vectors could not be written whole") from error
        np.save(folder / "starts.npy", self.starts)

    @staticmethod
    def exact(chunks: int) -> bool:
        """Whether, among so many, no chunk's own row is passed over."""
        return chunks <= EXACT_CHUNKS

    def rows_of(self, chunk: int) -> NDArray[float32]:
        """A chunk's rows, its own first: (m, d) float32."""
        return floats(self.rows[self.starts[chunk] : self.starts[chunk + 1]])

    def nearest(
        self, vector: NDArray[float32], limit: int, among: NDArray[int64] | None = None
    ) -> NDArray[int64]:
        """The ids, in order, of the `limit` chunks, or all, nearest to a (d,) vector as a whole.

        `among` are the ids, in order, of the only ones to choose from: each of their rows is
        compared, for the short codes cannot be searched in part.
        """
        import numpy as np

        found = self._near(vector, limit) if among is None else among
        if len(found) <= limit:
            return found
        blocks = [found[first : first + _BLOCK] for first in range(0, len(found), _BLOCK)]
        rows = (floats(self.rows[self.starts[block]]) for block in blocks)
        cosines = np.concatenate([products(block, vector) for block in rows])
        return np.sort(found[np.argsort(-cosines, kind="stable")[:limit]])

    def _near(self, vector: NDArray[float32], limit: int) -> NDArray[int64]:
        """The ids, in order, that the finder names; by short codes, more than `limit`."""
        import numpy as np

        total = len(self.starts) - 1
        if limit >= total:
            return np.arange(total)
        asked = limit if self._exact else min(limit * _DOUBT, total)
        with _alone():
            _, ids = self._finder.search(vector[None, :], asked)
        return np.sort(ids[0][ids[0] >= 0])  # FAISS pads what it lacks with -1

    def cosines(
        self, chunks: NDArray[int64], vector: NDArray[float32]
    ) -> tuple[NDArray[float32], NDArray[float32]]:
        """What `best_cosines` tells of m chunks."""
        import numpy as np

        first = self.starts[chunks]
        size = self.starts[chunks + 1] - first
        begins = np.cumsum(size) - size
        places = np.repeat(first - begins, size) + np.arange(int(size.sum()))
        return best_cosines(floats(self.rows[places]), size, vector)


@contextmanager
def _alone() -> Iterator[None]:
    """FAISS in the thread of its caller. The others it would start have no part in one query, and
    wait in a loop that takes a core from whoever has work."""
    import faiss

    usual = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(usual)


def products(rows: NDArray[float32], vector: NDArray[float32]) -> NDArray[float32]:
    """`rows @ vector`, of (m, d) and (d,), in one thread: where a generator has the cores, the
    library behind `@` waits for its own threads a hundred times as long as the work takes."""
    import numpy as np

    found: NDArray[float32] = np.einsum("ij,j->i", rows, vector)
    return found


def best_cosines(
    rows: NDArray[float32], size: NDArray[int64], vector: NDArray[float32]
) -> tuple[NDArray[float32], NDArray[float32]]:
    """The cosines of m chunks with a (d,) vector: of the whole, and of the nearest sentence.

    `rows` are the chunks' one after the other, each one's own first, `size` (m,) how many each has.
    Both results are (m,) float32; a chunk of one sentence has the same in both.
    """
    import numpy as np

    begins = np.cumsum(size) - size
    cosines = products(rows, vector)
    whole = cosines[begins]
    cosines[begins[size > 1]] = -1.0  # leaves the sentences
    best = np.maximum.reduceat(cosines, begins) if len(begins) else whole
    return whole, best
