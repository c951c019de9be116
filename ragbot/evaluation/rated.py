"""Rated answers as a question set: what the table looks like that readers' thumbs are kept in.

Whoever writes such a table takes its form from here (ragbot/web/feedback.py). A thumb up vouches
for an answer: it is the reference, and the paragraphs it cites are gold; of a refusal it says that
the documents do not hold the answer. A thumb down says only what is wrong, not what would be right.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    REAL,
    CheckConstraint,
    Column,
    Connection,
    Integer,
    MetaData,
    Table,
    Text,
    select,
)
from sqlalchemy.exc import SQLAlchemyError

from ragbot.database import Database, complaint
from ragbot.errors import ConfigError
from ragbot.evaluation.support import without_markers

SUFFIXES = (".sqlite", ".sqlite3", ".db")
APPLICATION = 0x52_42_66_62  # "RBfb": which program's file this is
VERSION = 1  # of the form below
TABLE = "ratings"


def _text(name: str, *more: Any, **options: Any) -> Column[str]:
    return Column(name, Text, *more, nullable=False, **options)


RATINGS = Table(
    TABLE,
    MetaData(),
    _text("id", primary_key=True),
    _text("rated_at"),
    _text("verdict", CheckConstraint("verdict IN ('up', 'down')")),
    _text("remark"),
    _text("question"),
    _text("language"),
    _text("history"),
    _text("answer"),
    Column("abstained", Integer, nullable=False),
    _text("citations"),
    Column("confidence", REAL, nullable=False),
    Column("own", Integer, nullable=False),
)
"""`history` and `citations` are JSON: lists of objects with the fields of Message and Citation.
`own` ratings are of answers from a reader's own documents, of which nothing is kept."""

UP, DOWN = "up", "down"

# One statement sees one state, whoever makes the table meanwhile. A file has two numbers of its
# own to say what it is; on a server the table's comment says so.
_FORM = {
    "sqlite": "SELECT user_version, application_id, (SELECT count(*) FROM sqlite_master)"
    " FROM pragma_user_version, pragma_application_id",
    # From the catalogue's tables: what functions such as to_regclass say may be out of date.
    "postgresql": "SELECT coalesce(max(substring(told FROM '^ragbot ratings ([0-9]+)$')::int), 0),"
    f" coalesce(max(CASE WHEN starts_with(told, 'ragbot ratings ') THEN {APPLICATION} END), 0),"
    " count(*) FROM (SELECT description AS told FROM pg_class LEFT JOIN pg_description"
    " ON objoid = oid AND classoid = 'pg_class'::regclass AND objsubid = 0"
    f" WHERE relname = '{TABLE}' AND pg_table_is_visible(oid)) AS found",
}
_MARK = {
    "sqlite": (f"PRAGMA application_id = {APPLICATION}", f"PRAGMA user_version = {VERSION}"),
    "postgresql": (f"COMMENT ON TABLE {TABLE} IS 'ragbot ratings {VERSION}'",),
}


@dataclass(frozen=True, slots=True)
class Form:
    """What a database says of itself: the version of the form, whose it is, whether something is
    there that nobody says anything of."""

    version: int
    owner: int
    tables: int

    @property
    def current(self) -> bool:
        """Whether it is of this form."""
        return (self.version, self.owner) == (VERSION, APPLICATION)

    @property
    def foreign(self) -> bool:
        """Whether it is another program's."""
        return self.owner != APPLICATION and bool(self.tables or self.owner or self.version)


def form(connection: Connection) -> Form:
    """The form of a database. Raises SQLAlchemyError."""
    return Form(*connection.exec_driver_sql(_FORM[connection.dialect.name]).one())


def make(connection: Connection) -> None:
    """Give an empty database this form."""
    RATINGS.create(connection)
    for statement in _MARK[connection.dialect.name]:
        connection.exec_driver_sql(statement)


def rated_rows(database: Database) -> Iterator[tuple[int, dict[str, Any]]]:
    """The fields of a question for each rating over the corpus, the oldest first, numbered.

    Raises ConfigError.
    """
    wanted = select(RATINGS).where(RATINGS.c.own == 0).order_by(RATINGS.c.rated_at, RATINGS.c.id)
    try:
        with database.reading() as connection:
            _require_readable(form(connection), database)
            rows = connection.execute(wanted).all()
        for number, row in enumerate(rows, start=1):
            yield number, question_fields(row._asdict())
    except (SQLAlchemyError, ValueError, TypeError, KeyError, UnicodeError) as error:
        raise ConfigError(_unreadable(database, complaint(error))) from error


def _require_readable(found: Form, database: Database) -> None:
    if found.owner != APPLICATION:
        raise ConfigError(f"{database} holds no ratings: give a file that `ragbot serve` kept.")
    if found.version != VERSION:
        raise ConfigError(
            f"The ratings in {database} are of form {found.version}, this ragbot reads {VERSION}: "
            "update ragbot."
        )


def _unreadable(database: Database, told: str) -> str:
    if database.file:
        return f"The ratings {database} are damaged ({told}): take a copy that is whole."
    return f"The ratings in {database} cannot be read ({told}): see that the server runs."


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
