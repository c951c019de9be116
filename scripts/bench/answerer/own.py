"""ragbot, as a program that uses it has it: `python -m scripts.bench.answerer.own`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ragbot import RagBot
from ragbot.config import load_config
from ragbot.types import Answer, Step
from scripts.bench.answerer.protocol import Opened, Say, run


def opened(settings: dict[str, Any]) -> Opened:
    """A bot over `corpus` with the generator `llm`, both models loaded."""
    bot = RagBot.from_corpus(config=load_config(settings))
    engine = bot.engine
    paragraphs = {
        (document.name, paragraph.number): document.text[paragraph.start : paragraph.end]
        for document in bot.retriever.index.documents.values()
        for paragraph in document.paragraphs
    }

    def answer(question: str, say: Say) -> dict[str, Any]:
        start, near = time.perf_counter(), list[float]()

        def watch(step: Step) -> None:
            if step.nearest:
                near.append(round(time.perf_counter() - start, 3))

        stream = bot.stream(question, watch=watch)
        for piece in stream:
            say(piece)
        return _told(stream.answer, paragraphs) | {"near_s": near[0] if near else None}

    return answer, {"name": "ragbot", "engine": engine.name}


def _told(answer: Answer, paragraphs: Mapping[tuple[str, int], str]) -> dict[str, Any]:
    return {
        "text": answer.text,
        "sources": {str(c.marker): paragraphs[c.doc, c.paragraph] for c in answer.citations},
        "abstained": answer.abstained,
        "timings": asdict(answer.timings),
    }


if __name__ == "__main__":
    run(opened)
