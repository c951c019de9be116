"""Question sets: JSON Lines, checked line by line before anything is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ragbot.errors import ConfigError
from ragbot.types import Language


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
    """One line of a question set. Each list of `must_include` holds the forms of one fact."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    question: str = Field(min_length=1)
    lang: Language = "en"
    type: str = ""
    history: tuple[Turn, ...] = ()
    answerable: bool = True
    gold: tuple[Gold, ...] = ()
    must_include: tuple[tuple[str, ...], ...] = ()
    must_not_include: tuple[str, ...] = ()
    reference_answer: str = ""

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_gold_too(cls, fields: object) -> object:
        if isinstance(fields, dict) and "gold_paragraphs" in fields:
            fields = dict(fields)
            numbers = fields.pop("gold_paragraphs")
            if not isinstance(numbers, list):
                raise ValueError("gold_paragraphs must be a list of numbers")
            rest = list(fields.get("gold") or ())
            fields["gold"] = [*rest, *({"paragraph": number} for number in numbers)]
        return fields


def load_questions(path: Path) -> list[Question]:
    """The questions of a file. Raises ConfigError, which names the line and what is wrong."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"The questions {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"The questions {path} are not UTF-8 text: save them as that.") from error
    questions = [
        _question(path, number, line)
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip()
    ]
    if not questions:
        raise ConfigError(f"There are no questions in {path}: give it one JSON object a line.")
    seen: set[str] = set()
    for question in questions:
        if question.id in seen:
            raise ConfigError(f"The id {question.id!r} stands twice in {path}: make each unique.")
        seen.add(question.id)
    return questions


def _question(path: Path, number: int, line: str) -> Question:
    try:
        return Question.model_validate(json.loads(line))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the object"
        raise ConfigError(f"Line {number} of {path}: {where}: {first['msg']}.") from error
    except ValueError as error:
        raise ConfigError(f"Line {number} of {path} is not JSON: {error}.") from error
