"""One stranger's file to a Document, read by a process of its own.

Whatever a file does to its reader, be it a bomb, an endless page or a crash inside a library, ends
with that process, whose time, memory and output the system bounds (on Windows: its time alone). It
keeps the rights of who started it: this is a bound, not a prison. What a Document is, and what is
said of a file that gives none, others decide.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO

from ragbot.corpus import read_document
from ragbot.errors import CorpusError
from ragbot.text import sentences
from ragbot.types import Document, LeftOut
from ragbot.web.own.files import Limits, Reason, UploadError

_POLL = 0.1  # seconds
_PATIENCE = 5  # times the processor's seconds, by the clock: others come first
_MOST_OUTPUT = 64 << 20  # bytes
_LONGEST_TITLE = 200
_LEFT_OUT, _LONGEST_LEFT_OUT = 100, 200  # how many pieces are told, and how much of each

# How the process ends that read nothing.
_EXITS: dict[int, Reason] = {10: "empty", 11: "unreadable", 12: "locked", 13: "size", 14: "costly"}
_SETTINGS = (
    "PATH HOME LANG LC_ALL TMPDIR TEMP SYSTEMROOT VIRTUAL_ENV PYTHONHOME LD_LIBRARY_PATH".split()
)
_MOST_COMPLAINTS = 10_000  # bytes

_log = logging.getLogger(__name__)


# --- the asking side -------------------------------------------------------------------------


def read_apart(
    path: Path, name: str, limits: Limits, waiting: Callable[[], None] = lambda: None
) -> Document:
    """Read the file at `path`, to be known as `name`, within the limits. Raises UploadError.

    `waiting` is called every now and then, and stops it by raising.
    """
    order = json.dumps({"path": str(path), "name": name, "limits": asdict(limits)})
    with (
        tempfile.TemporaryFile(dir=path.parent) as output,
        tempfile.TemporaryFile(dir=path.parent) as complaints,
    ):
        child = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=complaints,
            env=_environment(),
            start_new_session=True,  # a Ctrl-C is for its parent, who ends it
        )
        try:
            _send(child, order)
            ended = _wait(child, limits.seconds * _PATIENCE, waiting)
        finally:
            child.kill()
            child.wait()
        if ended != 0:
            _note(ended, complaints)
            raise UploadError(_reason(ended), name, limits)
        output.seek(0)
        return _document(output.read(_MOST_OUTPUT), name, limits)


def _environment() -> dict[str, str]:
    # Neither keys nor settings: what is taken over by a file should know nothing.
    kept = {name: os.environ[name] for name in _SETTINGS if name in os.environ}
    path = os.pathsep.join(filter(None, sys.path))
    return {**kept, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"}


def _send(child: subprocess.Popen[bytes], order: str) -> None:
    if child.stdin is not None:
        with contextlib.suppress(BrokenPipeError), child.stdin as pipe:
            pipe.write(order.encode())


def _wait(child: subprocess.Popen[bytes], seconds: float, waiting: Callable[[], None]) -> int:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            return child.wait(_POLL)
        except subprocess.TimeoutExpired:
            waiting()
    # It may have ended while `waiting` took its time.
    ended = child.poll()
    return -signal.SIGTERM if ended is None else ended


def _reason(ended: int) -> Reason:
    crashed = ended == -getattr(signal, "SIGSEGV", 11) or ended == -signal.SIGABRT
    if ended < 0 and not crashed:  # killed for its time or its memory
        return "costly"
    return _EXITS.get(ended, "unreadable")


def _note(ended: int, complaints: IO[bytes]) -> None:
    """An end that no file accounts for, such as a library that is not there, is for the log."""
    if ended > 0 and ended not in _EXITS:
        complaints.seek(0)
        last = complaints.read(_MOST_COMPLAINTS).decode(errors="replace").strip().split("\n")[-1]
        _log.warning("the reading of a file ended with %d: %s", ended, last)


def _document(written: bytes, name: str, limits: Limits) -> Document:
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(Document).validate_json(written)
    except ValidationError as error:
        raise UploadError("unreadable", name, limits) from error


# --- the reading side ------------------------------------------------------------------------


class _RefusedError(Exception):
    def __init__(self, reason: Reason):
        self.reason = reason


def main() -> None:
    """Read what standard input asks for; a Document on standard output, or an exit that tells."""
    order = json.load(sys.stdin)
    order["limits"]["kinds"] = tuple(order["limits"]["kinds"])
    limits = Limits(**order["limits"])
    _bound(limits)
    reason = _written(Path(order["path"]), order["name"], limits)
    if reason is not None:
        sys.exit(next(code for code, told in _EXITS.items() if told == reason))


def _written(path: Path, name: str, limits: Limits) -> Reason | None:
    """Write the document; why there is none, where there is none."""
    try:
        document = json.dumps(asdict(_read(path, name, limits)))
        sys.stdout.write(document)
        sys.stdout.flush()
    except _RefusedError as error:
        return error.reason
    except CorpusError as error:
        return _told(str(error).replace(str(path), ""))
    except (MemoryError, OSError):  # of the output, too: there is a bound to it
        return "costly"
    except Exception:  # a stranger's file can make a library raise anything
        return "unreadable"
    return None


def _told(sentence: str) -> Reason:
    if "encrypted" in sentence:
        return "locked"
    return "empty" if "no text" in sentence or "without text" in sentence else "unreadable"


def _read(path: Path, name: str, limits: Limits) -> Document:
    document = read_document(path, name)
    # What is indexed is each paragraph under its headings, and each of its sentences.
    headings = sum(len(title) for row in document.paragraphs for title in row.headings)
    if len(document.text) > limits.characters or headings > limits.characters:
        raise _RefusedError("size")
    texts = (document.text[row.start : row.end] for row in document.paragraphs)
    if sum(1 + len(sentences(text)) for text in texts) > limits.pieces:
        raise _RefusedError("size")
    title = document.title if document.title != path.stem else Path(name).stem
    left_out = document.left_out[:_LEFT_OUT]
    return replace(
        document,
        title=title[:_LONGEST_TITLE],
        left_out=tuple(LeftOut(one.text[:_LONGEST_LEFT_OUT], one.reason) for one in left_out),
    )


def _bound(limits: Limits) -> None:
    """Let the system hold this process to its limits."""
    try:
        import resource
    except ImportError:  # Windows: the clock alone
        return
    os.nice(5)
    for bound, most in (
        (resource.RLIMIT_CPU, limits.seconds),
        (resource.RLIMIT_AS, limits.memory),
        (resource.RLIMIT_FSIZE, _MOST_OUTPUT),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(bound)[1]
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(bound, (allowed, allowed))


if __name__ == "__main__":
    main()
