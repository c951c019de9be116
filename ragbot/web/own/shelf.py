"""Visitors' documents in a database, so that each copy of the server can answer from them.

What is kept of a visitor is the folder of his index as a whole, under a mark that is new with each
change. A visitor is known by the hash of what his browser calls him: who can read the database
cannot pass for him.
"""

from __future__ import annotations

import hashlib
import io
import secrets
import shutil
import time
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Double, LargeBinary, MetaData, Select, Table, Text, select
from sqlalchemy.exc import SQLAlchemyError

from ragbot.database import Database, complaint, make_alone, upsert
from ragbot.errors import StoreError

_WHAT = "visitors' documents"
# Of half an hour's life: another form would be another table.
_TABLE = Table(
    "own_documents_1",
    MetaData(),
    Column("visitor", Text, primary_key=True),
    Column("mark", Text, nullable=False),
    Column("used_at", Double, nullable=False),  # seconds since 1970
    Column("folder", LargeBinary, nullable=False),  # a ZIP archive
)


class StaleError(StoreError):
    """Somebody else changed a visitor's documents meanwhile."""

    def __init__(self) -> None:
        super().__init__("The documents were changed from elsewhere meanwhile: try again.")


class Shelf:
    """The documents of all visitors, in a database that the copies of a server share.

    Whatever is done with it raises StoreError when the database cannot be used.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time):
        self._database, self._clock = database, clock
        with database.writing(_WHAT) as connection:
            make_alone(connection)
            _TABLE.create(connection, checkfirst=True)

    def mark(self, visitor: str) -> str:
        """What tells a visitor's documents from those before; "" when there are none."""
        found = self._read(select(_TABLE.c.mark), visitor)
        return str(found[0]) if found else ""

    def fetch(self, visitor: str, folder: Path) -> str:
        """Make `folder` what is kept of a visitor, and give its mark; "" when nothing is."""
        found = self._read(select(_TABLE.c.mark, _TABLE.c.folder), visitor)
        shutil.rmtree(folder, ignore_errors=True)
        if not found:
            return ""
        try:
            with zipfile.ZipFile(io.BytesIO(found[1])) as archive:
                archive.extractall(folder)
        except (OSError, zipfile.BadZipFile) as error:
            raise StoreError(f"The {_WHAT} cannot be taken to {folder} ({error}).") from error
        return str(found[0])

    def keep(self, visitor: str, folder: Path, before: str) -> str:
        """Keep a folder in place of what had the mark `before`, and give the mark it has now.

        Raises StaleError when something else is there by now.
        """
        row = {
            "visitor": _key(visitor),
            "mark": secrets.token_hex(8),
            "used_at": self._clock(),
            "folder": _packed(folder),
        }
        with self._database.writing(_WHAT) as connection:
            make_alone(connection)
            wanted = select(_TABLE.c.mark).where(_TABLE.c.visitor == row["visitor"])
            if (connection.execute(wanted).scalar() or "") != before:
                raise StaleError()
            upsert(connection, _TABLE, row)
        return str(row["mark"])

    def drop(self, visitor: str) -> None:
        """Keep nothing of a visitor."""
        with self._database.writing(_WHAT) as connection:
            connection.execute(_TABLE.delete().where(_TABLE.c.visitor == _key(visitor)))

    def sweep(self, seconds: float, here: Collection[str]) -> None:
        """Drop what nobody used for so long; those who are `here` use theirs."""
        now = self._clock()
        keys = [_key(visitor) for visitor in here]
        used = _TABLE.update().where(_TABLE.c.visitor.in_(keys)).values(used_at=now)
        with self._database.writing(_WHAT) as connection:
            connection.execute(used)
            connection.execute(_TABLE.delete().where(_TABLE.c.used_at < now - seconds))

    def _read(self, columns: Select[Any], visitor: str) -> tuple[Any, ...] | None:
        try:
            with self._database.reading() as connection:
                wanted = columns.where(_TABLE.c.visitor == _key(visitor))
                found = connection.execute(wanted).first()
                return tuple(found) if found else None
        except SQLAlchemyError as error:
            told = f"The {_WHAT} in {self._database} cannot be read ({complaint(error)}): "
            raise StoreError(told + "see that the server runs.") from error


def _key(visitor: str) -> str:
    return hashlib.sha256(visitor.encode(errors="replace")).hexdigest()


def _packed(folder: Path) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix != ".lock":
                archive.write(path, path.relative_to(folder))
    return packed.getvalue()
