"""What goes wrong in the API as OpenAI's clients read it: a status, and a sentence in their shape.

No trace and no path of a bug's gets out: of what nobody foresaw a client learns that it was so.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from ragbot.errors import ConfigError, RagbotError, UnknownDocumentError, UnreachableError
from ragbot.web.api.wire import BUG, Failure, failure, respond
from ragbot.web.desk import BusyError, LateError, LeftError

_GONE = 499  # nobody reads it: for the log

_SOON, _LATER = {"Retry-After": "5"}, {"Retry-After": "30"}
_NO_INDEX = "The documents cannot be read at the moment: ask again in a while."
_CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
}


def explained(error: Exception) -> tuple[int, Failure, Mapping[str, str]]:
    """Status, error and headers for what an endpoint, or the desk, raised."""
    if isinstance(error, BusyError) and error.reason == "yours":
        return 429, failure(429, str(error), "too_many_at_once"), _SOON
    if isinstance(error, BusyError):
        return 503, failure(503, str(error), "overloaded"), _LATER
    if isinstance(error, LateError) and error.reason == "work":
        return 504, failure(504, str(error), "timeout"), {}
    if isinstance(error, (LateError, LeftError)):
        return 503, failure(503, str(error), "overloaded"), _LATER
    if isinstance(error, UnknownDocumentError):
        return 400, failure(400, str(error), "unknown_document", "documents"), {}
    if isinstance(error, ConfigError):
        return 400, failure(400, str(error), "invalid_question"), {}
    if isinstance(error, UnreachableError):  # its text tells where the index is kept
        return 503, failure(503, _NO_INDEX, "unavailable"), _SOON
    if isinstance(error, RagbotError):
        return 503, failure(503, str(error), "unavailable"), {}
    return 500, BUG, {}


def explain_errors(app: FastAPI) -> None:
    """Have all errors of an app answered in OpenAI's shape."""
    app.exception_handler(RagbotError)(_any)
    app.exception_handler(Exception)(_any)
    app.exception_handler(HTTPException)(_http)
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(ClientDisconnect)(_gone)


async def _any(request: Request, error: Exception) -> JSONResponse:
    return respond(*explained(error))


async def _http(request: Request, error: HTTPException) -> JSONResponse:
    status = error.status_code
    said = HTTPStatus(status).phrase if error.detail == HTTPStatus(status).phrase else error.detail
    if status == HTTPStatus.NOT_FOUND:
        said = "There is nothing here: see /openapi.json."
    elif status == HTTPStatus.METHOD_NOT_ALLOWED:
        said = f"{request.method} is not possible here: see /openapi.json."
    return respond(status, failure(status, said, _CODES.get(status)), error.headers)


async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    # Of a value that may have several forms, what is wrong in the one that came furthest.
    worst = max(error.errors(), key=lambda one: len(one["loc"]))
    place = [str(part) for part in worst["loc"] if part not in ("body", "query", "path")]
    if worst["type"] == "json_invalid":
        return respond(400, failure(400, f"The body is no JSON: {worst['ctx']['error']}."))
    param = ".".join(place) or None
    said = f"{param or 'The body'}: {worst['msg']}."
    return respond(400, failure(400, said, "invalid_value", param))


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=_GONE)
