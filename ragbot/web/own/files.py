"""A stranger's file at the door: its name made fit to be shown, its bytes taken in, or refused.

Nothing here looks at what a file holds, and no name of a stranger's ever becomes a path.
"""

from __future__ import annotations

import os
import re
import stat
import time
import unicodedata
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ragbot.corpus import SUFFIXES
from ragbot.errors import RagbotError
from ragbot.text import fold

Reason = Literal[
    "count", "size", "kind", "empty", "unreadable", "locked", "costly", "name", "busy", "stopped"
]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may be added.

    Of one visitor: files, bytes of each, characters and pieces (paragraphs and sentences) of all
    together, and the minutes after which what is not used is forgotten. Of one file: seconds of
    the processor and bytes of memory that reading it may take. Of everybody: pieces, from which on
    nothing more is taken; each is a vector in memory.
    """

    files: int = 5
    bytes: int = 10 << 20
    characters: int = 400_000
    kinds: tuple[str, ...] = SUFFIXES
    minutes: int = 30
    pieces: int = 100_000
    seconds: int = 60
    memory: int = 1 << 30
    everyone: int = 400_000

    def summary(self) -> dict[str, int | str]:
        """What a visitor is told of them beforehand, by name."""
        return {
            "files": self.files,
            "megabytes": self.bytes >> 20,
            "characters": self.characters,
            "kinds": ", ".join(self.kinds),
            "minutes": self.minutes,
        }


DEFAULT = Limits()

_SAID: dict[Reason, str] = {
    "count": "{name} is one too many: at most {files} files can be added, remove one first.",
    "size": "{name} is too large: give at most {megabytes} MB a file, and {characters:,} characters"
    " in all.",
    "kind": "{name} is not of a known type: use {kinds}.",
    "empty": "{name} has no text in it: give a document with text, or run text recognition (OCR)"
    " over it.",
    "unreadable": "{name} is damaged, or not what its name says: save it anew.",
    "locked": "{name} is locked by a password: save it without one.",
    "costly": "{name} takes too much time or memory to read: give it in smaller parts.",
    "name": "The file has no name that can be shown: rename it.",
    "busy": "There is no room for more documents just now: try again in a few minutes.",
    "stopped": "Adding documents was stopped: nothing was changed.",
}


class UploadError(RagbotError):
    """Why nothing was added: the reason, and the name of the file as it would have been shown."""

    def __init__(self, reason: Reason, name: str = "", limits: Limits = DEFAULT):
        self.reason, self.name, self.limits = reason, name, limits
        super().__init__(_SAID[reason].format(name=name, **limits.summary()))

    def __reduce__(self) -> tuple[type[UploadError], tuple[Reason, str, Limits]]:
        return UploadError, (self.reason, self.name, self.limits)


# --- names -----------------------------------------------------------------------------------

_LONGEST = 80  # characters of a name that is shown
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # bidirectional marks are among them
_UNFIT = re.compile(r'[<>:"|?*]')  # what Windows lets no file be called by
_RESERVED = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])(?:\.|$)", re.I)


def shown_name(name: str, taken: Collection[str], limits: Limits = DEFAULT) -> str:
    """A file's name, as it may be shown and saved anywhere; numbered where it is taken already.

    Names count as the same that differ in width, case or script alone. Raises UploadError.
    """
    plain = re.split(r"[/\\]", unicodedata.normalize("NFC", name))[-1]
    plain = "".join(char for char in plain if unicodedata.category(char) not in _UNSEEN)
    plain = _UNFIT.sub("_", " ".join(plain.split()))
    stem, dot, kind = plain.rpartition(".")
    stem, kind = stem.strip(" ."), (dot + kind).strip().lower()
    if not stem and not kind.strip(". "):
        raise UploadError("name", limits=limits)
    if kind not in limits.kinds:
        raise UploadError("kind", (plain or kind)[:_LONGEST], limits)
    stem = f"_{stem}" if _RESERVED.match(stem) else stem or "document"
    held = {fold(one).text for one in taken}
    for number in range(1, len(held) + 2):
        end = (f" ({number})" if number > 1 else "") + kind
        shown = stem[: _LONGEST - len(end)].rstrip(" .") + end
        if fold(shown).text not in held:
            return shown
    raise AssertionError("more names than are taken were taken")


# --- bytes -----------------------------------------------------------------------------------

_BLOCK = 1 << 20
# A link is not followed, and a pipe that nobody writes to is not waited for.
_FLAGS = os.O_RDONLY | sum(
    getattr(os, flag, 0) for flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY", "O_BINARY")
)


def take_in(source: Path, target: Path, name: str, limits: Limits = DEFAULT) -> None:
    """Copy a file to `target`, which is made for its owner alone.

    Raises UploadError: it is a link, has another name somewhere, is no plain file, is empty or too
    large; and OSError when `target` cannot be written.
    """
    try:
        descriptor = os.open(source, _FLAGS)
    except (OSError, ValueError) as error:
        raise UploadError("unreadable", name, limits) from error
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_nlink > 1:
            raise UploadError("unreadable", name, limits)
        _copy(descriptor, target, name, limits)
    finally:
        os.close(descriptor)


def _copy(descriptor: int, target: Path, name: str, limits: Limits) -> None:
    size = 0
    with open(target, "xb", opener=_private) as file:
        while block := os.read(descriptor, _BLOCK):
            size += len(block)
            if size > limits.bytes:  # counted, not asked: it may grow
                raise UploadError("size", name, limits)
            file.write(block)
    if not size:
        raise UploadError("empty", name, limits)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def forget_old(folder: Path, seconds: float) -> None:
    """Delete the files below a folder that were written longer ago than that. Raises OSError."""
    oldest = time.time() - seconds
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # fetched meanwhile
            if path.is_file() and path.stat().st_mtime < oldest:
                path.unlink()
