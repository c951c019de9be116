"""Rated answers as a question set: what the file looks like that readers' thumbs are kept in.

Whoever writes such a file takes its form from here (ragbot/web/feedback.py). A thumb up vouches for
an answer: it is the reference, and the paragraphs it cites are gold; of a refusal it says that the
documents do not hold the answer. A thumb down says only what is wrong, not what would be right.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from ragbot.errors import ConfigError
from ragbot.evaluation.support import without_markers

SUFFIXES = (".sqlite", ".sqlite3", ".db")
APPLICATION = 0x52_42_66_62  # "RBfb": which program's file this is
VERSION = 1  # of the form below
TABLE = "ratings"
COLUMNS = (
    "id",
    "rated_at",
    "verdict",
    "remark",
    "question",
    "language",
    "history",
    "answer",
    "abstained",
    "citations",
    "confidence",
    "own",
)
"""`history` and `citations` are JSON: lists of objects with the fields of Message and Citation.
`own` ratings are of answers from a reader's own documents, of which nothing is kept."""

UP, DOWN = "up", "down"


def rated_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The fields of a question for each rating over the corpus, the oldest first, numbered.

    Raises ConfigError.
    """
    try:
        with closing(_opened(path)) as file:
            if file.execute("PRAGMA application_id").fetchone() != (APPLICATION,):
                raise ConfigError(f"{path} holds no ratings: give a file that `ragbot serve` kept.")
            version = file.execute("PRAGMA user_version").fetchone()[0]
            if version != VERSION:
                raise ConfigError(
                    f"The ratings in {path} are of form {version}, this ragbot reads {VERSION}: "
                    "update ragbot."
                )
            columns = ", ".join(COLUMNS)
            rows = file.execute(
                f"SELECT {columns} FROM {TABLE} WHERE NOT own ORDER BY rated_at, id"
            ).fetchall()
        for number, row in enumerate(rows, start=1):
            yield number, question_fields(dict(zip(COLUMNS, row, strict=True)))
    except (sqlite3.Error, ValueError, TypeError, KeyError, UnicodeError) as error:
        raise ConfigError(
            f"The ratings {path} are damaged ({error}): take a copy that is whole."
        ) from error


def _opened(path: Path) -> sqlite3.Connection:
    # Not as read-only: beside a file that is being written, its reader has to keep a log, too.
    uri = f"{path.absolute().as_uri()}?mode=rw"
    return sqlite3.connect(uri, uri=True, timeout=10)


def question_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row of the table says, as fields of a question. Raises ValueError, TypeError or
    KeyError for a row that was tampered with."""
    text = without_markers(str(row["answer"]))
    fields: dict[str, Any] = {
        "id": row["id"],
        "question": row["question"],
        "lang": row["language"],
        "type": row["verdict"],
        "history": json.loads(row["history"]),
        "remark": row["remark"],
    }
    if row["verdict"] == DOWN:
        return fields | ({} if row["abstained"] else {"must_not_include": [text]})
    if row["abstained"]:
        return fields | {"answerable": False}
    cited = {(one["doc"], one["paragraph"]) for one in json.loads(row["citations"])}
    gold = [{"doc": doc, "paragraph": paragraph} for doc, paragraph in sorted(cited)]
    return fields | {"gold": gold, "reference_answer": text}
