"""What the page sends, checked on the way in: every request, and answers that a browser kept.

A browser may send anything; what does not fit raises pydantic's ValidationError.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from ragbot.types import Answer, Language, Message
from ragbot.web.page.reading import Part

_VISITOR = r"^[A-Za-z0-9_-]{16,64}$"
_TURNS = 200  # of a conversation, in one request

Scope = Literal["site", "mine"]
Said = Annotated[str, Field(max_length=10_000)]
Name = Annotated[str, Field(max_length=1_000)]
History = Annotated[list[tuple[Said, Said]], Field(max_length=20)]


class Kept(BaseModel):
    """A turn of a conversation as a browser keeps it: answered, or stopped after `said`."""

    model_config = ConfigDict(frozen=True)

    scope: Scope = "site"
    answer: Answer | None = None
    said: Said = ""


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True)

    visitor: str = Field(pattern=_VISITOR)
    language: Language = "en"


class Hello(BaseModel):
    """A tab says whose it is."""

    visitor: str = Field(pattern=_VISITOR)


class Ask(_Request):
    """A question; `turn` is the name that its answer goes by."""

    turn: str = Field(pattern=_VISITOR)
    question: str
    scope: Scope = "site"
    history: History = []
    asked: Annotated[list[Said], Field(max_length=_TURNS)] = []
    documents: Annotated[list[Name], Field(max_length=100)] = []
    """The only ones to be asked; without any, all."""

    @property
    def messages(self) -> list[Message]:
        """The talk before, as the bot takes it."""
        return messages(self.history)


class Begin(_Request):
    """What a page needs at first: example questions, the visitor's documents, limits."""

    do: Literal["begin"]


class Alive(_Request):
    """The page is still open."""

    do: Literal["alive"]


class Show(_Request):
    """Render turns that a browser kept."""

    do: Literal["show"]
    turns: Annotated[list[Kept], Field(max_length=_TURNS)]


class Open(_Request):
    """A document for the reading pane."""

    do: Literal["open"]
    scope: Scope = "site"
    doc: Name
    start: int = 0
    end: int = 0
    quote: Said = ""
    part: Part = "around"


class List(_Request):
    """What the documents are called whose names hold some characters."""

    do: Literal["list"]
    scope: Scope = "site"
    like: Name = ""


class Rate(_Request):
    """A thumb up or down for an answer; without a verdict, it is taken back."""

    do: Literal["rate"]
    turn: str = Field(pattern=_VISITOR)
    scope: Scope = "site"
    answer: Answer
    history: History = []
    verdict: Literal["up", "down"] | None
    remark: str = Field("", max_length=1_000)


class Stored(BaseModel):
    """A file that was sent: its name with the visitor, and where the server put it."""

    name: Name
    stored: Name


class Add(_Request):
    """Files for the visitor's own documents."""

    do: Literal["add"]
    files: Annotated[list[Stored], Field(min_length=1, max_length=100)]


class Adding(_Request):
    """How far that is, or to give it up."""

    do: Literal["progress", "cancel"]


class Remove(_Request):
    """One of the visitor's documents is to go."""

    do: Literal["remove"]
    name: Name


class Save(_Request):
    """A conversation as a file."""

    do: Literal["save"]
    form: Literal["markdown", "json"]
    turns: Annotated[list[Kept], Field(max_length=_TURNS)]


class Stop(_Request):
    """The answer to a turn is no longer wanted."""

    do: Literal["stop"]
    turn: str = Field(pattern=_VISITOR)


Request = Begin | Alive | Show | Open | List | Rate | Add | Adding | Remove | Save | Stop

_REQUEST: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="do")])
_ANSWER = TypeAdapter(Answer)


def request(data: Any) -> Request:
    """A request from what the page sent. Raises ValidationError."""
    return _REQUEST.validate_python(data)


def record(answer: Answer) -> dict[str, Any]:
    """An answer as the browser keeps it: without what only a programmer looks at."""
    bare = replace(answer, raw="", signals={})
    kept: dict[str, Any] = _ANSWER.dump_python(bare, mode="json")
    return kept


def messages(history: Sequence[tuple[str, str]]) -> list[Message]:
    """Questions and their answers as the messages of a talk."""
    return [
        message
        for question, answer in history
        for message in (Message("user", question), Message("assistant", answer))
    ]
