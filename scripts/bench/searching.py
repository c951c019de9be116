"""Searching by the size of a corpus, and indexing, as scripts/measure_search.py measures them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from scripts import measure_search
from scripts.bench.plan import Part, Plan, Row, Sample, Table

SIZES = (1_000, 10_000, 100_000, 1_000_000)


def _count(plan: Plan) -> int:
    return 1 + len(SIZES)


def _samples(plan: Plan) -> Iterator[Sample]:
    yield {"kind": "indexing", "figures": measure_search.index_figures()}
    for size in SIZES:
        figures = measure_search.search_figures([size])
        yield {"kind": "searching", "chunks": size, "figures": figures[str(size)]}


# --- tables ----------------------------------------------------------------------------------


def _tables(samples: Sequence[Sample]) -> list[Table]:
    found = [sample for sample in samples if sample["kind"] == "searching"]
    made = [sample for sample in samples if sample["kind"] == "indexing"]
    return [
        Table(
            "Searching",
            "milliseconds of a search for 50 passages; chunks made from the public sets, real "
            "questions; of a million chunks the words are left out, for they take gigabytes while "
            "they are made; the encoding of the question is apart, in the next table; lost is the "
            "share of the truly best 50 that is not found",
            [_search_row(sample) for sample in found],
        ),
        Table(
            "Indexing",
            "the encoder on real paragraphs and their sentences; the question's encoding in ms",
            [_index_row(sample["figures"]) for sample in made],
        ),
    ]


def _search_row(sample: Sample) -> Row:
    figures = sample["figures"]
    return {
        "chunks": sample["chunks"],
        "rows": at(figures, "dense", "rows"),
        "exact": "yes" if at(figures, "dense", "exact") else "no",
        "passages, median": at(figures, "dense", "passages_ms", "median"),
        "p95": at(figures, "dense", "passages_ms", "p95"),
        "sentences, median": at(figures, "dense", "sentences_ms", "median"),
        "words, median": at(figures, "lexical", "search_ms", "median"),
        "words, p95": at(figures, "lexical", "search_ms", "p95"),
        "lost at 50": at(figures, "dense", "lost", "at_50"),
        "opening": at(figures, "dense", "open_ms"),
        "building, s": at(figures, "dense", "build_seconds"),
        "memory, MB": at(figures, "dense", "memory_mb"),
        "disk, MB": at(figures, "dense", "disk_mb"),
    }


def _index_row(figures: Mapping[str, Any]) -> Row:
    return {
        "paragraphs a second": at(figures, "paragraphs_a_second"),
        "vectors a second": at(figures, "vectors_a_second"),
        "bytes a second": at(figures, "bytes_a_second"),
        "question, median": at(figures, "query_ms", "median"),
        "question, p95": at(figures, "query_ms", "p95"),
    }


def at(figures: Mapping[str, Any] | None, *path: str) -> Any:
    """A figure inside figures; None where one of them is missing."""
    found: Any = figures
    for name in path:
        found = (found or {}).get(name)
    return found


PART = Part("searching", _count, _samples, _tables)
