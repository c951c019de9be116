"""Processes that are measured: what they say, when, and how much memory they took.

Times are taken by the process that waits. Settings of whoever runs the bench do not reach them.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from ragbot.errors import RagbotError
from scripts.bench.plan import ROOT

_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1",
    "PYTHONIOENCODING": "utf-8",
}
_PATIENCE = 30.0  # seconds for a process to end after it was asked to
_LONGEST = 300.0  # seconds for it to be ready, or to answer: what takes longer is broken off


class FailedError(RagbotError):
    """A measured process ended, or said what nobody expected."""


@dataclass(frozen=True, slots=True)
class Run:
    """A process from start to end: seconds until its terminal showed something, to the first byte
    of its output, and in all; memory, what it said."""

    shown_s: float | None
    first_s: float | None
    total_s: float
    peak_mb: float
    said: str


def environment() -> dict[str, str]:
    """The environment without ragbot's settings, but for where its models lie."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith("RAGBOT_") or name.upper() == "RAGBOT_CACHE"
    }
    return kept | _OFFLINE


def timed(command: Sequence[str], shows: str = "") -> Run:
    """Run a command to its end, with a terminal for standard error, on which it `shows` something.

    Raises FailedError with the last line of its complaints.
    """
    with _terminal(shows) as (complaints, terminal):
        start = time.perf_counter()
        try:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=terminal
            )
        finally:
            os.close(terminal)
        try:
            with cast(IO[bytes], process.stdout) as stdout:
                head = stdout.read(1)
                first = time.perf_counter() - start if head else None
                said = (head + stdout.read()).decode("utf-8", "replace")
            _, status, usage = os.wait4(process.pid, 0)
            total = time.perf_counter() - start
            process.returncode = os.waitstatus_to_exitcode(status)
        except BaseException:
            process.kill()
            process.wait()
            raise
    if process.returncode:
        raise FailedError(_last_line(complaints, command))
    shown = complaints.shown and complaints.shown - start
    return Run(shown, first, total, usage.ru_maxrss / 1024, said)


class _Screen(io.BytesIO):
    """What a terminal was told, and when something first stood in it."""

    shown: float | None = None


@contextmanager
def _terminal(shows: str) -> Iterator[tuple[_Screen, int]]:
    """A terminal for a process, which has to close it here, and its screen, full at the end."""
    reader, writer = os.openpty()
    screen = _Screen()

    def read() -> None:
        with suppress(OSError):  # how it tells that nobody writes any more
            while told := os.read(reader, 4096):
                screen.write(told)
                if shows and screen.shown is None and shows.encode() in screen.getvalue():
                    screen.shown = time.perf_counter()

    watcher = threading.Thread(target=read)
    watcher.start()
    try:
        yield screen, writer
    finally:
        watcher.join()
        os.close(reader)


class Child:
    """A process that takes a JSON object a line and answers with some (answerer/protocol.py)."""

    def __init__(self, command: Sequence[str], settings: Mapping[str, Any]):
        self._command = command
        self._complaints: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            encoding="utf-8",
        )
        self.about: dict[str, Any] = {}
        try:
            self._tell(settings)
            self.about = self._hear("ready")[1]
        except BaseException:
            self.close()
            raise

    def ask(self, question: str) -> dict[str, Any]:
        """What became of a question, with `first_s` and `total_s` as seen from here.

        Raises FailedError.
        """
        start = time.perf_counter()
        self._tell({"question": question})
        first, _ = self._hear("first")
        last, told = self._hear("done")
        return told | {"first_s": round(first - start, 3), "total_s": round(last - start, 3)}

    def peak_mb(self) -> float:
        """The most memory that the process and its children have held (sum of VmHWM)."""
        return peak_mb(self._process.pid)

    def close(self) -> None:
        """Have the process end, by force if it does not."""
        try:
            self._process.communicate(timeout=_PATIENCE)
        except (subprocess.TimeoutExpired, OSError, ValueError):
            self._process.kill()
            self._process.wait()
        self._complaints.close()

    def _tell(self, message: Mapping[str, Any]) -> None:
        stdin = cast(IO[str], self._process.stdin)
        try:
            stdin.write(json.dumps(message) + "\n")
            stdin.flush()
        except OSError as error:
            raise FailedError(_last_line(self._complaints, self._command)) from error

    def _hear(self, event: str) -> tuple[float, dict[str, Any]]:
        guard = threading.Timer(_LONGEST, self._process.kill)
        guard.start()
        line = cast(IO[str], self._process.stdout).readline()
        heard = time.perf_counter()
        guard.cancel()
        if not line:
            self._process.wait(_PATIENCE)
            raise FailedError(_last_line(self._complaints, self._command))
        told: dict[str, Any] = json.loads(line)
        if told.pop("event", None) != event:
            raise FailedError(f"It said {line[:100]!r} where {event} was expected.")
        return heard, told


@contextmanager
def served(command: Sequence[str]) -> Iterator[tuple[str, int]]:
    """The address that a server announces, and its process id, until it is no longer needed.

    Raises FailedError.
    """
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            encoding="utf-8",
        )
        try:
            for line in process.stdout or ():
                if found := re.search(r"http://[\w.:\[\]-]+", line):
                    yield found[0].rstrip(":"), process.pid
                    return
            process.wait(_PATIENCE)
            raise FailedError(_last_line(complaints, command))
        finally:
            process.terminate()
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


def own(module: str) -> list[str]:
    """The command that runs a module with this Python."""
    return [sys.executable, "-m", module]


def peak_mb(pid: int) -> float:
    """The most memory that a process and its children, those alive, have held, in MB (2^20)."""
    table = dict(filter(None, map(_held, Path("/proc").glob("[0-9]*/status"))))
    family, added = {pid}, True
    while added:
        more = {one for one, (parent, _) in table.items() if parent in family} - family
        family, added = family | more, bool(more)
    return sum(table[one][1] for one in family if one in table) / 1024


def _held(status: Path) -> tuple[int, tuple[int, int]] | None:
    """A process, its parent, and its peak in kB; None when it has just ended."""
    try:
        text = status.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = dict(re.findall(r"^(PPid|VmHWM):\s+(\d+)", text, re.MULTILINE))
    return int(status.parent.name), (int(fields.get("PPid", 0)), int(fields.get("VmHWM", 0)))


def _last_line(complaints: Any, command: Sequence[str]) -> str:
    complaints.seek(0)
    lines = complaints.read().decode("utf-8", "replace").strip().splitlines()
    said = lines[-1].strip()[:300] if lines else "it said nothing"
    return f"{Path(command[0]).name} {' '.join(command[1:3])} ended: {said}"
