"""How many paragraphs a second are encoded here, by how many workers of a Ray cluster?

usage: python scripts/measure_encoding.py CORPUS [--workers 0 1 2]

Indexes the corpus anew in each way; without workers this process encodes, on all cores. "Start" is
the time until each worker has encoded a part (40 KB of passages and sentences); the speed is that
of the parts after these, which more workers multiply. A corpus of few parts gives a rough figure.
At last: how many parts a second the driver hands out and takes back when encoding them costs
nothing, which bounds all workers.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from ragbot.cluster import LOCAL, connected
from ragbot.config import Config, load_config
from ragbot.types import Progress
from ragbot.workspace import default_encoder, renewed_index

PART = "字" * 13_000  # as many bytes as a part has


def timed(config: Config, workers: int) -> tuple[float, float, float, int]:
    """Seconds to each worker's first part, to the last, to the end; chunks between the two."""
    told: list[tuple[float, float]] = []

    def report(label: str) -> Progress:
        def tell(done: int, total: int) -> None:
            if label == "Encoding passages":
                told.append((time.monotonic(), done / total))

        return tell

    encoder = default_encoder(config)
    begun = time.monotonic()
    with connected(LOCAL, workers) if workers else nullcontext() as cluster:
        index, _ = renewed_index(config, config.corpus, encoder, report, cluster)
    ended = time.monotonic()
    (first, share), (last, _) = told[max(workers, 1) - 1], told[-1]
    return first - begun, last - first, ended - begun, int(len(index.chunks) * (1 - share))


def idle_parts(workers: int, parts: int = 500) -> float:
    """Parts a second that pass through a cluster that does nothing with them."""
    with connected(LOCAL, workers) as cluster:
        moments = [time.monotonic() for _ in cluster.map(partial(partial, len), [PART] * parts)]
    return (parts - 1) / (moments[-1] - moments[0])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    for number in options.workers:
        with tempfile.TemporaryDirectory() as folder:
            config = load_config({"corpus": options.corpus, "index": Path(folder)})
            start, between, whole, chunks = timed(config, number)
        print(
            f"{number} workers: start {start:.1f} s, {chunks / between:.1f} chunks/s,"
            f" {whole:.1f} s in all",
            flush=True,
        )
    print(f"driver: {idle_parts(max(*options.workers, 1)):.0f} parts/s")


if __name__ == "__main__":
    main()
