"""Bilingual question answering over your documents, every sentence cited.

>>> from ragbot import RagBot
>>> bot = RagBot.from_corpus("corpus")
>>> answer = bot.ask("華為在什麼時候宣布成立醫療衛生軍團?")
>>> print(answer.text)

Importing this package is light; models are loaded when a bot is made.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ragbot.bot import RagBot
    from ragbot.errors import RagbotError
    from ragbot.streaming import AnswerStream
    from ragbot.types import Answer, Citation, Hit, Message, Timings

__all__ = [
    "Answer",
    "AnswerStream",
    "Citation",
    "Hit",
    "Message",
    "RagBot",
    "RagbotError",
    "Timings",
]

_HOMES = {"AnswerStream": "streaming", "RagBot": "bot", "RagbotError": "errors"}


def __getattr__(name: str) -> Any:
    # On first use, so that `ragbot --help` does not wait for what it does not need.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'types')}"), name)
