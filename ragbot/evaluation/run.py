"""Ask a question set and report. So far: what retrieval finds."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ragbot import console
from ragbot.bot import RagBot, standalone
from ragbot.config import load_config
from ragbot.evaluation.questions import load_questions
from ragbot.evaluation.retrieval import DEPTH, NAMES, Ranked, mean, retrieval_figures
from ragbot.types import Message

_CHUNKS_A_PARAGRAPH = 3  # asked for, so that ten paragraphs come up though some are in parts


def retrieval(questions: Path, flags: Mapping[str, Any], *, as_json: bool) -> None:
    """Print recall@k, MRR and nDCG of the questions over the corpus. Raises RagbotError."""
    asked = load_questions(questions)
    with console.progress() as report:
        bot = RagBot.from_corpus(config=load_config(flags), report=report)
        update = report("Searching")
        start = time.perf_counter()
        results = []
        for number, question in enumerate(asked, start=1):
            history = [Message(turn.role, turn.content) for turn in question.history]
            query = standalone(question.question, history)
            hits = bot.retriever.search(query, limit=DEPTH * _CHUNKS_A_PARAGRAPH)
            results.append(Ranked(question, hits))
            update(number, len(asked))
    figures = {name: mean(values) for name, values in retrieval_figures(results).items()}
    seconds = time.perf_counter() - start
    if as_json:
        console.print_json({"n": len(asked), "seconds": round(seconds, 1), "retrieval": figures})
        return
    shown = "  ".join(f"{name} {figures[name]:.3f}" for name in NAMES)
    console.out().print(f"{questions.name}: {shown}  ({len(asked)} questions, {seconds:.0f} s)")
