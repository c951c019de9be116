"""What a run measures with: questions, corpus, index, models; and the judge of an answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragbot.corpus import load_corpus
from ragbot.errors import ConfigError
from ragbot.evaluation.questions import Question, Selection, load_questions, select
from ragbot.evaluation.scoring import answer_scores
from ragbot.text import sentences

ROOT = Path(__file__).parents[2]
MODELS = {"1.5B": "packaged:qwen2.5-coder-1.5b", "0.5B": "packaged:qwen2.5-coder-0.5b"}
MAX_TOKENS = 320  # the longest answer, ours and the peers'
SEED = 0

Sample = dict[str, Any]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings of a run. `index` is a folder of its own, made before the first part."""

    questions: Sequence[Question]
    warm_up: Question
    corpus: Path
    index: Path
    cold_starts: int = 3
    rounds: int = 2
    peer_questions: int = 12


@dataclass(frozen=True, slots=True)
class Table:
    """Figures with the conditions they were measured under. All rows have the same columns."""

    title: str
    conditions: str
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the bench: how many samples it takes, how they are taken, what they show."""

    name: str
    count: Callable[[Plan], int]
    samples: Callable[[Plan], Iterator[Sample]]
    tables: Callable[[Sequence[Sample]], list[Table]]


def draw(path: Path, limit: int) -> tuple[list[Question], Question]:
    """A sample of a question set, and one more question to warm up with.

    Follow-ups are left out, since not every peer takes what was said before. Raises ConfigError.
    """
    alone = [question for question in load_questions(path) if not question.history]
    if len(alone) <= limit:
        raise ConfigError(
            f"{path} has {len(alone)} questions that stand alone, one of them to warm up with: "
            f"ask for fewer than that with --limit."
        )
    *drawn, last = select(alone, Selection(limit=limit + 1, seed=SEED))
    return drawn, last


# --- what is read off an answer ---------------------------------------------------------------

_BRACKETS = re.compile(r"[\[【［]([^\[\]【】［］]*\d[^\[\]【】［］]*)[\]】］]")
_LEAST = 8  # characters of a sentence that tells a paragraph from others


def right(question: Question, text: str, abstained: bool) -> float | None:
    """Whether an answer is right, as `ragbot eval` judges it; None for what has no answer."""
    return answer_scores(question, text, abstained)["accuracy"]


def cited(text: str, sources: Mapping[str, str]) -> list[str]:
    """The sources that an answer cites by a number in brackets, however it writes them."""
    numbers = [n for part in _BRACKETS.findall(text) for n in re.findall(r"\d+", part)]
    return [sources[number] for number in dict.fromkeys(numbers) if number in sources]


def cites_gold(question: Question, pieces: Sequence[str], corpus: Path) -> float | None:
    """Whether one of the pieces holds a sentence of a gold paragraph; None where there is none."""
    if not question.answerable or not question.gold:
        return None
    wanted = [
        text[start:end].strip()
        for text in _paragraphs(corpus, {gold.paragraph for gold in question.gold})
        for start, end in sentences(text)
    ]
    return float(any(s in piece for s in wanted if len(s) >= _LEAST for piece in pieces))


def _paragraphs(corpus: Path, numbers: set[int]) -> list[str]:
    return [
        document.text[paragraph.start : paragraph.end]
        for document in load_corpus(corpus).documents
        for paragraph in document.paragraphs
        if paragraph.number in numbers
    ]


def tokens(timings: Mapping[str, Any], kind: str) -> float | None:
    """Tokens of a kind, where this version of ragbot counts them."""
    counted: float | None = timings.get(f"{kind}_tokens", timings.get(kind))
    return counted
