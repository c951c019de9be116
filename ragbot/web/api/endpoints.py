"""The HTTP API: OpenAI's chat completions and models, search, health, figures.

Questions go through the desk, as the page's do. A client that hangs up has its question stopped at
once, whether it asked for a stream or not. Keys, rates and limits are the guard's business.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import ClientDisconnect

from ragbot.bot import RagBot
from ragbot.errors import ConfigError
from ragbot.types import Answer, Citation, Message
from ragbot.web.api.errors import explain_errors
from ragbot.web.api.stream import Live, begun, chunks, unless_gone
from ragbot.web.api.wire import (
    MODEL,
    ChatRequest,
    Choice,
    Cited,
    Completion,
    Failure,
    FoundPassage,
    Health,
    Model,
    Models,
    Proof,
    Reply,
    SearchRequest,
    SearchResult,
    TokenUsage,
    failure,
    respond,
)
from ragbot.web.desk import Desk, Event, Finished
from ragbot.web.observe import Book


@dataclass(frozen=True, slots=True)
class Service:
    """What the endpoints work with."""

    desk: Desk
    bot: RagBot
    book: Book
    started: int

    async def bot_for(self, documents: Sequence[str] | None) -> RagBot:
        """The bot, for some documents alone if any are named. Raises UnknownDocumentError."""
        return await run_in_threadpool(self.bot.within, documents) if documents else self.bot

    def proof(self, answer: Answer) -> Proof:
        """What an answer tells besides its text."""
        return Proof(
            citations=[self._cited(one) for one in answer.citations],
            abstained=answer.abstained,
            related=[self._cited(one) for one in answer.related],
            confidence=answer.confidence,
            language=answer.language,
        )

    def _cited(self, citation: Citation) -> Cited:
        title = self.bot.retriever.index.documents[citation.doc].title
        return Cited(**asdict(citation), title=title)


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Given = Annotated[Service, Depends(_service)]

routes = APIRouter()


def build_api(desk: Desk, bot: RagBot, book: Book, *, keyed: bool = False) -> FastAPI:
    """The API over a bot whose questions go through `desk`; `keyed` when a key is asked for."""
    app = _Api(
        title="ragbot",
        version=version("ragbot"),
        description=_ABOUT,
        docs_url=None,  # both pages load scripts from other hosts
        redoc_url=None,
    )
    app.keyed = keyed
    app.state.service = Service(desk, bot, book, int(time.time()))
    explain_errors(app)
    app.include_router(routes)
    return app


class _Api(FastAPI):
    """FastAPI with a document that says how things are here."""

    keyed = False

    def openapi(self) -> dict[str, Any]:
        made, document = self.openapi_schema is not None, super().openapi()
        if not made:
            _truthful(document, self.keyed)
        return document


_ABOUT = f"""Answers questions from documents, every sentence with a marker `[n]` behind it.

`POST /v1/chat/completions` is OpenAI's: the model is `{MODEL}`, the last user message is the
question, user and assistant messages before it make it a follow-up. Messages of other roles are not
read, and no text of a client's is evidence: an answer comes from the documents, or is a refusal.
With `documents`, a field of ragbot's own, it comes from those alone.

