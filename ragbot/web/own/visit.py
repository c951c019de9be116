"""What is held of one visitor while he is there, and one change of it under way."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from ragbot.bot import RagBot
from ragbot.types import Document, Progress
from ragbot.web.own.files import Limits, UploadError

File = tuple[str, Path]
"""The name a visitor gave a file, and where it lies."""

_WHOLE, _READ = 100, 20  # of the progress told, the whole and the part for reading


class Visit:
    """What is kept of one visitor. `lock` is held by who changes it."""

    def __init__(self, visitor: str, folder: Path, now: float):
        self.visitor, self.folder, self.used = visitor, folder, now
        self.lock = threading.Lock()
        self.gone = threading.Event()
        self.bot: RagBot | None = None
        self.mark = ""
        """Which of the documents these are that are kept for all copies of the server."""

    @property
    def documents(self) -> tuple[Document, ...]:
        bot = self.bot
        return tuple(bot.retriever.index.documents.values()) if bot else ()

    @property
    def pieces(self) -> int:
        bot = self.bot
        return bot.retriever.index.manifest.vectors if bot else 0

    def leave(self) -> None:
        """Delete everything, now or, where it is being changed, when that has stopped."""
        self.gone.set()
        if self.lock.acquire(blocking=False):
            try:
                self.bot = None
                shutil.rmtree(self.folder, ignore_errors=True)
            finally:
                self.lock.release()


class Work:
    """One change under way: whether it goes on, and how far it is."""

    def __init__(self, visit: Visit, cancel: threading.Event, progress: Progress, limits: Limits):
        self.visit, self._cancel, self._progress, self._limits = visit, cancel, progress, limits

    def go_on(self) -> None:
        """Raise UploadError when nobody waits for it any more."""
        if self._cancel.is_set() or self.visit.gone.is_set():
            raise UploadError("stopped", limits=self._limits)

    def reading(self, number: int, files: Sequence[File]) -> Callable[[], None]:
        """What is called while the file of that number is read."""

        def waiting() -> None:
            self._progress(_READ * number // len(files), _WHOLE)
            self.go_on()

        return waiting

    def encoding(self, done: int, total: int) -> None:
        """What an encoder tells."""
        self._progress(_READ + (_WHOLE - _READ) * done // max(total, 1), _WHOLE)
        self.go_on()
