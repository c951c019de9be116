"""What a model has read, kept in files, so that it is read once and not by each process again.

A state is a prompt's keys and values, about 28 kB a token of the packaged 1.5B model. llama.cpp
writes and reads the files; here they get names that tell a damaged one, and the folder is kept
within bounds.
"""

from __future__ import annotations

import itertools
import os
import zlib
from pathlib import Path

_BUDGET = 1 << 29  # bytes of all states of a model; the one not used for longest makes room
_SUFFIX = ".state"
_BLOCK = 1 << 20


class States:
    """The states in `folder`, which is made. Raises OSError where it cannot be written to."""

    def __init__(self, folder: Path, budget: int = _BUDGET):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"{folder} cannot be written to")
        self.folder = folder
        self._budget = budget
        self._count = itertools.count()
        self._whole: set[str] = set()  # files that were found undamaged

    def find(self, key: str) -> str | None:
        """The name of the file of a state, if there is one; a damaged one is removed."""
        for path in self.folder.glob(f"{key}-*{_SUFFIX}"):
            try:
                if path.name not in self._whole and path.name != self._name(key, path):
                    path.unlink(missing_ok=True)
                    continue
                os.utime(path)
            except OSError:  # just removed by another process
                continue
            self._whole.add(path.name)
            return path.name
        return None

    def begin(self, key: str) -> str:
        """A name to write a state under, which nobody else uses; then call `keep` or `drop`."""
        return f"{key}.{os.getpid()}.{next(self._count)}.part"

    def keep(self, key: str, written: str) -> None:
        """Give a state that was written its name; older ones make room. Raises OSError."""
        part = self.folder / written
        name = self._name(key, part)
        os.replace(part, self.folder / name)
        self._whole.add(name)
        self._make_room()

    def drop(self, name: str) -> None:
        """Remove a state that is of no use."""
        self._whole.discard(name)
        (self.folder / name).unlink(missing_ok=True)

    def _name(self, key: str, path: Path) -> str:
        return f"{key}-{_checksum(path):08x}{_SUFFIX}"

    def _make_room(self) -> None:
        files = []
        for path in self.folder.iterdir():
            try:
                status = path.stat()
            except FileNotFoundError:  # just removed by another process
                continue
            files.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self._budget:
                return
            path.unlink(missing_ok=True)
            total -= size


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            checksum = zlib.crc32(block, checksum)
    return checksum
