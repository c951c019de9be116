"""Whether the quotes of saved answers still stand where the answers say. No model, no index.

Whether a quote proves its sentence is not asked here: that was settled when the answer was made.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    ValidationError,
    model_validator,
)

from ragbot.corpus import load_corpus
from ragbot.errors import ConfigError
from ragbot.types import Citation, Document

State = Literal["moved", "changed", "missing", "uncited", "unused", "repeated", "unproven"]
"""What is wrong. Of a quote: it stands elsewhere in its document, in no paragraph of it, or there
is no such document. Of a marker: it has no citation, is not in the answer, or has several
citations. Of an answer: it is no refusal and has neither marker nor citation."""

STANDARD_INPUT = Path("-")

_LARGEST = 64 << 20  # bytes
_STDIN = 0
_MARKER = re.compile(r"\[([0-9]{1,9})\]")
_SPACE = re.compile(r"\s*")
_REMEDY = "give what `ragbot ask --json` prints, or answers.jsonl of an evaluation"


class SavedCitation(BaseModel):
    """A citation as it was saved. Evaluations keep no offsets."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    marker: StrictInt = Field(ge=1)
    doc: str = Field(min_length=1)
    paragraph: StrictInt = Field(ge=1)
    start: StrictInt | None = Field(None, ge=0)
    end: StrictInt | None = Field(None, ge=0)
    quote: str = Field(min_length=1)  # a bound also keeps out halves of characters

    @model_validator(mode="after")
    def _quotes_something(self) -> SavedCitation:
        if not self.quote.strip():
            raise ValueError("the quote is empty")
        if (self.start is None) != (self.end is None):
            raise ValueError("start and end belong together")
        if self.start is not None and self.end is not None and self.start > self.end:
            raise ValueError("start lies behind end")
        return self


class SavedAnswer(BaseModel):
    """An answer as it was saved; `answer` is None where an evaluation asked nothing."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    answer: str | None
    abstained: StrictBool | None = None
    citations: tuple[SavedCitation, ...]
    related: tuple[SavedCitation, ...] = ()

    @property
    def quoted(self) -> tuple[SavedCitation, ...]:
        """All that a marker may stand for: a refusal's may stand for what comes nearest."""
        return (*self.citations, *(self.related if self.abstained else ()))


@dataclass(frozen=True, slots=True)
class Problem:
    """What does not stand in the answer of that number; a moved quote has a place `now`."""

    answer: int
    state: State
    marker: int | None = None
    citation: SavedCitation | None = None
    now: Citation | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """How many answers and quotes were looked at, and everything that does not stand."""

    answers: int
    quotes: int
    problems: tuple[Problem, ...]

    @property
    def fallen(self) -> int:
        """How many quotes do not stand."""
        return sum(problem.citation is not None for problem in self.problems)


def verdict_on(path: Path, corpus: Path, *, keep_all: bool = False) -> Verdict:
    """Look up the answers of a file, `-` for standard input, in a corpus.

    Raises ConfigError when the file holds no answers, CorpusError.
    """
    answers = read_answers(path)
    documents = load_corpus(corpus, keep_all=keep_all).documents
    return verdict(answers, {document.name: document for document in documents})


def verdict(answers: Sequence[SavedAnswer], documents: Mapping[str, Document]) -> Verdict:
    """Look up answers, which count from 1, in documents by name."""
    problems = [
        problem
        for number, saved in enumerate(answers, start=1)
        for problem in (*_quotes(number, saved, documents), *_markers(number, saved))
    ]
    return Verdict(
        answers=sum(saved.answer is not None for saved in answers),
        quotes=sum(len(saved.quoted) for saved in answers),
        problems=tuple(problems),
    )


# --- quotes and markers ----------------------------------------------------------------------


def _quotes(
    number: int, saved: SavedAnswer, documents: Mapping[str, Document]
) -> Iterator[Problem]:
    for citation in saved.quoted:
        document = documents.get(citation.doc)
        if document is None:
            yield Problem(number, "missing", citation.marker, citation)
        elif not _stands(citation, document):
            now = _found(citation, document)
            yield Problem(number, "moved" if now else "changed", citation.marker, citation, now)


def _stands(citation: SavedCitation, document: Document) -> bool:
    for paragraph in document.paragraphs:
        if paragraph.number == citation.paragraph:
            if citation.start is None or citation.end is None:
                return citation.quote in document.text[paragraph.start : paragraph.end]
            inside = paragraph.start <= citation.start and citation.end <= paragraph.end
            return inside and document.text[citation.start : citation.end] == citation.quote
    return False


def _found(citation: SavedCitation, document: Document) -> Citation | None:
    """The first place of a quote in the nearest paragraph that holds it."""
    quote = citation.quote
    holding = [
        (paragraph.number, at)
        for paragraph in document.paragraphs
        if (at := document.text.find(quote, paragraph.start, paragraph.end)) >= 0
    ]
    if not holding:
        return None
    number, at = min(holding, key=lambda place: abs(place[0] - citation.paragraph))
    return Citation(citation.marker, document.name, number, at, at + len(quote), quote)


def _markers(number: int, saved: SavedAnswer) -> Iterator[Problem]:
    used = {int(marker) for marker in _MARKER.findall(saved.answer or "")}
    cited = Counter(citation.marker for citation in saved.quoted)
    for marker in sorted({*used, *cited}):
        if marker not in cited:
            yield Problem(number, "uncited", marker)
        elif marker not in used:
            yield Problem(number, "unused", marker)
        elif cited[marker] > 1:
            yield Problem(number, "repeated", marker)
    if saved.answer is not None and not (saved.abstained or used or cited):
        yield Problem(number, "unproven")


# --- reading ---------------------------------------------------------------------------------


def read_answers(path: Path) -> list[SavedAnswer]:
    """The answers of a file: objects one after another, as JSON Lines are, or in lists.

    Raises ConfigError, which says what is wrong with the file.
    """
    name = "Standard input" if path == STANDARD_INPUT else str(path)
    answers = [
        _answer(name, number, value)
        for number, value in enumerate(_values(name, _text(name, path)), start=1)
    ]
    if all(saved.answer is None for saved in answers):
        raise ConfigError(f"{name} holds no answer: {_REMEDY}.")
    return answers


def _text(name: str, path: Path) -> str:
    try:
        piped = path == STANDARD_INPUT
        with open(_STDIN if piped else path, "rb", closefd=not piped) as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise ConfigError(f"{name} cannot be read ({error.strerror}): {_REMEDY}.") from error
    if len(data) > _LARGEST:
        raise ConfigError(f"{name} has more than {_LARGEST >> 20} MB: give it in parts.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name} is not UTF-8 text: save it as that.") from error


def _values(name: str, text: str) -> Iterator[object]:
    decoder = json.JSONDecoder()
    at = _after_space(text, 0)
    while at < len(text):
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{name} is not JSON ({error}): {_REMEDY}.") from error
        yield from value if isinstance(value, list) else (value,)
        at = _after_space(text, end)


def _after_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space else at


def _answer(name: str, number: int, value: object) -> SavedAnswer:
    wrong = f"Number {number} of {name} is no answer of ragbot's"
    if not isinstance(value, dict):
        raise ConfigError(f"{wrong} (it is no object): {_REMEDY}.")
    try:
        return SavedAnswer.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        said = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{wrong} ({where}: {said}): {_REMEDY}.") from error
