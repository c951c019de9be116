"""How fast passages are found and indexed, by the size of a corpus, and what approximation loses.

usage: python scripts/measure_search.py [CHUNKS ...]

Vectors and texts are made from the public sets in ../shared/bench, or SHARED/bench: a chunk
is a real one moved the way that two others differ, each of its sentences a little further, so that
vectors crowd as real ones do; its text is sentences of theirs, shuffled. Questions are real.
Times are milliseconds, of the search alone: encoding a query is measured apart.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ragbot.config import load_config
from ragbot.dense import WIDTH, Dense
from ragbot.encoder import Encoder
from ragbot.faiss_index import FaissIndex
from ragbot.index import row_texts
from ragbot.lexical import Lexical
from ragbot.types import Chunk
from ragbot.vectors import floats, short
from ragbot.words import words
from ragbot.workspace import current_index, default_encoder

SETS = ("drcd_dev", "xquad_zh", "xquad_en")
QUESTIONS = 60
NEAREST = 50  # passages a search asks for
MOST_ROWS = 4_000_000  # that are kept, 3 GB: a larger corpus gets fewer sentences a chunk
_BLOCK = 10_000


@dataclass(frozen=True)
class Real:
    """What is made larger: rows (n, d), where each chunk's begin, sentences, and questions."""

    rows: NDArray[np.float32]
    starts: NDArray[np.int64]
    texts: list[list[str]]
    questions: list[str]
    queries: NDArray[np.float32]


def shared() -> Path:
    """The folder of the public sets."""
    return Path(os.environ.get("SHARED", Path(__file__).parents[2] / "shared")) / "bench"


@cache
def real() -> Real:
    """The public sets, encoded; their indexes lie in the cache."""
    encoder = default_encoder(load_config())
    rows, sizes, texts, questions = [], [], [], []
    for name in SETS:
        config = load_config({"corpus": shared() / f"{name}.corpus.txt"})
        index = cast(FaissIndex, current_index(config, encoder))
        rows.append(floats(np.array(index.dense.rows)))
        sizes.append(np.diff(index.dense.starts))
        texts += [row_texts(chunk)[1:] or [chunk.text] for chunk in index.chunks]
        with (shared() / f"{name}.questions.jsonl").open(encoding="utf-8") as file:
            questions += [json.loads(line)["question"] for line in file]
    asked = random.Random(0).sample(questions, QUESTIONS)
    starts = np.concatenate([[0], np.cumsum(np.concatenate(sizes))])
    return Real(np.concatenate(rows), starts, texts, asked, encoder.queries(asked))


