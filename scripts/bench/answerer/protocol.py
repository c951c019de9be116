"""The one protocol of all that answer in the bench: a JSON object a line, in and out.

In: the settings, then `{"question"}` again and again. Out: `ready` with what the answerer says of
itself, and for each question `first`, when there is text that a reader could read, and `done` with
the text and the sources that its `[n]` stand for. Runs in environments without ragbot.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

Say = Callable[[str], None]
"""Takes a piece of the answer when a reader could read it."""

Answer = Callable[[str, Say], dict[str, Any]]
"""Answers a question: `text`, `sources` {number: text}, and whatever else there is to tell."""

Opened = tuple[Answer, dict[str, Any]]


def run(opened: Callable[[dict[str, Any]], Opened]) -> None:
    """Speak the protocol until the end of standard input.

    What libraries print goes to standard error, so that it does not come in between.
    """
    with os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8") as out:
        os.dup2(2, 1)

        def tell(event: str, what: dict[str, Any]) -> None:
            out.write(json.dumps({"event": event} | what) + "\n")

        settings = json.loads(sys.stdin.readline())
        start = time.perf_counter()
        answer, about = opened(settings)
        tell("ready", about | {"ready_s": round(time.perf_counter() - start, 2)})
        for line in sys.stdin:
            _answered(answer, json.loads(line)["question"], tell)


def _answered(answer: Answer, question: str, tell: Callable[[str, dict[str, Any]], None]) -> None:
    begun = False

    def say(piece: str) -> None:
        nonlocal begun
        if piece.strip() and not begun:
            begun = True
            tell("first", {})

    told = answer(question, say)
    say(".")  # an empty answer has its first text at its end
    tell("done", told)
