"""What went wrong, as a code that the page has words for; no text of an error reaches a visitor.

The codes are those of `error_…` and `upload_…` in words.json.
"""

from __future__ import annotations

import logging
from typing import Any

from pydantic import ValidationError

from ragbot.errors import ModelError, RagbotError, UnknownDocumentError, UnreachableError
from ragbot.fence import LONGEST_QUESTION
from ragbot.web.desk import BusyError, LateError, LeftError
from ragbot.web.own.uploads import UploadError

_log = logging.getLogger(__name__)


class NoDocumentsError(RagbotError):
    """A visitor asks documents of his own that are not, or no longer, there."""

    def __init__(self) -> None:
        super().__init__("There are no documents of yours: add some, or ask the site's.")


def failure(error: Exception) -> dict[str, Any]:
    """What the page is told of an error. One that nobody expected goes to the log."""
    if isinstance(error, (BusyError, LateError)):
        return {"code": error.reason}
    if isinstance(error, UploadError):
        return {"code": error.reason, "name": error.name}
    if isinstance(error, UnknownDocumentError):
        return {"code": "document"}
    if isinstance(error, (LeftError, NoDocumentsError)):
        return {"code": "left" if isinstance(error, LeftError) else "mine"}
    if isinstance(error, (ModelError, UnreachableError)):
        _log.error("%s", error)
        return {"code": "model" if isinstance(error, ModelError) else "index"}
    if isinstance(error, ValidationError) and any(
        one["type"] in ("too_long", "string_too_long") for one in error.errors()
    ):
        return {"code": "large"}
    _log.error("A request of the page failed.", exc_info=error)
    return {"code": "failed"}


def bad_question(question: str) -> dict[str, Any]:
    """Why `ragbot.fence.checked` refuses a question."""
    if len(question.strip()) > LONGEST_QUESTION:
        return {"code": "long", "value": f"{LONGEST_QUESTION:,}"}
    written = any(char.isalnum() for char in question)
    return {"code": "characters" if written else "empty"}
