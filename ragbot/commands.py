"""What the one-shot commands do: build, search, ask, verify. Settings in, printed result out."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragbot import console
from ragbot.bot import RagBot
from ragbot.cluster import connected
from ragbot.config import load_config
from ragbot.fence import checked
from ragbot.types import Answer
from ragbot.verify import verdict_on
from ragbot.waiting import progress, waiting
from ragbot.workspace import default_encoder, renewed_index, require_corpus, require_documents

Flags = Mapping[str, Any]


def build(flags: Flags, verbose: bool, ray: str | None = None) -> None:
    """Index a corpus in the index folder, whatever lies there now; `ray` is a cluster's address."""
    config = load_config(flags)
    # Named outright: `ragbot index CORPUS` makes the index that `ragbot ask` opens by default.
    config = config.model_copy(update={"index": config.index})
    require_corpus(config)
    with progress() as report:
        encoder = default_encoder(config, report)
        with connected(ray, config.threads or os.cpu_count() or 1) if ray else nullcontext() as by:
            index, corpus = renewed_index(config, config.corpus, encoder, report, by)
    left_out = [(d.name, piece) for d in corpus.documents for piece in d.left_out]
    left_out += [(piece.text, piece) for piece in corpus.skipped]
    if verbose:
        console.print_left_out(left_out)
    made = index.manifest
    more = "" if verbose or not left_out else f"; {len(left_out)} pieces left out, -v lists them"
    console.out().print(
        f"{made.documents} documents, {made.chunks} chunks, {made.vectors} vectors"
        f" in {config.index}{more}",
        markup=False,
    )


def search(question: str, flags: Flags, only: Sequence[str], *, as_json: bool) -> None:
    """Print the passages that bear on a question, of some documents `only` if any are named."""
    checked(question)
    bot = _bot(flags, only)
    hits = bot.search(question)
    if as_json:
        console.print_json({"results": [console.hit_json(hit) for hit in hits]})
    else:
        console.print_hits(hits)


@dataclass(frozen=True, slots=True)
class Shown:
    """How an answer is shown."""

    as_json: bool = False
    verbose: bool = False
    translated: bool = False


def ask(question: str, flags: Flags, only: Sequence[str], shown: Shown) -> None:
    """Print the answer, then its sources; from some documents `only`, as above."""
    checked(question)
    bot = _bot(flags, only)
    with waiting() as watch:
        answer = bot.stream(question, watch=watch).answer
    translations = _translations(bot, answer) if shown.translated else {}
    if shown.as_json:
        console.print_json(console.answer_json(answer) | {"translations": translations})
        return
    sys.stdout.write(f"{answer.text}\n")
    if shown.verbose:
        console.print_search(answer)
    console.print_sources(answer)
    console.print_translations(translations)


def _translations(bot: RagBot, answer: Answer) -> dict[int, str]:
    """The quotes of another language in the answer's, by their markers."""
    quotes = {one.marker: one.quote for one in (*answer.citations, *answer.related)}
    told = {marker: bot.translated(quote, answer.language) for marker, quote in quotes.items()}
    return {marker: text for marker, text in told.items() if text}


def verify(answers: Path, flags: Flags, *, as_json: bool) -> bool:
    """Print what of saved answers no longer stands; whether everything does."""
    config = load_config(flags)
    verdict = verdict_on(answers, config.corpus, keep_all=config.keep_all)
    if as_json:
        console.print_json(console.verdict_json(verdict))
    else:
        console.print_verdict(verdict)
    return not verdict.problems


def _bot(flags: Flags, only: Sequence[str]) -> RagBot:
    # A bad question is refused before this: loading models takes seconds.
    config = load_config(flags)
    require_documents(config, only)
    with progress() as report:
        bot = RagBot.from_corpus(config=config, report=report)
    return bot.within(only) if only else bot
