"""A visitor's own documents: read, indexed, asked apart from everybody else's, and forgotten.

Only what was read of a file is kept, as the index keeps it, in a folder of this process that goes
when the visitor does, and with the process at the latest. What a crashed one left goes at the next
start (`claim`). Copies of the server that share a shelf keep it there, too: each takes it from
there when another has changed it, and whichever looks clears away what nobody uses. How a file is
read safely `sandbox` knows, what its name may be `files`.
"""

from __future__ import annotations

import logging
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
from ragbot.faiss_index import build_index, open_index
from ragbot.text import sentences
from ragbot.types import Chunk, Document, Progress
from ragbot.web.own.claim import claimed, vacate
from ragbot.web.own.files import DEFAULT, Limits, Reason, UploadError, shown_name, take_in
from ragbot.web.own.sandbox import read_apart
from ragbot.web.own.shelf import Shelf
from ragbot.web.own.visit import File, Visit, Work
from ragbot.workspace import SPECIAL_TOKENS

__all__ = ["Limits", "Reason", "UploadError", "Uploads"]

_POLL = 0.1  # seconds
_log = logging.getLogger(__name__)

_INDEX = "index"
_READERS = 4  # files that are read at once: each may take the memory that `Limits` allows


class Uploads:
    """The visitors' documents, in a folder below `folder`. Threads may share it.

    Encoder, reranker and generator are those of `bot`; `shelf` is shared with other copies of the
    server. Raises StoreError when the folder cannot be used, or others can look into it. `sweep` is
    for the caller to call every now and then.
    """

    def __init__(
        self,
        bot: RagBot,
        folder: Path,
        limits: Limits = DEFAULT,
        *,
        shelf: Shelf | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.limits = limits
        self._bot, self._shelf, self._clock = bot, shelf, clock
        self._folder, claim = claimed(folder)
        self._lock = threading.Lock()  # held for moments only: it guards the table below
        self._visits: dict[str, Visit] = {}
        self._swept = clock()
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
        visit = self._current(visitor) or self._visit(visitor)
        work = Work(visit, cancel, progress, self.limits)
        with self._turn(visit, work):
            try:
                self._add(work, files)
            except (OSError, StoreError) as error:  # the disk is full, or so
                raise UploadError("busy", limits=self.limits) from error

    def remove(self, visitor: str, name: str) -> None:
        """Forget one document of a visitor; of one that is not there, nothing. UploadError."""
        visit = self._current(visitor)
        if visit is None:
            return
        work = Work(visit, threading.Event(), lambda done, total: None, self.limits)
        with self._turn(visit, work):
            kept = [document for document in visit.documents if document.name != name]
            if len(kept) == len(visit.documents):
                return
            try:
                if kept:
                    self._publish(work, kept)
                else:
                    self._drop(visit)
            except StoreError as error:
                raise UploadError("busy", name, self.limits) from error

    def names(self, visitor: str) -> tuple[str, ...]:
        """What a visitor's documents are called, in the order in which they came."""
        visit = self._current(visitor)
        return tuple(document.name for document in visit.documents) if visit else ()

    def bot(self, visitor: str) -> RagBot | None:
        """What answers from a visitor's own documents alone; None when there are none."""
        self.touch(visitor)
        visit = self._current(visitor)
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
        if self._shelf:
            self._shelf.drop(visitor)

    def sweep(self) -> None:
        """Forget the visitors who were not there for longer than the limits say. StoreError."""
        now, before = self._clock(), self._swept
        oldest, self._swept = now - 60 * self.limits.minutes, now
        with self._lock:
            here = [name for name, visit in self._visits.items() if visit.used > before]
            idle = [
                visitor
                for visitor, visit in self._visits.items()
                if visit.used < oldest and not visit.lock.locked()
            ]
            left = [self._visits.pop(visitor) for visitor in idle]
        for visit in left:
            visit.leave()
        if self._shelf:
            self._shelf.sweep(60 * self.limits.minutes, here)

    def close(self) -> None:
        """Forget everybody here and give the folder up; the end of the process does so, too."""
        with self._lock:
            visits, self._visits = self._visits, {}
        for visit in visits.values():
            visit.leave()
        self._close()

    # --- one visitor at a time ---------------------------------------------------------------

    def _visit(self, visitor: str) -> Visit:
        with self._lock:
            if visitor not in self._visits:
                folder = self._folder / secrets.token_hex(8)
                self._visits[visitor] = Visit(visitor, folder, self._clock())
            return self._visits[visitor]

    def _current(self, visitor: str) -> Visit | None:
        """What is held of a visitor, as it is on the shelf now."""
        if self._shelf:
            try:
                self._renew(visitor, self._shelf)
            except StoreError as error:
                _log.warning("%s", error)  # what is here serves meanwhile
        return self._visits.get(visitor)

    def _renew(self, visitor: str, shelf: Shelf) -> None:
        mark = shelf.mark(visitor)
        visit = self._visit(visitor) if mark else self._visits.get(visitor)
        if visit is None or visit.mark == mark or not visit.lock.acquire(blocking=False):
            return  # nothing new, or it is being changed here
        try:
            visit.folder.mkdir(mode=0o700, exist_ok=True)
            visit.mark, visit.bot = shelf.fetch(visitor, visit.folder / _INDEX), None
            if visit.mark:
                encoder = self._bot.retriever.encoder.fingerprint
                visit.bot = self._bot.over(open_index(visit.folder / _INDEX, encoder))
        finally:
            self._release(visit)

    @contextmanager
    def _turn(self, visit: Visit, work: Work) -> Iterator[None]:
        """This visitor's documents are changed by nobody else meanwhile."""
        while not visit.lock.acquire(timeout=_POLL):
            work.go_on()
        try:
            work.go_on()
            yield
        finally:
            visit.used = self._clock()
            self._release(visit)

    def _release(self, visit: Visit) -> None:
        visit.lock.release()
        if visit.gone.is_set():  # forgotten meanwhile, by somebody who did not wait
            visit.leave()

    def _drop(self, visit: Visit) -> None:
        if self._shelf:
            self._shelf.drop(visit.visitor)
        visit.mark, visit.bot = "", None
        shutil.rmtree(visit.folder, ignore_errors=True)

    def _add(self, work: Work, files: Sequence[File]) -> None:
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

    def _publish(self, work: Work, documents: Sequence[Document]) -> None:
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
        visit = work.visit
        folder = visit.folder / _INDEX
        index = build_index(folder, documents, chunks, encoder, work.encoding)
        if self._shelf:
            visit.mark = self._shelf.keep(visit.visitor, folder, visit.mark)
        visit.bot = self._bot.over(index)
