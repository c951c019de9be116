"""A visitor's own documents: read, indexed, asked apart from everybody else's, and forgotten.

Only what was read of a file is kept, as the index keeps it, in a folder of this process that goes
when the visitor does, and with the process at the latest. What a crashed one left goes at the next
start (`claim`). How a file is read safely `sandbox` knows, what its name may be `files`.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ragbot.bot import RagBot
from ragbot.chunking import chunk
from ragbot.errors import StoreError
from ragbot.faiss_index import build_index
from ragbot.text import sentences
from ragbot.types import Chunk, Document, Progress
from ragbot.web.own.claim import claimed, vacate
from ragbot.web.own.files import DEFAULT, Limits, Reason, UploadError, shown_name, take_in
from ragbot.web.own.sandbox import read_apart
from ragbot.workspace import SPECIAL_TOKENS

__all__ = ["Limits", "Reason", "UploadError", "Uploads"]

File = tuple[str, Path]
"""The name a visitor gave a file, and where it lies."""

_POLL = 0.1  # seconds
_READERS = 4  # files that are read at once: each may take the memory that `Limits` allows
_WHOLE, _READ = 100, 20  # of the progress told, the whole and the part for reading


class Uploads:
    """The visitors' documents, in a folder below `folder`. Threads may share it.

    Encoder, reranker and generator are those of `bot`. Raises StoreError when the folder cannot be
    used, or others can look into it. `sweep` is for the caller to call every now and then.
    """

    def __init__(
        self,
        bot: RagBot,
        folder: Path,
        limits: Limits = DEFAULT,
        *,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.limits = limits
        self._bot, self._clock = bot, clock
        self._folder, claim = claimed(folder)
        self._lock = threading.Lock()  # held for moments only: it guards the table below
        self._visits: dict[str, _Visit] = {}
        self._reading = threading.BoundedSemaphore(_READERS)
        self._close = weakref.finalize(self, vacate, self._folder, claim)

    def add(
        self,
        visitor: str,
        files: Sequence[File],
        progress: Progress,
        cancel: threading.Event,
    ) -> None:
        """Read and index some files, all of them or none.

        Raises UploadError, after which everything is as it was. `progress` is also called while
        nothing comes forth, so that other work can be done in it; what it raises stops the adding.
        """
        visit = self._visit(visitor)
        work = _Work(visit, cancel, progress, self.limits)
        with self._turn(visit, work):
            try:
                self._add(work, files)
            except (OSError, StoreError) as error:  # the disk is full, or so
                raise UploadError("busy", limits=self.limits) from error

    def remove(self, visitor: str, name: str) -> None:
        """Forget one document of a visitor; of one that is not there, nothing. UploadError."""
        visit = self._visits.get(visitor)
        if visit is None:
            return
        work = _Work(visit, threading.Event(), lambda done, total: None, self.limits)
        with self._turn(visit, work):
            kept = [document for document in visit.documents if document.name != name]
            if len(kept) == len(visit.documents):
                return
            if not kept:
                visit.bot = None
                shutil.rmtree(visit.folder, ignore_errors=True)
                return
            try:
                self._publish(work, kept)
            except StoreError as error:
                raise UploadError("busy", name, self.limits) from error

    def names(self, visitor: str) -> tuple[str, ...]:
        """What a visitor's documents are called, in the order in which they came."""
        visit = self._visits.get(visitor)
        return tuple(document.name for document in visit.documents) if visit else ()

    def bot(self, visitor: str) -> RagBot | None:
        """What answers from a visitor's own documents alone; None when there are none."""
        self.touch(visitor)
        visit = self._visits.get(visitor)
        return visit.bot if visit else None

    def touch(self, visitor: str) -> None:
        """A visitor is still there."""
        with self._lock:
            if visit := self._visits.get(visitor):
                visit.used = self._clock()

    def forget(self, visitor: str) -> None:
        """Delete all that a visitor added, and stop what is being added."""
        with self._lock:
            visit = self._visits.pop(visitor, None)
        if visit:
            visit.leave()

    def sweep(self) -> None:
        """Forget the visitors who were not there for longer than the limits say."""
        oldest = self._clock() - 60 * self.limits.minutes
        with self._lock:
            idle = [
                visitor
                for visitor, visit in self._visits.items()
                if visit.used < oldest and not visit.lock.locked()
            ]
            left = [self._visits.pop(visitor) for visitor in idle]
        for visit in left:
            visit.leave()

    def close(self) -> None:
        """Forget everybody and give the folder up; the end of the process does so, too."""
        with self._lock:
            visitors = list(self._visits)
        for visitor in visitors:
            self.forget(visitor)
        self._close()

    # --- one visitor at a time ---------------------------------------------------------------

    def _visit(self, visitor: str) -> _Visit:
        with self._lock:
            if visitor not in self._visits:
                folder = self._folder / secrets.token_hex(8)
                self._visits[visitor] = _Visit(folder, self._clock())
            return self._visits[visitor]

    @contextmanager
    def _turn(self, visit: _Visit, work: _Work) -> Iterator[None]:
        """This visitor's documents are changed by nobody else meanwhile."""
        while not visit.lock.acquire(timeout=_POLL):
            work.go_on()
        try:
            work.go_on()
            yield
        finally:
            visit.used = self._clock()
            visit.lock.release()
            if visit.gone.is_set():  # forgotten meanwhile, by somebody who did not wait
                visit.leave()

    def _add(self, work: _Work, files: Sequence[File]) -> None:
        visit, limits = work.visit, self.limits
        names: list[str] = [document.name for document in visit.documents]
        for given, _ in files:
            shown = shown_name(given, names, limits)
            if len(names) >= limits.files:
                raise UploadError("count", shown, limits)
            names.append(shown)
        with self._lock:
            everyone = sum(other.pieces for other in self._visits.values())
        if everyone >= limits.everyone:
            raise UploadError("busy", limits=limits)
        visit.folder.mkdir(mode=0o700, exist_ok=True)
        documents = [*visit.documents]
        with tempfile.TemporaryDirectory(dir=visit.folder) as incoming:
            for number, (_, path) in enumerate(files):
                name = names[len(documents)]
                stored = Path(incoming, secrets.token_hex(8)).with_suffix(Path(name).suffix)
                take_in(path, stored, name, limits)
                documents.append(self._read(stored, name, documents, work.reading(number, files)))
        if files:
            self._publish(work, documents)

    def _read(
        self, path: Path, name: str, before: Sequence[Document], waiting: Callable[[], None]
    ) -> Document:
        used = sum(len(document.text) for document in before)
        left = replace(self.limits, characters=self.limits.characters - used)
        while not self._reading.acquire(timeout=_POLL):
            waiting()
        try:
            waiting()
            return read_apart(path, name, left, waiting)
        except UploadError as error:
            raise UploadError(error.reason, error.name, self.limits) from error
        finally:
            self._reading.release()

    def _publish(self, work: _Work, documents: Sequence[Document]) -> None:
        """Make these a visitor's documents, encoding only what is new among them."""
        encoder = self._bot.retriever.encoder
        limit = encoder.max_tokens - SPECIAL_TOKENS

        def count(text: str) -> int:
            work.go_on()
            return encoder.count_tokens(text)

        chunks: list[Chunk] = []
        pieces = 0
        for document in documents:
            found = chunk(document, limit=limit, count=count)
            pieces += sum(1 + len(sentences(piece.text)) for piece in found)
            if not found or pieces > self.limits.pieces:
                raise UploadError("size" if found else "empty", document.name, self.limits)
            chunks += found
        folder = work.visit.folder / "index"
        index = build_index(folder, documents, chunks, encoder, work.encoding)
        work.visit.bot = self._bot.over(index)


class _Visit:
    """What is kept of one visitor. `lock` is held by who changes it."""

    def __init__(self, folder: Path, now: float):
        self.folder, self.used = folder, now
        self.lock = threading.Lock()
        self.gone = threading.Event()
        self.bot: RagBot | None = None

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


class _Work:
    """One change under way: whether it goes on, and how far it is."""

    def __init__(self, visit: _Visit, cancel: threading.Event, progress: Progress, limits: Limits):
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
