"""A folder that goes with its process: who claims one deletes those of the dead.

A claim is a lock on a file beside the folder, which the system takes back however a process ends.
What lies in the folder is not known here.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from ragbot.errors import StoreError

if TYPE_CHECKING:
    from filelock import FileLock

_START, _MINE = "start.lock", "process-"


def claimed(base: Path) -> tuple[Path, FileLock]:
    """A new folder of this process below `base`, and the lock that says so while it lives.

    What dead processes left there is deleted. Raises StoreError.
    """
    from filelock import FileLock

    try:
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.name == "posix" and stat.S_IMODE(base.stat().st_mode) & 0o077:
            raise StoreError(
                f"Others can look into {base}, where visitors' documents lie: take their rights "
                "(chmod 700), or name another folder."
            )
        with FileLock(base / _START):  # nobody takes a claim that is being made for a dead one
            for name in {path.stem for path in base.glob(f"{_MINE}*")}:
                _clear(base / name)
            mine = base / f"{_MINE}{secrets.token_hex(8)}"
            claim = FileLock(mine.with_suffix(".lock"), thread_local=False)
            claim.acquire()
            mine.mkdir(mode=0o700)
            return mine, claim
    except OSError as error:
        raise StoreError(
            f"Visitors' documents cannot be kept in {base} ({error.strerror or error}): name "
            "another folder."
        ) from error


def _clear(folder: Path) -> None:
    from filelock import FileLock, Timeout

    claim = FileLock(folder.with_suffix(".lock"), thread_local=False)
    try:
        claim.acquire(timeout=0)
    except Timeout:
        return  # its process lives
    vacate(folder, claim)


def vacate(folder: Path, claim: FileLock) -> None:
    """Delete the folder and give the claim up."""
    shutil.rmtree(folder, ignore_errors=True)
    claim.release()
    Path(claim.lock_file).unlink(missing_ok=True)
