"""Who has the page open: a visitor may have several tabs, and leaves with the last of them.

All of it happens on one event loop.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable

_MOST = 10_000  # tabs that are remembered; a tab whose closing was missed is forgotten in the end


class Visitors:
    """Tabs, by the session that each one is, and the answers under way in them.

    `left` is called with a visitor whose last tab was closed.
    """

    def __init__(self, left: Callable[[str], None]):
        self._left = left
        self._tabs: OrderedDict[str, str] = OrderedDict()
        self._running: dict[str, tuple[str, asyncio.Event]] = {}

    def here(self, session: str, visitor: str) -> None:
        """A tab was opened, or shows a sign of life."""
        self._tabs[session] = visitor
        self._tabs.move_to_end(session)
        if len(self._tabs) > _MOST:
            self._tabs.popitem(last=False)

    def begin(self, session: str, visitor: str, turn: str) -> asyncio.Event:
        """An answer is under way; the event is set when it is no longer wanted."""
        self.here(session, visitor)
        unwanted = asyncio.Event()
        self._running[turn] = session, unwanted
        return unwanted

    def end(self, turn: str) -> None:
        """That answer is no longer under way."""
        self._running.pop(turn, None)

    def stop(self, turn: str) -> None:
        """An answer is no longer wanted; one that is not under way is nothing to stop."""
        if turn in self._running:
            self._running[turn][1].set()

    def gone(self, session: str) -> None:
        """A tab was closed: what is under way in it stops."""
        for of, unwanted in self._running.values():
            if of == session:
                unwanted.set()
        visitor = self._tabs.pop(session, None)
        if visitor is not None and visitor not in self._tabs.values():
            self._left(visitor)
