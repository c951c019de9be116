"""The summary of a run: rates with intervals, latency, where it went wrong, how far to trust the
confidence; of all questions, by language and by type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ragbot.errors import ConfigError
from ragbot.evaluation.metrics import LOWER_IS_BETTER, RATES, rate
from ragbot.evaluation.records import Record
from ragbot.evaluation.scoring import STEPS

_BINS = 10  # of confidence
_CURVE_POINTS = 21


def summarise(records: Sequence[Record], config: Mapping[str, Any]) -> dict[str, Any]:
    """The whole summary. A figure that no question counts towards is None."""
    seed = int(config["seed"])
    return {
        "config": dict(config),
        **_figures(records, seed),
        "by_lang": _grouped(records, lambda record: record.lang, seed),
        "by_type": _grouped(records, lambda record: record.type or "-", seed),
        "confidence": {
            "all": confidence(records),
            **{
                lang: confidence(group)
                for lang, group in _groups(records, lambda r: r.lang).items()
            },
        },
    }


def _figures(records: Sequence[Record], seed: int) -> dict[str, Any]:
    figures: dict[str, Any] = {"n": len(records)}
    intervals: dict[str, Any] = {}
    for name in RATES:
        found = rate(name, records, seed)
        _put(figures, name, found.value)
        _put(intervals, name, None if found.low is None else [found.low, found.high])
    figures["latency"] = latency(records)
    figures["steps"] = {step: Counter(r.step for r in records)[step] for step in STEPS}
    return figures | {"ci95": intervals}


def _put(tree: dict[str, Any], name: str, value: object) -> None:
    *path, last = name.split(".")
    for part in path:
        tree = tree.setdefault(part, {})
    tree[last] = value


def _groups(
    records: Sequence[Record], key: Callable[[Record], str]
) -> Mapping[str, Sequence[Record]]:
    return {
        name: [record for record in records if key(record) == name]
        for name in sorted({key(record) for record in records})
    }


def _grouped(records: Sequence[Record], key: Callable[[Record], str], seed: int) -> dict[str, Any]:
    return {name: _figures(group, seed) for name, group in _groups(records, key).items()}


def latency(records: Sequence[Record]) -> dict[str, Any]:
    """Median and 95th percentile of the times in milliseconds, and tokens written a second.

    `ttft_ms` is the time to the first shown text; the seconds are those of whole answers, reading
    the prompt included.
    """
    import numpy as np

    timed = [record.timings for record in records if record.timings]
    if not timed:
        return {"ttft_ms": None, "total_ms": None, "tokens_per_second": None}

    def percentiles(name: str) -> dict[str, float]:
        values = [timings[name] for timings in timed]
        return {f"p{p}": round(float(np.percentile(values, p)), 1) for p in (50, 95)}

    seconds = sum(timings["total_ms"] for timings in timed) / 1000
    tokens = sum(timings["completion_tokens"] for timings in timed)
    return {
        "ttft_ms": percentiles("ttft_ms"),
        "total_ms": percentiles("total_ms"),
        "tokens_per_second": round(tokens / seconds, 2) if seconds else None,
    }


# --- how far to trust the confidence ---------------------------------------------------------


def confidence(records: Sequence[Record]) -> dict[str, Any] | None:
    """Risk-coverage and calibration of the confidence; None when nothing can be judged.

    An answer is good when it was given and is right: a refusal is none, whether it was right to
    refuse or not. `risk_coverage` are points (share of the questions kept, the most confident
    first; share of those without a good answer), `aurc` the mean risk over all coverages (Geifman
    and El-Yaniv, NeurIPS 2017). `bins` compare confidence with what came of it, `ece` is their mean
    distance, weighted (Guo et al., ICML 2017); `auroc` is how well confidence tells the answerable
    from the unanswerable.
    """
    judged = [r for r in records if r.confidence is not None and r.right is not None]
    if not judged:
        return None
    judged = sorted(judged, key=lambda record: (-(record.confidence or 0.0), record.id))
    sure = [record.confidence or 0.0 for record in judged]
    good = [bool(record.right and not record.abstained) for record in judged]
    risks = [1 - sum(good[:n]) / n for n in range(1, len(good) + 1)]
    bins = _bins(sure, good)
    ece = sum(b["n"] * abs(b["confidence"] - b["good"]) for b in bins) / len(judged)
    return {
        "n": len(judged),
        "risk_coverage": _thinned([[(n + 1) / len(risks), r] for n, r in enumerate(risks)]),
        "aurc": round(sum(risks) / len(risks), 4),
        "bins": bins,
        "ece": round(ece, 4),
        "auroc": _auroc(judged),
    }


def _bins(sure: Sequence[float], good: Sequence[bool]) -> list[dict[str, Any]]:
    places: dict[int, list[tuple[float, bool]]] = {}
    for pair in zip(sure, good, strict=True):
        places.setdefault(min(int(pair[0] * _BINS), _BINS - 1), []).append(pair)
    return [
        {
            "confidence": round(sum(c for c, _ in pairs) / len(pairs), 4),
            "good": round(sum(g for _, g in pairs) / len(pairs), 4),
            "n": len(pairs),
        }
        for _, pairs in sorted(places.items())
    ]


def _thinned(points: Sequence[Sequence[float]]) -> list[list[float]]:
    step = max(1, -(-len(points) // _CURVE_POINTS))
    kept = [*points[:-1:step], points[-1]]
    return [[round(value, 4) for value in point] for point in kept]


def _auroc(records: Sequence[Record]) -> float | None:
    from sklearn.metrics import roc_auc_score

    answerable = [bool(record.answerable) for record in records]
    if len(set(answerable)) < 2:
        return None
    return round(float(roc_auc_score(answerable, [record.confidence for record in records])), 4)


# --- figures asked for by name ---------------------------------------------------------------


def at(tree: Mapping[str, Any], name: str) -> Any:
    """What a summary, or its `ci95`, has under a rate's dotted name."""
    found: Any = tree
    for part in name.split("."):
        found = found[part]
    return found


def thresholds(wanted: Sequence[str]) -> dict[str, float]:
    """METRIC=VALUE, each, as dotted names with their least values. Raises ConfigError."""
    return dict(map(_threshold, wanted))


def _threshold(wanted: str) -> tuple[str, float]:
    name, _, value = wanted.partition("=")
    allowed = [rate for rate in RATES if rate not in LOWER_IS_BETTER]
    fitting = [rate for rate in allowed if name in (rate, rate.rpartition(".")[2])]
    if len(fitting) != 1:
        known = ", ".join(fitting or allowed)
        raise ConfigError(f"--fail-under {wanted!r} names no single metric: use one of {known}.")
    try:
        least = float(value)
    except ValueError:
        least = -1.0
    if not 0 <= least <= 1:
        raise ConfigError(f"--fail-under {wanted!r} has no value from 0 to 1: write METRIC=0.9.")
    return fitting[0], least


def shortfalls(summary: Mapping[str, Any], least: Mapping[str, float]) -> list[str]:
    """What is below its threshold, a sentence each; a figure that there is not, is."""
    short = []
    for name, value in least.items():
        reached = at(summary, name)
        if reached is None or reached < value:
            shown = "not measured" if reached is None else f"{reached:.3f}"
            short.append(f"{name} is {shown}, under {value:g}")
    return short