def made(path: Path, count: int) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
    """Rows of `count` chunks, in a file at `path`, and where each chunk's begin."""
    source = real()
    rng = np.random.default_rng(0)
    sizes = np.minimum(np.diff(source.starts), max(2, MOST_ROWS // count))
    chosen = rng.integers(len(sizes), size=count)
    starts = np.concatenate([[0], np.cumsum(sizes[chosen])])
    shape = (int(starts[-1]), source.rows.shape[1])
    rows: Any = np.lib.format.open_memmap(path, "w+", np.dtype("<u2"), shape)
    own = source.rows[source.starts[:-1]]
    for first in range(0, count, _BLOCK):
        part = chosen[first : first + _BLOCK]
        repeated = np.repeat(np.arange(len(part)), sizes[part])
        begins = np.cumsum(sizes[part]) - sizes[part]
        places = np.arange(len(repeated)) - begins[repeated] + source.starts[part][repeated]
        moved = 0.6 * _differences(own, len(part), rng)[repeated]
        block = source.rows[places] + moved + 0.3 * _differences(source.rows, len(places), rng)
        block /= np.linalg.norm(block, axis=1, keepdims=True)
        rows[starts[first] : starts[first] + len(block)] = short(block.astype(np.float32))
    return rows, starts


def _differences(
    rows: NDArray[np.float32], count: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    one, other = rng.integers(len(rows), size=(2, count))
    moves: NDArray[np.float32] = rows[one] - rows[other]
    return moves


def bags(count: int) -> list[list[str]]:
    """Words of `count` texts of real length: each as many sentences as one has, of its own set."""
    draw = random.Random(0)
    texts = [[words(sentence) for sentence in text] for text in real().texts]
    chosen = draw.choices(range(len(texts)), k=count)
    return [
        [
            word
            for _ in texts[n]
            for word in draw.choice(texts[(n + draw.randint(-50, 50)) % len(texts)])
        ]
        for n in chosen
    ]


def timed(action: Callable[[int], object], times: int) -> dict[str, float]:
    """Milliseconds of `action(n)`: median, 95th percentile, least, and the processor's, which tells
    what the first three would be on a machine that did nothing else."""
    taken, spent = [], time.process_time()
    for n in range(times):
        start = time.perf_counter()
        action(n)
        taken.append((time.perf_counter() - start) * 1000)
    spent = (time.process_time() - spent) * 1000 / times
    return {
        "median": _round(np.median(taken)),
        "p95": _round(np.percentile(taken, 95)),
        "least": _round(min(taken)),
        "processor": _round(spent),
    }


def _round(value: Any) -> float:
    return round(float(value), 3)


def _exhaustive(dense: Dense, queries: NDArray[np.float32]) -> NDArray[np.int64]:
    """The NEAREST chunks of each query by both cosines, each chunk looked at: (q, NEAREST)."""
    count = len(dense.starts) - 1
    scores = np.empty((len(queries), count), np.float32)
    for first in range(0, count, _BLOCK):
        last = min(first + _BLOCK, count)
        begins = dense.starts[first : last + 1] - dense.starts[first]
        cosines = queries @ floats(dense.rows[dense.starts[first] : dense.starts[last]]).T
        whole = cosines[:, begins[:-1]]
        cosines[:, begins[:-1][np.diff(begins) > 1]] = -1
        best = np.maximum.reduceat(cosines, begins[:-1], axis=1)
        scores[:, first:last] = whole + best
    nearest: NDArray[np.int64] = np.argsort(-scores, axis=1, kind="stable")[:, :NEAREST]
    return nearest


def _lost(dense: Dense, queries: NDArray[np.float32]) -> dict[str, float]:
    """The share of the truly best that a search does not find."""
    truth = _exhaustive(dense, queries)
    found = []
    for query in queries:
        ids = dense.nearest(query, NEAREST * WIDTH)
        whole, best = dense.cosines(ids, query)
        found.append(ids[np.argsort(-(whole + best), kind="stable")])
    return {
        f"at_{k}": _round(
            1 - np.mean([len({*a[:k]} & {*b[:k]}) / k for a, b in zip(truth, found, strict=True)])
        )
        for k in (5, NEAREST)
    }


def _memory() -> float:
    status = Path("/proc/self/status")
    if status.exists():
        line = next(x for x in status.read_text().splitlines() if x.startswith("RssAnon"))
        return round(int(line.split()[1]) / 1024, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def _size(folder: Path) -> float:
    return round(sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6, 1)


def dense_figures(count: int, folder: Path) -> dict[str, Any]:
    """Vectors alone: building, opening, searching, what is lost."""
    rows, starts = made(folder / "rows.npy", count)
    start = time.perf_counter()
    Dense.build(rows, starts).save(folder)
    built = time.perf_counter() - start
    del rows
    before, start = _memory(), time.perf_counter()
    dense = Dense.load(folder)
    opened = time.perf_counter() - start
    queries = real().queries
    ids = [dense.nearest(query, NEAREST * WIDTH) for query in queries]
    return {
        "rows": len(dense.rows),
        "exact": Dense.exact(count),
        "build_seconds": _round(built),
        "open_ms": _round(opened * 1000),
        "passages_ms": timed(lambda n: dense.nearest(queries[n], NEAREST * WIDTH), QUESTIONS),
        "sentences_ms": timed(lambda n: dense.cosines(ids[n], queries[n]), QUESTIONS),
        "lost": _lost(dense, queries),
        "memory_mb": round(_memory() - before, 1),
        "disk_mb": _size(folder),
    }


def lexical_figures(count: int, folder: Path) -> dict[str, Any]:
    """Words alone: indexing them (they are cut beforehand), opening, searching."""
    made_of = bags(count)
    start = time.perf_counter()
    Lexical.of_words(made_of).save(folder / "bm25")
    built = time.perf_counter() - start
    del made_of
    before, start = _memory(), time.perf_counter()
    lexical = Lexical.load(folder / "bm25", count)
    opened = time.perf_counter() - start
    questions = real().questions
    lexical.best(questions[0], NEAREST)  # jieba's words are loaded once
    return {
        "build_seconds": _round(built),
        "open_ms": _round(opened * 1000),
        "search_ms": timed(lambda n: lexical.best(questions[n], NEAREST), QUESTIONS),
        "memory_mb": round(_memory() - before, 1),
        "disk_mb": _size(folder),
    }


def search_figures(sizes: Sequence[int], most_words: int = 100_000) -> dict[str, Any]:
    """Figures by number of chunks. Words are left out above `most_words`: they take gigabytes."""
    figures: dict[str, Any] = {}
    for count in sizes:
        folder = Path(tempfile.mkdtemp())
        try:
            (folder / "words").mkdir()
            (folder / "vectors").mkdir()
            lexical = lexical_figures(count, folder / "words") if count <= most_words else None
            figures[str(count)] = {
                "dense": dense_figures(count, folder / "vectors"),
                "lexical": lexical,
            }
        finally:
            shutil.rmtree(folder)
    return figures


def index_figures(paragraphs: int = 60) -> dict[str, Any]:
    """How fast the encoder that the settings name is, on paragraphs with their sentences."""
    encoder: Encoder = default_encoder(load_config())
    source = real()
    chosen = random.Random(0).sample(source.texts, paragraphs)
    chunks = [Chunk("d", n, 0, 0, "".join(text)) for n, text in enumerate(chosen)]
    texts = [text for chunk in chunks for text in row_texts(chunk)]
    encoder.passages(texts[:20])
    start, spent = time.perf_counter(), time.process_time()
    encoder.passages(texts)
    seconds, spent = time.perf_counter() - start, time.process_time() - spent
    size = sum(len(chunk.text.encode()) for chunk in chunks)
    return {
        "paragraphs_a_second": _round(paragraphs / seconds),
        "vectors_a_second": _round(len(texts) / seconds),
        "bytes_a_second": round(size / seconds),
        "processor_seconds": _round(spent),
        "query_ms": timed(lambda n: encoder.queries([source.questions[n]]), QUESTIONS),
    }


def main(sizes: list[int]) -> None:
    print(json.dumps({"index": index_figures(), "search": search_figures(sizes)}, indent=2))


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or [1_000, 10_000, 100_000])
