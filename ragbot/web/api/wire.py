"""What goes over the wire of the HTTP API: the OpenAI chat format and its errors, hits, citations.

Fields that OpenAI knows and ragbot does not are ignored, as OpenAI's own clients expect; those that
ask for what ragbot cannot do are refused. Nothing is answered here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi.responses import JSONResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ragbot.fence import LONGEST_QUESTION
from ragbot.types import Language

MODEL = "ragbot"

_EXAMPLE_QUESTION = "Which hospital worked with Huawei on RuiPath?"


class TextPart(BaseModel):
    """A part of a message; only text can be read."""

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """A message of a conversation. Those of roles other than user and assistant are not read:
    what ragbot may answer from is its documents, not what a client tells it."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[TextPart] | None = Field(None, description="Text, in parts or as a whole")

    @property
    def text(self) -> str:
        """The parts of the content as one text."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(BaseModel):
    """What a stream tells besides the answer."""

    include_usage: bool | None = Field(None, description="Whether a last chunk tells the tokens")


class ResponseFormat(BaseModel):
    """The form of an answer: text, there is no other."""

    type: Literal["text"]


Documents = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=1_000)]] | None,
    Field(
        min_length=1,
        max_length=100,
        description="Only from these: names of documents, folders (reports/), patterns (*.md)",
    ),
]


class ChatRequest(BaseModel):
    """A conversation whose last user message is the question, those before it what it follows.

    Fields of OpenAI's that are not listed (temperature, max_tokens, seed, user, ...) are ignored:
    ragbot decodes greedily, to a length of its own.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": MODEL,
                    "messages": [{"role": "user", "content": _EXAMPLE_QUESTION}],
                    "stream": False,
                }
            ]
        }
    )

    model: str = Field(
        description="The only one there is; another is not found",
        json_schema_extra={"enum": [MODEL]},
    )
    messages: list[ChatMessage] = Field(min_length=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = Field(None, description="One answer, there is only one")
    tools: list[Any] | None = Field(None, max_length=0, description="None: ragbot calls no tools")
    functions: list[Any] | None = Field(None, max_length=0, description="None, as for tools")
    response_format: ResponseFormat | None = None
    documents: Documents = None


class Cited(BaseModel):
    """A sentence of a document, `text[start:end]` of the document's text, that proves what the
    marker `[n]` stands behind."""

    marker: int
    doc: str = Field(description="The document's name, its path in the corpus")
    title: str = Field(description="The document's title")
    paragraph: int
    start: int
    end: int
    quote: str


class Proof(BaseModel):
    """What ragbot tells besides the text of an answer."""

    citations: list[Cited]
    abstained: bool = Field(description="Whether the documents do not hold the answer")
    related: list[Cited] = Field(description="Of a refusal: what comes nearest; it proves nothing")
    confidence: float = Field(description="How sure, 0 to 1, that the documents hold the answer")
    language: Language


class Reply(Proof):
    """The answer, each sentence with its markers, and what proves it."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(BaseModel):
    """The one answer."""

    index: Literal[0] = 0
    message: Reply
    finish_reason: Literal["stop"] = "stop"
    logprobs: None = None


class TokenUsage(BaseModel):
    """The tokens that the generator read and wrote, for all its steps together."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Completion(BaseModel):
    """A finished answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: Literal["ragbot"] = "ragbot"
    choices: list[Choice]
    usage: TokenUsage


class Model(BaseModel):
    """What answers."""

    id: Literal["ragbot"] = "ragbot"
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["ragbot"] = "ragbot"


class Models(BaseModel):
    """All that answers: one."""

    object: Literal["list"] = "list"
    data: list[Model]


def _number(value: object) -> object:
    # 3.0 is an integer to JSON, "3" is none, though pydantic would take it for one.
    if isinstance(value, (str, bool)):
        raise ValueError("it should be a number")
    return value


class SearchRequest(BaseModel):
    """What to look for in the documents; no generator is asked."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": _EXAMPLE_QUESTION, "top_k": 3}]}
    )

    query: str = Field(min_length=1, max_length=LONGEST_QUESTION)
    top_k: Annotated[int, BeforeValidator(_number)] = Field(8, ge=1, le=50)
    documents: Documents = None


class FoundPassage(BaseModel):
    """A passage, `text[start:end]` of its document's text."""

    document: str
    paragraph: int
    start: int
    end: int
    text: str
    score: float = Field(description="Comparable within one search only; best first")


class SearchResult(BaseModel):
    """What bears on a query, best first."""

    hits: list[FoundPassage]


class Health(BaseModel):
    """That the server is up, over how much, and how many wait."""

    status: Literal["ok"] = "ok"
    documents: int
    chunks: int
    waiting: int


class ErrorBody(BaseModel):
    """What went wrong, as OpenAI's clients read it."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class Failure(BaseModel):
    """Every answer that is none."""

    error: ErrorBody


_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def failure(
    status: int, message: str, code: str | None = None, param: str | None = None
) -> Failure:
    """An error with the type that OpenAI gives to its status."""
    kind = "server_error" if status >= 500 else _TYPES.get(status, "invalid_request_error")
    return Failure(error=ErrorBody(message=message, type=kind, param=param, code=code))


def respond(status: int, failed: Failure, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An error as a response."""
    return JSONResponse(failed.model_dump(), status, dict(headers or {}))


BUG = failure(500, "Something went wrong inside ragbot: its log says what.", "internal_error")
"""All that a client is told of a bug."""
