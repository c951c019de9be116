"""Where exact search stops being fast enough: exact and HNSW side by side, over synthetic vectors.

usage: python scripts/measure_search.py [ROWS ...]

Rows are unit vectors in clusters, as sentences of one subject are. Prints, for each number of rows,
the median milliseconds of a search by either, the share of the exact nearest ten that HNSW finds,
and how long HNSW took to build.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragbot import dense

DIMENSION = 384
NEAREST = 400  # rows that a search for 50 chunks asks for
SEARCHES = 50


def vectors(count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """(count, DIMENSION) unit vectors around count / 100 centres."""
    centres = rng.normal(size=(max(1, count // 100), DIMENSION)).astype(np.float32)
    rows = centres[rng.integers(len(centres), size=count)]
    rows += 0.7 * rng.normal(size=rows.shape).astype(np.float32)
    unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def measured(index: Any, queries: NDArray[np.float32]) -> tuple[float, list[set[int]]]:
    """Median milliseconds of a search, and the ten nearest rows of each query."""
    times, found = [], []
    for query in queries:
        start = time.perf_counter()
        _, ids = index.search(query[None, :], NEAREST)
        times.append((time.perf_counter() - start) * 1000)
        found.append(set(ids[0][:10].tolist()))
    return statistics.median(times), found


def main(counts: list[int]) -> None:
    rng = np.random.default_rng(0)
    for count in counts:
        rows = vectors(count + SEARCHES, rng)
        rows, queries = rows[:count], rows[count:]
        dense.EXACT_ROWS = count
        exact = dense.Dense.build(rows, np.arange(count + 1))
        dense.EXACT_ROWS = 0
        start = time.perf_counter()
        graph = dense.Dense.build(rows, np.arange(count + 1))
        built = time.perf_counter() - start
        exact_ms, truth = measured(exact._rows, queries)
        graph_ms, found = measured(graph._rows, queries)
        recall = np.mean([len(a & b) / 10 for a, b in zip(truth, found, strict=True)])
        print(
            f"{count:>9,} rows: exact {exact_ms:.1f} ms, HNSW {graph_ms:.1f} ms, recall@10 "
            f"{recall:.3f}, built in {built:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or [10_000, 50_000, 200_000])
