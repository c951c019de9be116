"""A database that several copies of the server can share: a SQLite file, or PostgreSQL.

A connection lives for one piece of work, so that threads and processes share a file, one that is
moved away is begun anew, and a server may be started again meanwhile. What is kept there, and in
which form, is said by those who keep it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, NullPool, Table, create_engine, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from ragbot.errors import ConfigError, StoreError

_WAIT = 5  # seconds for a connection, and for somebody else's writing
_LOCK = 0x52_42  # what those agree on who make tables on one PostgreSQL server
_LONGEST = 300  # characters of a complaint that is told


class Database:
    """A database by its URL, or a SQLite file by its path; `str` shows it without its password.

    Raises ConfigError for what is neither SQLite nor PostgreSQL, or lacks its driver.
    """

    def __init__(self, where: Path | str):
        self.url = _url(where)
        self.file = Path(self.url.database or "") if self.url.drivername == "sqlite" else None
        self._engine = _engine(self.url)

    def __str__(self) -> str:
        return str(self.file or self.url.render_as_string(hide_password=True))

    @property
    def name(self) -> str:
        """What it is called, wherever it is."""
        return Path(self.url.database or "").name

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection. Raises SQLAlchemyError."""
        with self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self, what: str) -> Iterator[Connection]:
        """A transaction, kept as a whole or not at all; the file is made. Raises StoreError, which
        says that `what` cannot be kept."""
        try:
            if self.file:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                os.close(os.open(self.file, os.O_RDWR | os.O_CREAT, 0o600))  # for its owner alone
            with self._engine.begin() as connection:
                for statement in _BEGIN[connection.dialect.name]:
                    connection.exec_driver_sql(statement)
                yield connection
        except (DBAPIError, OSError) as error:
            if self.file and not isinstance(error, OperationalError | OSError):
                raise StoreError(self.damaged(what, error)) from error
            remedy = (
                "see that it can be written to and that there is space, or name another file."
                if self.file
                else "see that the server runs and that ragbot may write there."
            )
            told = f"The {what} cannot be kept in {self} ({complaint(error)}): {remedy}"
            raise StoreError(told) from error

    def damaged(self, what: str, problem: object) -> str:
        """What is said of a file that cannot be read."""
        told = complaint(problem)
        return f"The {what} in {self} are damaged ({told}): move the file away, one is begun anew."


def complaint(problem: object) -> str:
    """What a driver complains of, on one line."""
    cause = problem.orig if isinstance(problem, DBAPIError) else problem
    return " ".join(str(cause).split())[:_LONGEST]


def make_alone(connection: Connection) -> None:
    """Until the end of the transaction nobody else makes tables."""
    if connection.dialect.name == "postgresql":  # a transaction of SQLite's is alone already
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")


def upsert(connection: Connection, table: Table, row: Mapping[str, Any]) -> None:
    """Insert a row, in place of one that has the same primary key."""
    named: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
    statement = named[connection.dialect.name](table).values(row)
    keys = [column.name for column in table.primary_key]
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=dict(row)))


_BEGIN = {
    # What is deleted leaves no trace in the file; the lock is taken now, not at the first change.
    "sqlite": ("PRAGMA secure_delete = ON", "BEGIN IMMEDIATE"),
    "postgresql": (f"SET LOCAL lock_timeout = '{_WAIT}s'",),
}


def _url(where: Path | str) -> URL:
    if isinstance(where, Path):
        return URL.create("sqlite", database=str(where))
    try:
        url = make_url(where)
    except (ArgumentError, ValueError) as error:
        # The text itself is not told: it may hold a password.
        raise ConfigError(
            "The database's URL cannot be read: write postgresql://USER@HOST/NAME, or "
            "sqlite:///FILE."
        ) from error
    kind = url.drivername
    if kind in ("postgres", "postgresql", "postgresql+psycopg"):
        return url.set(drivername="postgresql+psycopg")
    if kind in ("sqlite", "sqlite+pysqlite") and url.database not in (None, "", ":memory:"):
        return URL.create("sqlite", database=url.database)
    raise ConfigError(
        f"No database of the kind {kind!r} can be shared: use postgresql://USER@HOST/NAME, or "
        "sqlite:///FILE."
    )


def _engine(url: URL) -> Engine:
    sqlite_file = url.drivername == "sqlite"
    # Transactions are begun here: sqlite3 would begin one late, and without the lock.
    arguments = {"timeout": _WAIT, "isolation_level": None} if sqlite_file else {}
    if not sqlite_file and "connect_timeout" not in url.query:
        arguments = {"connect_timeout": _WAIT}
    try:
        return create_engine(url, poolclass=NullPool, connect_args=arguments, hide_parameters=True)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f'PostgreSQL needs {error.name}: pip install "ragbot[postgres]".'
        ) from error
