"""Fit what tells whether the documents hold an answer, on the records of evaluations.

    ragbot eval SET --corpus C --also-removed --checker '' --out runs/fit/SET     (for each set)
    python scripts/fit_abstention.py runs/fit/*

prints how well questions with and without their paragraphs are told apart, each judged by the other
folds (a question and its twin without paragraphs are in the same one), fits all of them and writes
ragbot/abstention.json and the curves to docs/results/abstention.png.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ragbot.abstention import DATA, SIGNALS

FOLDS = 10
STRENGTH = 0.2
# Those with and without an answer weigh alike in what is fitted, whatever their numbers. Held out,
# F1 is the same within two points from 0.4 to 0.6; the lower end refuses less that has an answer.
THRESHOLD = 0.45
ROOT = Path(__file__).parents[1]

Records = list[tuple[str, dict[str, Any]]]


def load(runs: list[Path]) -> Records:
    """The records of the runs, each with the name of its run."""
    return [
        (run.name, record)
        for run in runs
        for line in (run / "answers.jsonl").read_text(encoding="utf-8").splitlines()
        if (record := json.loads(line))["signals"] and record["answerable"] is not None
    ]


def f1(answerable: NDArray[np.bool_], refused: NDArray[np.bool_]) -> float:
    """The F1 of refusing as a detector of what is not answerable."""
    hit = (refused & ~answerable).sum()
    return float(2 * hit / max(1, refused.sum() + (~answerable).sum()))


def plot(
    path: Path, answerable: NDArray[np.bool_], right: NDArray[np.bool_], sure: NDArray[np.float64]
) -> None:
    """Risk against coverage, and probability against what came of it."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, middle) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    order = np.argsort(-sure)
    coverage = np.arange(1, len(sure) + 1) / len(sure)
    for good, label in ((right, "wrong or unanswerable"), (answerable, "unanswerable")):
        left.plot(coverage, 1 - np.cumsum(good[order]) / np.arange(1, len(sure) + 1), label=label)
    left.set(xlabel="coverage: share answered, surest first", ylabel="risk", ylim=(0, 1))
    left.legend()
    bins = np.clip((sure * 10).astype(int), 0, 9)
    held = [n for n in range(10) if (bins == n).any()]
    middle.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    middle.plot(
        [sure[bins == n].mean() for n in held], [answerable[bins == n].mean() for n in held], "o-"
    )
    middle.set(xlabel="probability, by the other folds", ylabel="share answerable")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Fit, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of evaluations")
    parser.add_argument("--dry-run", action="store_true", help="print only, write nothing")
    options = parser.parse_args()
    records = load(options.runs)
    signals = np.array([[r["signals"][name] for name in SIGNALS] for _, r in records])
    answerable = np.array([bool(r["answerable"]) for _, r in records])
    right = np.array(
        [bool(r["answerable"]) and r["scores"].get("accuracy") == 1.0 for _, r in records]
    )
    groups = [f"{run} {r['id'].removesuffix('~removed')}" for run, r in records]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, class_weight="balanced"))

    def held_out(columns: list[int]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = cross_val_predict(
            model,
            signals[:, columns],
            answerable,
            groups=groups,
            cv=GroupKFold(FOLDS),
            method="predict_proba",
        )[:, 1]
        return found

    print(f"{len(records)} questions, {answerable.sum()} answerable; held out:")
    every = list(range(len(SIGNALS)))
    without = [[n for n in every if n != left_out] for left_out in every]
    for columns in ([0], [1], [2], [3], [0, 1], [0, 1, 2], *without, every):
        sure = held_out(columns)
        names = ", ".join(SIGNALS[n] for n in columns)
        auc = roc_auc_score(answerable, sure)
        print(f"  AUC {auc:.3f}  F1 {f1(answerable, sure < THRESHOLD):.3f}  {names}")
    for name in sorted({run for run, _ in records}):
        chosen = np.array([run == name for run, _ in records])
        auc = roc_auc_score(answerable[chosen], sure[chosen])
        print(f"  {name}: AUC {auc:.3f}, F1 {f1(answerable[chosen], sure[chosen] < THRESHOLD):.3f}")
    model.fit(signals, answerable)
    scaler, regression = model[0], model[-1]
    weights = regression.coef_[0] / scaler.scale_
    fitted = {
        "intercept": round(float(regression.intercept_[0] - weights @ scaler.mean_), 4),
        "weights": {name: round(float(w), 4) for name, w in zip(SIGNALS, weights, strict=True)},
        "threshold": THRESHOLD,
    }
    print(json.dumps(fitted, indent=2))
    if not options.dry_run:
        (ROOT / "ragbot" / DATA).write_text(json.dumps(fitted, indent=2) + "\n", encoding="utf-8")
        plot(ROOT / "docs/results/abstention.png", answerable, right, sure)


if __name__ == "__main__":
    main()
