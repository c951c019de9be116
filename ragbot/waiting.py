"""What the terminal shows while something takes long: how far it is, and what is being done.

It goes to standard error, and is gone when it is over.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ragbot.console import err, one_line, place
from ragbot.types import Progress, Step, Watch
from ragbot.workspace import Report

_LINE_SECONDS = 30.0  # between two lines of progress where there is no terminal
_ESTIMATE_SECONDS = 600.0  # over which speed is taken: an answer alone may take ten


def countdown(report: Report, label: str) -> Progress:
    """A progress bar with the time left; where there is no terminal, a line every half minute."""
    if sys.stderr.isatty():
        return report(label)
    start = last = time.monotonic()
    first: int | None = None

    def update(done: int, total: int) -> None:
        nonlocal first, last
        first = done if first is None else first
        now = time.monotonic()
        if done > first and now - last >= _LINE_SECONDS:
            last = now
            left = (now - start) / (done - first) * (total - done)
            err().print(f"{label}: {done} of {total}, about {left / 60:.0f} min left", markup=False)

    return update


@contextmanager
def progress() -> Iterator[Report]:
    """Progress bars on standard error while the block runs; none when it is not a terminal."""
    from rich import progress as bar

    columns = (
        bar.TextColumn("{task.description}"),
        bar.BarColumn(),
        bar.MofNCompleteColumn(),
        bar.TimeRemainingColumn(),
    )
    with bar.Progress(
        *columns,
        console=err(),
        transient=True,
        disable=not sys.stderr.isatty(),
        speed_estimate_period=_ESTIMATE_SECONDS,
    ) as bars:

        def report(label: str) -> Any:
            task = bars.add_task(label, total=None, visible=False)

            def update(done: int, total: int) -> None:
                bars.update(task, completed=done, total=total, visible=True)

            return update

        yield report


@contextmanager
def waiting() -> Iterator[Watch]:
    """Tells on a terminal what is being done while an answer is under way, and the sentence that
    comes nearest to the question; gone when the block ends."""
    if not sys.stderr.isatty():
        yield lambda step: None
        return
    from rich.text import Text

    console = err()
    console.soft_wrap = False  # a status is drawn anew and anew: what is not wrapped is cut off
    with console.status("Getting ready") as status:
        nearest = ""

        def tell(step: Step) -> None:
            nonlocal nearest
            if near := step.nearest:
                nearest = f"; nearest so far is {place(near)}:\n{one_line(near.quote)}"
            status.update(Text(f"{step.stage.capitalize()}{nearest}"))

        yield tell
