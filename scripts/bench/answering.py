"""One reader: how long `ragbot ask` takes from nothing, and an answer of a bot that runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ragbot.config import load_config
from ragbot.models import resolve_generator
from scripts.bench.figures import largest, mean, median, p95, whole
from scripts.bench.plan import MODELS, Part, Plan, Row, Sample, Table, cites_gold, right, tokens
from scripts.bench.plan import cited as cited_in
from scripts.bench.processes import Child, own, timed

_PASSES = 2  # through the questions; the second finds what the first has read
_CHUNK = 1 << 24


def _count(plan: Plan) -> int:
    return len(MODELS) * (plan.cold_starts + _PASSES * len(plan.questions))


def _samples(plan: Plan) -> Iterator[Sample]:
    for model in MODELS:
        yield from _cold(plan, model)
        yield from _warm(plan, model)


def _cold(plan: Plan, model: str) -> Iterator[Sample]:
    _read_through(Path(resolve_generator(MODELS[model], load_config().cache)))
    asked = next(question for question in plan.questions if question.answerable)
    command = [*own("ragbot"), "ask", asked.question, "--corpus", str(plan.corpus)]
    command += ["--index", str(plan.index), "--llm", MODELS[model]]
    timed(command)  # compiles, and fills the page cache with the rest
    for start in range(1, plan.cold_starts + 1):
        run = timed(command, "nearest so far")
        yield {
            "kind": "cold",
            "model": model,
            "start": start,
            "question": asked.id,
            "near_s": run.shown_s and round(run.shown_s, 3),
            "first_s": run.first_s and round(run.first_s, 3),
            "total_s": round(run.total_s, 3),
            "peak_mb": round(run.peak_mb),
        }


def _warm(plan: Plan, model: str) -> Iterator[Sample]:
    settings = {"corpus": str(plan.corpus), "index": str(plan.index), "llm": MODELS[model]}
    child = Child(own("scripts.bench.answerer.own"), settings)
    try:
        child.ask(plan.warm_up.question)
        for turn in range(1, _PASSES + 1):
            for question in plan.questions:
                told = child.ask(question.question)
                pieces = cited_in(told["text"], told["sources"])
                yield {
                    "kind": "warm",
                    "model": model,
                    "pass": turn,
                    "question": question.id,
                    "near_s": told["near_s"],
                    "first_s": told["first_s"],
                    "total_s": told["total_s"],
                    "timings": told["timings"],
                    "abstained": told["abstained"],
                    "right": right(question, told["text"], told["abstained"]),
                    "cites_gold": cites_gold(question, pieces, plan.corpus),
                    "text": told["text"],
                    "ready_s": child.about["ready_s"],
                    "peak_mb": round(child.peak_mb()),
                }
    finally:
        child.close()


def _read_through(path: Path) -> None:
    """Have a file in the page cache."""
    with path.open("rb") as file:
        while file.read(_CHUNK):
            pass


# --- tables ----------------------------------------------------------------------------------


def _tables(samples: Sequence[Sample]) -> list[Table]:
    cold = [sample for sample in samples if sample["kind"] == "cold"]
    warm = [sample for sample in samples if sample["kind"] == "warm"]
    return [
        Table(
            "From nothing",
            "`ragbot ask` as a new process, its output piped, its standard error a terminal, with "
            "the files of models and index in the page cache and the index made; one question; "
            "first text is the first byte",
            [_cold_row(model, _of(cold, "model", model)) for model in _models(cold)],
        ),
        Table(
            "Warm",
            "one process with both models loaded, after a question that does not count; the same "
            "questions once more in the second pass, in the same order; what was read is kept",
            [
                _warm_row(model, turn, found)
                for model in _models(warm)
                for turn in range(1, _PASSES + 1)
                if (found := _of(_of(warm, "model", model), "pass", turn))
            ],
        ),
    ]


def _cold_row(model: str, samples: Sequence[Sample]) -> Row:
    return {
        "model": model,
        "starts": len(samples),
        "nearest sentence, median": median(s["near_s"] for s in samples),
        "first text, median": median(s["first_s"] for s in samples),
        "longest": largest(s["first_s"] for s in samples),
        "end, median": median(s["total_s"] for s in samples),
        "memory, MB": largest(s["peak_mb"] for s in samples),
    }


def _warm_row(model: str, turn: int, samples: Sequence[Sample]) -> Row:
    return {
        "model": model,
        "pass": turn,
        "answers": len(samples),
        "nearest sentence, median": median(s["near_s"] for s in samples),
        "first text, median": median(s["first_s"] for s in samples),
        "p95": p95(s["first_s"] for s in samples),
        "end, median": median(s["total_s"] for s in samples),
        "end, p95": p95(s["total_s"] for s in samples),
        "by its own clock, median": median(s["timings"]["total_ms"] / 1000 for s in samples),
        "tokens in prompts, median": whole(median(tokens(s["timings"], "prompt") for s in samples)),
        "of them reused": whole(median(tokens(s["timings"], "reused") for s in samples)),
        "written": whole(median(tokens(s["timings"], "completion") for s in samples)),
        "right": mean(s["right"] for s in samples),
        "cites gold": mean(s["cites_gold"] for s in samples),
        "memory, MB": largest(s["peak_mb"] for s in samples),
    }


def _models(samples: Sequence[Sample]) -> list[str]:
    return list(dict.fromkeys(sample["model"] for sample in samples))


def _of(samples: Sequence[Sample], field: str, value: object) -> list[Sample]:
    return [sample for sample in samples if sample[field] == value]


PART = Part("answering", _count, _samples, _tables)
