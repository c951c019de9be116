"""The process of `ragbot`: how it begins, and how it ends.

A RagbotError becomes one sentence and exit code 2, a Ctrl-C exit code 130 without a word, at any
moment, also in the middle of an import.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from ragbot import tracing
from ragbot.errors import RagbotError

_INTERRUPTED = 130


def main() -> None:
    """Run the command line."""
    interrupts = _noted_interrupts()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what it has no character for is told by number
            stream.reconfigure(errors="backslashreplace")
    try:
        from ragbot.cli import app

        tracing.turn_on()
        app()
    except RagbotError as error:
        print(f"ragbot: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:  # where typer does not look
        _leave_at_once()
    except SystemExit as end:
        if end.code == _INTERRUPTED:
            _leave_at_once()
        raise
    except Exception:
        if interrupts:  # in the middle of an import some library makes an error of its own of it
            _leave_at_once()
        raise


def _noted_interrupts() -> Sequence[int]:
    """The Ctrl-C's from now on, each of which interrupts as it always does."""
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        signal.default_int_handler(number, frame)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored
        signal.signal(signal.SIGINT, note)
    return noted


def _leave_at_once() -> None:
    # Taking llama.cpp down in the middle of its work has crashed the process: nobody waits for it.
    sys.stdout.flush()
    sys.stderr.flush()
    tracing.turn_off()
    os._exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
