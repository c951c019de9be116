"""Indexes in the cache folder, made for corpora named without a place: the latest used stay.

Whoever opens one notes it first. Whoever has made one deletes those beyond a number and a size that
nobody has used for an hour, and nobody is writing. What was opened before stays readable: its files
are mapped.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from ragbot.faiss_index import LOCK
from ragbot.store import MANIFEST

MOST = 20
ROOM = 2 << 30  # bytes

_TURN = ".lock"  # of those who note and those who delete, so that none goes once it is noted
_IN_USE = 3600.0  # seconds: far longer than opening takes


def note_use(folder: Path) -> None:
    """Note that the index in `folder`, if there is one, is about to be opened."""
    from filelock import FileLock

    # In a cache that may only be read nothing is deleted either.
    with suppress(OSError), FileLock(folder.parent / _TURN):
        os.utime(folder)


def clear(shelf: Path) -> None:
    """Delete the indexes in `shelf` that are too many or too large together, the oldest in use
    first. What cannot be deleted stays."""
    from filelock import FileLock

    with suppress(OSError), FileLock(shelf / _TURN):
        last_use = {path: path.stat().st_mtime for path in shelf.iterdir() if _made(path)}
        number, room = MOST, ROOM
        for folder in sorted(last_use, key=lambda path: -last_use[path]):
            number, room = number - 1, room - _size(folder)
            if min(number, room) < 0 and time.time() - last_use[folder] > _IN_USE:
                _delete(folder)


def _made(folder: Path) -> list[Path]:
    """What in a folder can be made again: all but readers' ratings."""
    return [path for path in folder.glob("*") if ".sqlite" not in path.name]


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _delete(folder: Path) -> None:
    from filelock import FileLock, Timeout

    with suppress(Timeout), FileLock(folder / LOCK, timeout=0):
        # First, since without it there is no index, whatever of it a killed run leaves.
        (folder / MANIFEST).unlink(missing_ok=True)
        for path in _made(folder):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        with suppress(OSError):  # ratings lie there
            folder.rmdir()
