"""The report: one HTML file that holds everything it shows, and asks nothing of any other host.

What is shown is decided in `report.html`, a page that draws the data it is given.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from ragbot.evaluation.metrics import RATES
from ragbot.evaluation.records import Record

_DATA = "/*DATA*/null"
_KEPT = {"id", "question", "lang", "type", "answerable", "answer", "abstained", "confidence"} | {
    "citations", "retrieved", "prompt", "reference", "gold", "step", "scores", "timings"
}  # fmt: skip


def run_report(
    summary: Mapping[str, Any], records: Sequence[Record], passages: Mapping[str, str]
) -> str:
    """The page of one run; `passages` are texts of paragraphs by `DOCUMENT#NUMBER`."""
    shown = set()
    for record in records:
        shown |= {f"{found.doc}#{found.paragraph}" for found in record.prompt}
        shown |= {f"{gold.doc}#{gold.paragraph}" for gold in record.gold}
    questions = [
        record.model_dump(mode="json", include=_KEPT) | {"right": record.right}
        for record in records
    ]
    texts = {place: text for place, text in passages.items() if place in shown}
    return _page({"summary": summary, "questions": questions, "passages": texts})


def comparison_report(comparison: Mapping[str, Any]) -> str:
    """The page of a comparison of two runs."""
    return _page({"comparison": comparison})


def _page(data: Mapping[str, Any]) -> str:
    template = files("ragbot.evaluation").joinpath("report.html").read_text(encoding="utf-8")
    # In a script element only "</" and "<!--" mean anything; as escapes they are plain JSON.
    text = json.dumps({**data, "rates": list(RATES)}, ensure_ascii=False).replace("<", "\\u003c")
    return template.replace(_DATA, text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))