The message of a reply, in a stream the `delta` of the last chunk with a choice, holds besides
OpenAI's fields `citations` (the proof of each marker: `quote` is `text[start:end]` of the document
`doc`), `abstained`, `related`, `confidence` and `language`. While a question waits or is worked on,
a stream holds comments, lines that begin with a colon."""


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Failure} for status in statuses}


_REFUSED = (400, 401, 403, 408, 413, 429, 500)


@routes.post(
    "/v1/chat/completions",
    response_model=Completion,
    responses={
        # No schema: OpenAPI 3.1 has none for the events of a stream, only for one whole body.
        200: {"content": {"text/event-stream": {}}},
        **_errors(*_REFUSED, 404, 503, 504),
    },
)
async def complete(body: ChatRequest, request: Request, service: Given) -> Response:
    """Answer a question, at once or as a stream of chunks."""
    if body.model != MODEL:
        return _no_model(body.model)
    question, history = _talk(body)
    client = request.client.host if request.client else ""
    bot = await service.bot_for(body.documents)
    events = service.desk.ask(question, visitor=f"api {client}", history=history, bot=bot)
    if not body.stream:
        answer = await unless_gone(request.receive, _answer(events))
        return JSONResponse(_completion(service, answer).model_dump())

    def closing(answer: Answer) -> tuple[dict[str, Any], dict[str, Any]]:
        return service.proof(answer).model_dump(), _usage(answer).model_dump()

    usage = bool(body.stream_options and body.stream_options.include_usage)
    running = await begun(request.receive, events)
    return Live(chunks(_id(), running, closing, usage=usage))


@routes.get("/v1/models", responses=_errors(401, 403, 500))
async def models(service: Given) -> Models:
    """The models there are."""
    return Models(data=[Model(created=service.started)])


@routes.get("/v1/models/{model}", response_model=Model, responses=_errors(401, 403, 404, 500))
async def model(model: str, service: Given) -> Any:
    """One model."""
    return Model(created=service.started) if model == MODEL else _no_model(model)


@routes.post("/v1/search", responses=_errors(*_REFUSED))
async def search(body: SearchRequest, service: Given) -> SearchResult:
    """The passages that bear on a query, best first, without asking the generator."""
    service.book.searched(body.query)
    bot = await service.bot_for(body.documents)
    hits = await run_in_threadpool(bot.search, body.query, top_k=body.top_k)
    return SearchResult(
        hits=[
            FoundPassage(
                document=hit.doc,
                paragraph=hit.paragraph,
                start=hit.start,
                end=hit.end,
                text=hit.text,
                score=hit.score,
            )
            for hit in hits
        ]
    )


@routes.get("/healthz", responses=_errors(500))
async def health(service: Given) -> Health:
    """That the server is up."""
    index = service.bot.retriever.index
    return Health(
        documents=len(index.documents), chunks=len(index.chunks), waiting=service.desk.waiting
    )


@routes.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses={200: {"content": {"text/plain": {}}}, **_errors(403, 500)},
)
async def metrics(service: Given) -> Response:
    """Figures for Prometheus."""
    return Response(service.book.text(), media_type=CONTENT_TYPE_LATEST)


def _no_model(name: str) -> JSONResponse:
    said = f"The model {name[:100]!r} does not exist: use {MODEL!r}."
    return respond(404, failure(404, said, "model_not_found", "model"))


def _talk(body: ChatRequest) -> tuple[str, list[Message]]:
    """The question, and what was said before it. Raises ConfigError when nobody asks."""
    said = [message for message in body.messages if message.role in ("user", "assistant")]
    asked = [place for place, message in enumerate(said) if message.role == "user"]
    if not asked:
        raise ConfigError("Nothing is asked: the messages need one of the role user.")
    history = [
        Message("user" if one.role == "user" else "assistant", one.text)
        for one in said[: asked[-1]]
        if one.text.strip()
    ]
    return said[asked[-1]].text, history


async def _answer(events: AsyncGenerator[Event, None]) -> Answer:
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Finished):
                return event.answer
    raise ClientDisconnect()


def _completion(service: Service, answer: Answer) -> Completion:
    message = Reply(content=answer.text, **service.proof(answer).model_dump())
    return Completion(
        id=_id(),
        created=int(time.time()),
        choices=[Choice(message=message)],
        usage=_usage(answer),
    )


def _usage(answer: Answer) -> TokenUsage:
    read, written = answer.timings.prompt_tokens, answer.timings.completion_tokens
    return TokenUsage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)


def _id() -> str:
    return f"chatcmpl-{secrets.token_hex(12)}"


def _truthful(document: dict[str, Any], keyed: bool) -> None:
    """Mend what FastAPI says of itself: what is wrong with a body is answered with 400 here."""
    for operation in (one for path in document["paths"].values() for one in path.values()):
        operation["responses"].pop("422", None)
        if not keyed:
            operation["responses"].pop("401", None)
    schemas = document["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    if keyed:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, operations in document["paths"].items():
            for operation in operations.values():
                operation["security"] = [{"key": []}] if path.startswith("/v1/") else []
