"""Thumbs up and down, with a remark, in a table that `ragbot eval` reads as a question set.

What the table looks like is said where it is read (ragbot/evaluation/rated.py). It lies in a file,
or in a database that several servers share.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection

from ragbot.database import Database, make_alone, upsert
from ragbot.errors import ConfigError, StoreError
from ragbot.evaluation.questions import RatedQuestion
from ragbot.evaluation.rated import RATINGS, VERSION, Form, form, make, question_fields
from ragbot.readers.base import clean
from ragbot.types import Answer, Message

__all__ = ["LONGEST_REMARK", "Feedback", "Rated", "Verdict"]

Verdict = Literal["up", "down"]

LONGEST_REMARK = 2000  # characters

_LONGEST_ANSWER = 100_000  # with its citations
_KEPT_MESSAGES, _KEPT_CHARACTERS = 8, 4000  # of the talk before: more than a follow-up is read with
_WHAT = "ratings"
_ID = re.compile(r"[\w-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Rated:
    """An answer as it was rated. `id` is what the page calls it: rated again, it is replaced.

    `own` says that it is from documents of the visitor's own, which are not to outlast the visit:
    nothing of the answer and of the talk before it is then kept.
    """

    id: str
    answer: Answer
    verdict: Verdict
    remark: str = ""
    history: tuple[Message, ...] = ()
    when: datetime | None = None
    """Now, where it is not said."""
    own: bool = False


class Feedback:
    """The ratings in a file, which is made, or in a database by its URL. Threads and processes may
    share it.

    Raises StoreError when it cannot be used: it is damaged, of a newer form, or another program's.
    """

    def __init__(self, where: Path | str):
        self._database = Database(where)
        with self._connected() as connection:
            if self._database.file:  # here only: it reads the whole file
                found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
                if found != "ok":
                    raise StoreError(self._database.damaged(_WHAT, found))

    def record(self, rated: Rated) -> None:
        """Keep a rating, in place of an earlier one of the same answer.

        Raises StoreError, and ConfigError for what is too long, and for what could not be read as
        a question again: the answer may have been sent by anybody.
        """
        row = _row(rated)
        with self._connected() as connection:
            upsert(connection, RATINGS, row)

    def withdraw(self, id: str) -> None:
        """Forget the rating of an answer, if there is one. Raises ConfigError, StoreError."""
        with self._connected() as connection:
            connection.execute(RATINGS.delete().where(RATINGS.c.id == _checked_id(id)))

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        """The database, brought up to form."""
        with self._database.writing(_WHAT) as connection:
            if not form(connection).current:
                make_alone(connection)
                found = form(connection)  # once more: somebody may have been first
                self._require_usable(found)
                if not found.current:
                    make(connection)
            yield connection

    def _require_usable(self, found: Form) -> None:
        place = self._database
        if found.foreign:
            raise StoreError(f"{place} is another program's: name another one for the ratings.")
        if found.version > VERSION:
            raise StoreError(
                f"The ratings in {place} are of form {found.version}, this ragbot writes {VERSION}:"
                " update ragbot, or name another place."
            )


def _checked_id(id: str) -> str:
    if not _ID.fullmatch(id):
        raise ConfigError(f"{id[:80]!r} is no answer's id: give letters, digits and dashes.")
    return id


def _row(rated: Rated) -> dict[str, Any]:
    remark = clean(rated.remark).strip()
    if len(remark) > LONGEST_REMARK:
        raise ConfigError(
            f"The remark has {len(remark):,} characters: shorten it to {LONGEST_REMARK:,}."
        )
    answer = rated.answer
    talk = [
        {"role": message.role, "content": clean(message.content)[:_KEPT_CHARACTERS]}
        for message in rated.history
        if message.role != "system"
    ]
    when = rated.when or datetime.now(timezone.utc)
    row = {
        "id": _checked_id(rated.id),
        "rated_at": when.astimezone(timezone.utc).isoformat(timespec="seconds"),
        "verdict": rated.verdict,
        "remark": remark,
        "question": answer.question,
        "language": answer.language,
        "history": json.dumps([] if rated.own else talk[-_KEPT_MESSAGES:]),
        "answer": "" if rated.own else clean(answer.answer),
        "abstained": int(answer.abstained),
        "citations": json.dumps([] if rated.own else [asdict(one) for one in answer.citations]),
        "confidence": min(1.0, max(0.0, answer.confidence)),
        "own": int(rated.own),
    }
    _require_readable(row)
    return row


def _require_readable(row: dict[str, Any]) -> None:
    # One that is not would keep the whole file from being evaluated.
    if len(row["answer"]) + len(row["citations"]) > _LONGEST_ANSWER:
        raise ConfigError("The answer is longer than any that is given: rate one that was.")
    try:
        RatedQuestion.model_validate(question_fields(row)).model_dump_json()
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError("This is no answer that was given: rate one that was.") from error
