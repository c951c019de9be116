"""What is kept of each question, and the folder it is kept in: `answers.jsonl`, a line at a time.

A line is on disk before the next question is asked, so that whatever ends a run loses one answer
at the most, and the run can go on from there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ragbot.errors import ConfigError, StoreError
from ragbot.evaluation.questions import Gold
from ragbot.store import replace_file
from ragbot.types import Language

ANSWERS, CONFIG, SUMMARY, REPORT = "answers.jsonl", "config.json", "summary.json", "report.html"
_LOCK = "writer.lock"

Scores = dict[str, float | None]
"""Figures of one question by name; None where a figure does not apply to it."""


class Cited(BaseModel):
    """A citation of an answer. `verbatim`: its quote stands in that paragraph, word for word."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    marker: int
    doc: str
    paragraph: int
    quote: str
    verbatim: bool
    supports: bool | None = None


class Found(BaseModel):
    """A paragraph, with its best chunk's score."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    doc: str
    paragraph: int
    score: float


class Record(BaseModel):
    """A question, what became of it, and what its figures are.

    `retrieved` are the ten best paragraphs, `prompt` the ones that the generator was shown.
    `answer`, `abstained` and `confidence` are None where only retrieval was run. `queries` is what
    was searched for, `signals` what the confidence was computed from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    question: str
    lang: Language
    type: str
    answerable: bool | None
    gold: tuple[Gold, ...] = ()
    reference: str = ""
    answer: str | None = None
    abstained: bool | None = None
    confidence: float | None = None
    queries: tuple[str, ...] = ()
    signals: dict[str, float] = {}
    citations: tuple[Cited, ...] = ()
    related: tuple[Cited, ...] = ()
    retrieved: tuple[Found, ...] = ()
    prompt: tuple[Found, ...] = ()
    timings: dict[str, float] = {}
    scores: Scores = {}
    step: str = ""
    raw: str = ""

    @property
    def right(self) -> bool | None:
        """Whether it went as it should: the facts, or a refusal where there is no answer.

        None where the set does not say what is right, or nothing was answered.
        """
        if self.answer is None or self.answerable is None:
            return None
        if not self.answerable:
            return bool(self.abstained)
        accuracy = self.scores.get("accuracy")
        return None if accuracy is None else accuracy == 1.0


class Run:
    """A folder with the records of one evaluation."""

    def __init__(self, folder: Path):
        self.folder = folder

    def require_none(self) -> None:
        """Raise ConfigError when the folder holds a run, or is none."""
        if self.folder.exists() and not self.folder.is_dir():
            raise ConfigError(f"{self.folder} is a file: name a folder with --out.")
        if any((self.folder / name).exists() for name in (CONFIG, ANSWERS, SUMMARY)):
            raise ConfigError(
                f"{self.folder} holds a run already: add --resume to go on with it, or name "
                "another folder with --out."
            )

    def begin(self, config: Mapping[str, Any], *, resume: bool) -> dict[str, Record]:
        """Make the folder this run's, and give the records it holds already, by question id.

        Raises ConfigError when it holds another run, StoreError when it cannot be written.
        """
        if not resume:
            self.require_none()
        kept = _read_json(self.folder / CONFIG)
        differs = "" if kept is None else ", ".join(differences(kept, config))
        if differs:
            raise ConfigError(
                f"The run in {self.folder} was begun otherwise ({differs}): name another folder "
                "with --out."
            )
        try:
            replace_file(self.folder / CONFIG, _pretty(config))
        except OSError as error:
            raise StoreError(_unwritable(self.folder, error)) from error
        return {record.id: record for record in self.records(mend=True)}

    def add(self, record: Record) -> None:
        """Write one more record, to the disk itself. Raises StoreError."""
        try:
            with (self.folder / ANSWERS).open("a", encoding="utf-8", newline="\n") as file:
                file.write(record.model_dump_json() + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StoreError(_unwritable(self.folder, error)) from error

    def records(self, *, mend: bool = False) -> list[Record]:
        """The records so far; with `mend`, a last line cut short by a kill is taken off the file.

        Raises ConfigError, which names the line and what is wrong.
        """
        path = self.folder / ANSWERS
        try:
            data = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
        whole = data[: data.rfind(b"\n") + 1]
        if mend and whole != data:
            os.truncate(path, len(whole))
        records = []
        for number, line in enumerate(whole.split(b"\n")[:-1], start=1):
            try:
                records.append(Record.model_validate_json(line))
            except ValidationError as error:
                said = error.errors()[0]["msg"]
                raise ConfigError(
                    f"Line {number} of {path} is not a record of this version: {said}."
                ) from error
        return records

    def summary(self) -> dict[str, Any]:
        """The summary of a finished run. Raises ConfigError when there is none."""
        found = _read_json(self.folder / SUMMARY)
        if found is None:
            raise ConfigError(
                f"There is no finished run in {self.folder}: name a folder that `ragbot eval --out`"
                " made, or go on with it by --resume."
            )
        return found

    def finish(self, summary: Mapping[str, Any], report: str) -> None:
        """Write summary and report. Raises StoreError."""
        try:
            replace_file(self.folder / SUMMARY, _pretty(summary))
            replace_file(self.folder / REPORT, report)
        except OSError as error:
            raise StoreError(_unwritable(self.folder, error)) from error


@contextmanager
def writing(folder: Path) -> Iterator[Run]:
    """A run's folder, made if need be, for one writer. Raises ConfigError when there is one.

    Raises StoreError when it cannot be written.
    """
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / _LOCK)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ConfigError(
            f"Another evaluation is writing to {folder}: wait for it, or name another with --out."
        ) from error
    except OSError as error:
        raise StoreError(_unwritable(folder, error)) from error
    try:
        yield Run(folder)
    finally:
        lock.release()


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({error}): name another folder.") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path} does not hold a JSON object: name another folder.")
    return found


def differences(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from differences(before, after, f"{path}{name}.")
        elif before != after:
            yield f"{path}{name} {before!r}, now {after!r}"


def _pretty(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def _unwritable(folder: Path, error: OSError) -> str:
    return (
        f"{folder} cannot be written ({error.strerror or error}): free some space or name another "
        "folder with --out."
    )
