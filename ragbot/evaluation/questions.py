"""Question sets: JSON Lines, CSV, a bare list or rated answers, checked before anything is run."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ragbot.database import Database
from ragbot.errors import ConfigError
from ragbot.evaluation.rated import SUFFIXES, rated_rows
from ragbot.fence import checked
from ragbot.text import detect_language
from ragbot.types import Language, Message


class Gold(BaseModel):
    """A paragraph that supports the answer; `doc` is empty where the corpus is one document."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    doc: str = ""
    paragraph: int = Field(ge=1)


class Turn(BaseModel):
    """One earlier message of the conversation that a follow-up belongs to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["user", "assistant"]
    content: str


class Question(BaseModel):
    """One question of a set. Each list of `must_include` holds the forms of one required fact.

    `answerable` is None where the set does not say: such a question is asked and recorded only.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str = Field(min_length=1)
    question: str
    lang: Language
    type: str = ""
    history: tuple[Turn, ...] = ()
    answerable: bool | None = None
    gold: tuple[Gold, ...] = ()
    must_include: tuple[tuple[str, ...], ...] = ()
    must_not_include: tuple[str, ...] = ()
    reference_answer: str = ""

    @property
    def messages(self) -> list[Message]:
        """The talk before the question."""
        return [Message(turn.role, turn.content) for turn in self.history]

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, fields: object) -> object:
        """`gold_paragraphs` are gold, too; what has gold or facts is answerable; a language shows.

        Raises ValueError."""
        if not isinstance(fields, dict):
            return fields
        numbers = fields.get("gold_paragraphs") or []
        if not isinstance(numbers, list):
            raise ValueError("gold_paragraphs must be a list of numbers")
        gold = [*(fields.get("gold") or ()), *({"paragraph": number} for number in numbers)]
        known = {"answerable": True} if gold or fields.get("must_include") else {}
        lang = {"lang": detect_language(str(fields.get("question", "")))}
        return {**known, **lang, **fields, "gold": gold}

    @field_validator("question")
    @classmethod
    def _askable(cls, question: str) -> str:
        try:
            return checked(question)
        except ConfigError as error:
            raise ValueError(str(error).rstrip(".")) from error

    @field_validator("must_include")
    @classmethod
    def _facts_have_forms(cls, facts: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
        if any(not any(any(map(str.isalnum, form)) for form in forms) for forms in facts):
            raise ValueError("each required fact needs a form with a letter or a digit in it")
        return facts


class RatedQuestion(Question):
    """A question whose answer a reader rated, with what the reader said of it."""

    remark: str = ""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which questions of a set are asked: of these types and languages, `limit` of them at most."""

    types: tuple[str, ...] = ()
    langs: tuple[str, ...] = ()
    limit: int | None = None
    seed: int = 0


def source(named: Path | str) -> Path | Database:
    """Where a question set lies: a file, or ratings in a file or at a URL. Raises ConfigError."""
    if "://" in str(named):
        return Database(str(named))
    path = Path(named)
    return Database(path) if path.suffix.lower() in SUFFIXES else path


def load_questions(named: Path | str) -> list[Question]:
    """The questions of a file, whose form its name tells: .csv, .txt (a bare list), JSON Lines, or
    .sqlite, the ratings that `ragbot serve` keeps; or of the database with such ratings at a URL.

    Raises ConfigError, which names the line and what is wrong.
    """
    place = source(named)
    questions: dict[str, Question] = {}
    for number, row, kind in _rows(place):
        question = _question(place, number, row, kind)
        if question.id in questions:
            raise ConfigError(
                f"Line {number} of {place}: the id {question.id!r} stands twice: make each unique."
            )
        questions[question.id] = question
    if not questions:
        raise ConfigError(f"There are no questions in {place}: give it one a line.")
    return list(questions.values())


def select(questions: Sequence[Question], wanted: Selection) -> list[Question]:
    """The questions asked for, in their order; a limit draws from them by the seed.

    Raises ConfigError when none is left.
    """
    for name, values, known in (
        ("types", wanted.types, {question.type for question in questions}),
        ("langs", wanted.langs, {question.lang for question in questions}),
    ):
        if unknown := sorted(set(values) - known):
            there = ", ".join(sorted(filter(None, known))) or "none"
            raise ConfigError(f"No question has {name} {', '.join(unknown)}: there are {there}.")
    kept = [
        question
        for question in questions
        if (not wanted.types or question.type in wanted.types)
        and (not wanted.langs or question.lang in wanted.langs)
    ]
    if not kept:
        raise ConfigError("No question has both the types and the languages asked for: name fewer.")
    if wanted.limit is None or wanted.limit >= len(kept):
        return kept
    drawn = random.Random(wanted.seed).sample(range(len(kept)), wanted.limit)
    return [kept[number] for number in sorted(drawn)]


Rows = Iterator[tuple[int, object]]


def _rows(place: Path | Database) -> Iterator[tuple[int, object, type[Question]]]:
    try:
        if isinstance(place, Database):
            if place.file:
                place.file.open("rb").close()  # what is missing is told as of any file
            yield from ((number, row, RatedQuestion) for number, row in rated_rows(place))
            return
        text = place.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"The questions {place} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"The questions {place} are not UTF-8 text: save them as that."
        ) from error
    read = {".csv": _csv_rows, ".txt": _bare_rows}.get(place.suffix.lower(), _json_rows)
    yield from ((number, row, Question) for number, row in read(place, text))


def _json_rows(path: Path, text: str) -> Rows:
    for number, line in _lines(text.split("\n")):
        try:
            yield number, json.loads(line)
        except ValueError as error:
            raise ConfigError(f"Line {number} of {path} is not JSON: {error}.") from error


def _csv_rows(path: Path, text: str) -> Rows:
    """The columns question, id, lang, type and reference_answer; only the first must be there."""
    rows = csv.DictReader(text.splitlines(keepends=True), strict=True)
    if "question" not in (rows.fieldnames or ()):
        raise ConfigError(f"{path} has no column named question: name one so in its first line.")
    try:
        for count, row in enumerate(rows, start=1):
            known = ("id", "question", "lang", "type", "reference_answer")
            fields = {name: row[name].strip() for name in known if row.get(name)}
            yield rows.line_num, {"id": f"q{count}", **fields}
    except csv.Error as error:
        raise ConfigError(f"Line {rows.line_num} of {path} is not CSV: {error}.") from error


def _bare_rows(path: Path, text: str) -> Rows:
    for count, (number, line) in enumerate(_lines(text.split("\n")), start=1):
        yield number, {"id": f"q{count}", "question": line}


def _lines(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    return ((number, line) for number, line in enumerate(lines, start=1) if line.strip())


def _question(place: Path | Database, number: int, row: object, kind: type[Question]) -> Question:
    try:
        return kind.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the object"
        said = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"Line {number} of {place}: {where}: {said}.") from error
