"""Vectors in FAISS: which passages mean what the query means?

A chunk has a row of its own and, when it has more than one sentence, a row for each of them: the
best sentence finds what a long paragraph's average hides (recall@1 on 500 long paragraphs: 0.82
by the paragraph, 0.93 by the best sentence, 0.93 by both; across languages 0.74, 0.48 and 0.82).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import faiss
    from numpy import float32, int64
    from numpy.typing import NDArray

# Up to here exact search is fast enough; docs/architecture.md has the measured crossover.
EXACT_ROWS = 100_000

_ROWS_A_CHUNK = 8  # how often a chunk may come up by its sentences before another is crowded out


class Dense:
    """Rows of unit length, d wide; those of chunk i are `starts[i]` to `starts[i + 1]`."""

    def __init__(self, rows: faiss.Index, starts: NDArray[int64]):
        self._rows = rows
        self._starts = starts

    @classmethod
    def build(cls, vectors: NDArray[float32], starts: NDArray[int64]) -> Dense:
        """Index (n, d) float32 rows of unit length: exactly, or by HNSW when there are many."""
        import faiss

        count, dimension = vectors.shape
        rows: Any = faiss.IndexFlatIP(dimension)
        if count > EXACT_ROWS:
            rows = faiss.IndexHNSWFlat(dimension, 32, faiss.METRIC_INNER_PRODUCT)
            rows.hnsw.efConstruction = 80
            rows.hnsw.efSearch = 512
        rows.add(vectors)
        return cls(rows, starts)

    @classmethod
    def load(cls, folder: Path) -> Dense:
        """Read what `save` wrote. Raises OSError, ValueError or RuntimeError: not whole."""
        import faiss
        import numpy as np

        rows = faiss.read_index(str(folder / "vectors.faiss"))
        return cls(rows, np.load(folder / "starts.npy", allow_pickle=False))

    def save(self, folder: Path) -> None:
        """Write the index into `folder`, which exists."""
        import faiss
        import numpy as np

        faiss.write_index(self._rows, str(folder / "vectors.faiss"))
        np.save(folder / "starts.npy", self._starts)

    @property
    def count(self) -> int:
        """How many rows there are."""
        return int(self._rows.ntotal)

    def all_rows(self) -> NDArray[float32]:
        """Every row: (n, d) float32."""
        rows: NDArray[float32] = self._rows.reconstruct_n(0, self.count)
        return rows

    def rows(self, chunk: int) -> NDArray[float32]:
        """A chunk's rows, its own first: (m, d) float32."""
        start, end = int(self._starts[chunk]), int(self._starts[chunk + 1])
        rows: NDArray[float32] = self._rows.reconstruct_n(start, end - start)
        return rows

    def nearest(self, vector: NDArray[float32], limit: int) -> set[int]:
        """The chunks whose rows come nearest to a (d,) vector, about `limit` of them or more."""
        import numpy as np

        asked = min(limit * _ROWS_A_CHUNK, self.count)  # FAISS pads what it lacks with -1
        _, ids = self._rows.search(vector[None, :], asked)
        chunks = np.searchsorted(self._starts, ids[0][ids[0] >= 0], side="right") - 1
        return set(chunks.tolist())

    def cosines(self, chunk: int, vector: NDArray[float32]) -> tuple[float, float]:
        """The cosine with the chunk as a whole, and with the nearest of its sentences."""
        cosines = self.rows(chunk) @ vector
        return float(cosines[0]), float(cosines[1:].max() if len(cosines) > 1 else cosines[0])
