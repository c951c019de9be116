"""A picture of one question's trace: `python scripts/draw_trace.py TRACE.jsonl PICTURE.svg`.

TRACE.jsonl is what `OTEL_TRACES_EXPORTER=console ragbot ask ...` writes to standard error: a span a
line. Of several questions the last one is drawn.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

COLOURS = {"chat": "#c2410c", "search": "#0f766e", "prove": "#4d7c0f"}
USUAL = "#94a3b8"  # of what holds others
INK = "#1e293b"
STEP = "\N{NO-BREAK SPACE}" * 4


@dataclass(frozen=True)
class Bar:
    """A span: seconds from the question's beginning, how deep it lies, and what is written."""

    name: str
    start: float
    end: float
    depth: int
    remark: str


def bars(spans: list[dict[str, Any]]) -> list[Bar]:
    """The spans of the last question, in the order in which they are drawn."""
    root = [span for span in spans if span["name"] == "question"][-1]
    trace = root["context"]["trace_id"]
    of_question = [span for span in spans if span["context"]["trace_id"] == trace]
    parts: dict[str | None, list[dict[str, Any]]] = {}
    for span in sorted(of_question, key=lambda span: str(span["start_time"])):
        parts.setdefault(span["parent_id"], []).append(span)
    began, found = seconds(root["start_time"]), list[Bar]()

    def add(span: dict[str, Any], depth: int) -> None:
        start, end = (seconds(span[time]) - began for time in ("start_time", "end_time"))
        found.append(Bar(span["name"], start, end, depth, remark(span["attributes"])))
        for part in parts.get(span["context"]["span_id"], []):
            add(part, depth + 1)

    add(root, 0)
    return found


def seconds(time: str) -> float:
    """A time of the console exporter's."""
    return datetime.fromisoformat(time.replace("Z", "+00:00")).timestamp()


def remark(attributes: dict[str, Any]) -> str:
    """The tokens of a generator's call, if it is one and its server counts them."""
    read = attributes.get("gen_ai.usage.input_tokens")
    if read is None:
        return ""
    known = attributes["gen_ai.usage.cache_read.input_tokens"]
    written = attributes["gen_ai.usage.output_tokens"]
    return f": {read} tokens read, {known} of them known, {written} written"


def draw(found: list[Bar], picture: Path) -> None:
    """Bars from top to bottom, each under what it is part of."""
    plt.rcParams.update({"font.family": "sans-serif", "font.size": 9, "svg.fonttype": "none"})
    plt.rcParams["svg.hashsalt"] = "ragbot"
    figure, axes = plt.subplots(figsize=(6, 0.34 * len(found) + 0.8))
    whole = found[0].end
    for row, bar in enumerate(found):
        length = max(bar.end - bar.start, whole / 500)
        colour = COLOURS.get(bar.name.split()[0], USUAL)
        axes.barh(row, length, left=bar.start, height=0.62, color=colour)
        said = f"{bar.end - bar.start:.2f} s{bar.remark}"
        axes.text(1.01, row, said, va="center", color=INK, transform=axes.get_yaxis_transform())
    # In SVG other spaces at the beginning are dropped.
    names = [f"{STEP * bar.depth}{bar.name}" for bar in found]
    axes.set_yticks(range(len(found)), names, ha="left")
    axes.tick_params(axis="y", length=0, labelcolor=INK, pad=5 * max(map(len, names)))
    axes.invert_yaxis()
    axes.set_xlim(0, whole)
    axes.set_xlabel("seconds from the question", color=INK)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", color="#e2e8f0")
    axes.set_axisbelow(True)
    figure.savefig(
        picture, bbox_inches="tight", metadata={"Date": None} if picture.suffix == ".svg" else None
    )


def main() -> None:
    """Read, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trace", type=Path)
    parser.add_argument("picture", type=Path)
    arguments = parser.parse_args()
    lines = arguments.trace.read_text(encoding="utf-8").splitlines()
    draw(bars([json.loads(line) for line in lines if line.startswith("{")]), arguments.picture)


if __name__ == "__main__":
    main()
