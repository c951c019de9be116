"""Thumbs up and down, with a remark, in a SQLite file that `ragbot eval` reads as a question set.

What the file looks like is said where it is read (ragbot/evaluation/rated.py). A connection lives
for one rating only, so that threads and processes share the file, and one that is moved away is
begun anew.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from ragbot.errors import ConfigError, StoreError
from ragbot.evaluation.questions import RatedQuestion
from ragbot.evaluation.rated import APPLICATION, COLUMNS, TABLE, VERSION, question_fields
from ragbot.readers.base import clean
from ragbot.types import Answer, Message

__all__ = ["LONGEST_REMARK", "Feedback", "Rated", "Verdict"]

Verdict = Literal["up", "down"]

LONGEST_REMARK = 2000  # characters

_LONGEST_ANSWER = 100_000  # with its citations
_KEPT_MESSAGES, _KEPT_CHARACTERS = 8, 4000  # of the talk before: more than a follow-up is read with
_WAIT = 5.0  # seconds for somebody else's writing
_ID = re.compile(r"[\w-]{1,64}", re.ASCII)

_MIGRATIONS: Sequence[str] = (
    f"""
    CREATE TABLE {TABLE} (
        id TEXT PRIMARY KEY NOT NULL,
        rated_at TEXT NOT NULL,
        verdict TEXT NOT NULL CHECK (verdict IN ('up', 'down')),
        remark TEXT NOT NULL,
        question TEXT NOT NULL,
        language TEXT NOT NULL,
        history TEXT NOT NULL,
        answer TEXT NOT NULL,
        abstained INTEGER NOT NULL,
        citations TEXT NOT NULL,
        confidence REAL NOT NULL,
        own INTEGER NOT NULL
    )
    """,
)
"""What makes form n + 1 of the file out of form n; form 0 is an empty file."""


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
    """The ratings in the file at `path`, which is made. Threads and processes may share it.

    Raises StoreError when it cannot be used: it is damaged, of a newer form, or another program's.
    """

    def __init__(self, path: Path):
        self._path = path
        with self._connected() as file:
            # Here only: it reads the whole file.
            if (found := file.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise StoreError(_damaged(path, found))

    def record(self, rated: Rated) -> None:
        """Keep a rating, in place of an earlier one of the same answer.

        Raises StoreError, and ConfigError for what is too long, and for what could not be read as
        a question again: the answer may have been sent by anybody.
        """
        row = _row(rated)
        names, places = ", ".join(COLUMNS), ", ".join("?" * len(COLUMNS))
        with self._connected() as file:
            file.execute(
                f"INSERT OR REPLACE INTO {TABLE} ({names}) VALUES ({places})",
                [row[name] for name in COLUMNS],
            )

    def withdraw(self, id: str) -> None:
        """Forget the rating of an answer, if there is one. Raises ConfigError, StoreError."""
        with self._connected() as file:
            file.execute(f"DELETE FROM {TABLE} WHERE id = ?", [_checked_id(id)])

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """The file, brought up to form; what is done with it is kept as a whole or not at all."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))  # for its owner alone
            with closing(sqlite3.connect(self._path, timeout=_WAIT, isolation_level=None)) as file:
                _prepare(file, self._path)
                with file:
                    file.execute("BEGIN IMMEDIATE")
                    yield file
        except (sqlite3.OperationalError, OSError) as error:
            raise StoreError(
                f"The ratings cannot be kept in {self._path} ({error}): see that it can be written"
                " to and that there is space, or name another file."
            ) from error
        except sqlite3.DatabaseError as error:
            raise StoreError(_damaged(self._path, error)) from error


def _prepare(file: sqlite3.Connection, path: Path) -> None:
    """Bring the file up to this form. Raises StoreError when it is none of ours."""
    if _form(file, path) == VERSION:
        return
    with file:
        file.execute("BEGIN IMMEDIATE")
        for number in range(_form(file, path), VERSION):  # once more: somebody may have been first
            file.execute(_MIGRATIONS[number])
        file.execute(f"PRAGMA application_id = {APPLICATION}")
        file.execute(f"PRAGMA user_version = {VERSION}")


def _form(file: sqlite3.Connection, path: Path) -> int:
    # One statement sees one state of the file, whoever brings it up to form meanwhile.
    version, owner, tables = file.execute(
        "SELECT user_version, application_id, (SELECT count(*) FROM sqlite_master)"
        " FROM pragma_user_version, pragma_application_id"
    ).fetchone()
    if owner != APPLICATION and (tables or owner or version):
        raise StoreError(f"{path} is another program's file: name another one for the ratings.")
    if version > VERSION:
        raise StoreError(
            f"The ratings in {path} are of form {version}, this ragbot writes {VERSION}: update "
            "ragbot, or name another file."
        )
    return int(version)


def _damaged(path: Path, problem: object) -> str:
    told = " ".join(str(problem).split())
    return f"The ratings in {path} are damaged ({told}): move the file away, one is begun anew."


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
        "abstained": answer.abstained,
        "citations": json.dumps([] if rated.own else [asdict(one) for one in answer.citations]),
        "confidence": min(1.0, max(0.0, answer.confidence)),
        "own": rated.own,
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
