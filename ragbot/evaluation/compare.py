"""Two runs over the same questions: what differs, and whether that is more than luck."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ragbot.errors import ConfigError
from ragbot.evaluation.metrics import LOWER_IS_BETTER, RATES, difference
from ragbot.evaluation.records import Record, Run, differences
from ragbot.evaluation.summary import latency


def compare(a: Run, b: Run) -> dict[str, Any]:
    """B against A on the questions that both asked. Raises ConfigError when there are none.

    A difference is significant when the 95 % interval of the paired bootstrap leaves out zero: each
    resample draws questions, and takes both runs' answers to each.
    """
    summaries = a.summary(), b.summary()
    of_a, of_b = ({record.id: record for record in run.records()} for run in (a, b))
    shared = [id for id in of_a if id in of_b and of_a[id].question == of_b[id].question]
    if not shared:
        raise ConfigError(
            f"{a.folder} and {b.folder} share no question: compare runs of the same question set."
        )
    first, second = [of_a[id] for id in shared], [of_b[id] for id in shared]
    settings = differences(summaries[0]["config"], summaries[1]["config"])
    return {
        "a": a.folder.name,
        "b": b.folder.name,
        "n": len(shared),
        "only_in_a": len(of_a) - len(shared),
        "only_in_b": len(of_b) - len(shared),
        "settings": list(settings),
        "metrics": _metrics(first, second),
        "latency": {"a": latency(first), "b": latency(second)},
        **_flips(first, second),
    }


def _metrics(a: Sequence[Record], b: Sequence[Record]) -> dict[str, dict[str, Any]]:
    found = {name: difference(name, a, b) for name in RATES}
    return {
        name: asdict(diff)
        | {"significant": diff.significant, "better": _better(name, diff.difference)}
        for name, diff in found.items()
        if diff.a is not None or diff.b is not None
    }


def _better(name: str, value: float | None) -> str:
    """Which run does better: `a`, `b`, or neither."""
    if not value:
        return ""
    return "b" if (value > 0) != (name in LOWER_IS_BETTER) else "a"


def _flips(a: Sequence[Record], b: Sequence[Record]) -> Mapping[str, list[dict[str, Any]]]:
    """The questions that only B, and that only A, got right."""
    pairs = [(one, other) for one, other in zip(a, b, strict=True)]
    return {
        name: [_flip(one, other) for one, other in pairs if (_good(one), _good(other)) == change]
        for name, change in (("gained", (False, True)), ("lost", (True, False)))
    }


def _good(record: Record) -> bool | None:
    """Right, or, where nothing was asked, a gold paragraph among the first five."""
    if record.answer is not None:
        return record.right
    found = record.scores.get("recall@5")
    return None if found is None else found == 1.0


def _flip(a: Record, b: Record) -> dict[str, Any]:
    return {
        "id": a.id,
        "question": a.question,
        "reference": a.reference,
        "a": {"answer": a.answer, "step": a.step},
        "b": {"answer": b.answer, "step": b.step},
    }
