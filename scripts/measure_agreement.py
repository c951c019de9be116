"""How often the judge of support agrees with the hand-labelled pairs, by language and threshold.

The pairs (tests/data/support_pairs.jsonl) are claims with quotations, most of the wrong ones nearly
right: another number, another name, the opposite, something added. `held out` chooses the threshold
for each pair by the other 99, so that no pair decides on itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from ragbot.config import load_config
from ragbot.engines.llamacpp import LlamaCppEngine
from ragbot.evaluation.support import THRESHOLD, log_odds
from ragbot.workspace import default_engine

PAIRS = Path(__file__).parents[1] / "tests" / "data" / "support_pairs.jsonl"

Scored = tuple[float, bool]


def agreement(scored: Sequence[Scored], threshold: float) -> float:
    """The share of pairs that a threshold puts on the side of their label."""
    return sum((odds >= threshold) == label for odds, label in scored) / len(scored)


def best_threshold(scored: Sequence[Scored]) -> float:
    """The middle of the thresholds that agree most."""
    odds = sorted(odds for odds, _ in scored)
    between = [(a + b) / 2 for a, b in pairwise(odds)]
    most = max(agreement(scored, threshold) for threshold in between)
    good = [threshold for threshold in between if agreement(scored, threshold) == most]
    return good[len(good) // 2]


def main() -> None:
    """Score the pairs by the packaged model and print the figures."""
    engine = default_engine(load_config())
    if not isinstance(engine, LlamaCppEngine):
        raise SystemExit("unset RAGBOT_BASE_URL: the packaged model is measured")
    pairs = [json.loads(line) for line in PAIRS.read_text(encoding="utf-8").splitlines()]
    scored = [
        (log_odds(engine.first_token, pair["claim"], pair["quote"]), bool(pair["supported"]))
        for pair in pairs
    ]
    held_out = [
        (scored[n][0] >= best_threshold(scored[:n] + scored[n + 1 :])) == scored[n][1]
        for n in range(len(scored))
    ]
    for kind in sorted({pair["kind"] for pair in pairs}):
        part = [score for pair, score in zip(pairs, scored, strict=True) if pair["kind"] == kind]
        print(f"{kind:6} {len(part):4} pairs  {agreement(part, THRESHOLD):.3f}")
    print(f"all    {len(scored):4} pairs  {agreement(scored, THRESHOLD):.3f} at {THRESHOLD:g}")
    print(f"       at 0 {agreement(scored, 0):.3f}, held out {sum(held_out) / len(held_out):.3f}")
    wrong = [
        (p, o) for p, (o, label) in zip(pairs, scored, strict=True) if (o >= THRESHOLD) != label
    ]
    for pair, odds in wrong:
        print(f"  {odds:6.2f} labelled {pair['supported']}: {pair['claim']} | {pair['quote']}")


if __name__ == "__main__":
    main()
