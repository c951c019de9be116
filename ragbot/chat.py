"""`ragbot chat`: questions one after another, each seen in the light of those before.

Ctrl-C stops an answer, not the program; Ctrl-D leaves.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ragbot import console, phrases
from ragbot.bot import RagBot
from ragbot.config import load_config
from ragbot.errors import ConfigError, RagbotError, UnreachableError
from ragbot.text import detect_language
from ragbot.types import Answer, Message
from ragbot.waiting import progress, waiting
from ragbot.workspace import require_documents

_HELP = """\
Ask in Chinese or English. Ctrl-C stops an answer, Ctrl-D leaves.
  /sources       where the last answer's sentences come from
  /only NAME...  ask these documents alone: names, folders, patterns; all again without one
  /reset         forget what was said
  /save [FILE]   write the conversation down as Markdown
  /quit          leave"""

_LISTED = 5  # names of documents


class Chat:
    """One conversation on a terminal."""

    def __init__(self, bot: RagBot, only: Sequence[str] = ()):
        self._whole = bot
        self._bot = bot.within(only) if only else bot
        self._answers: list[Answer] = []

    def handle(self, line: str) -> bool:
        """Act on one line; False when the talk is over."""
        command, _, argument = line.partition(" ")
        if command in ("/quit", "/exit"):
            return False
        if command == "/reset":
            self._answers.clear()
            console.err().print("Forgotten.")
        elif command == "/sources":
            self._sources()
        elif command == "/only":
            self._only(argument)
        elif command == "/save":
            self._save(Path(argument.strip() or "ragbot-chat.md").expanduser())
        elif command.startswith("/"):
            console.err().print(_HELP, markup=False)
        elif line:
            self._ask(line)
        return True

    def _ask(self, question: str) -> None:
        history = [
            message
            for answer in self._answers
            for message in (
                Message("user", answer.question),
                Message("assistant", answer.answer),
            )
        ]
        try:
            with waiting() as watch:
                answer = self._bot.stream(question, history=history, watch=watch).answer
            self._answers.append(answer)
            sys.stdout.write(answer.text)
        except KeyboardInterrupt:
            sys.stdout.write("… stopped")
        except UnreachableError as error:  # a server of the index may come back: the talk goes on
            sys.stdout.write(phrases.OUT_OF_REACH[detect_language(question)])
            console.err().print(f"{error}", markup=False)
        finally:
            sys.stdout.write("\n\n")

    def _sources(self) -> None:
        if self._answers and (self._answers[-1].citations or self._answers[-1].related):
            console.print_sources(self._answers[-1])
        else:
            console.err().print("There is no cited answer yet.")

    def _only(self, argument: str) -> None:
        """Raises ConfigError."""
        try:
            wanted = shlex.split(argument)
        except ValueError as error:
            raise ConfigError(
                f"{argument}: {error}; quote a name with spaces as a whole."
            ) from error
        self._bot = self._whole.within(wanted) if wanted else self._whole
        names = list(self._bot.retriever.index.documents)
        more = ", …" if len(names) > _LISTED else ""
        listed = f"{len(names)} of the documents: {', '.join(names[:_LISTED])}{more}"
        console.err().print(f"Asking {listed if wanted else 'all documents'}.", markup=False)

    def _save(self, path: Path) -> None:
        try:
            path.write_text(_markdown(self._answers), encoding="utf-8")
            console.err().print(f"Saved to {path}.", markup=False)
        except OSError as error:
            console.err().print(f"{path} cannot be written: {error.strerror}.", markup=False)


def _markdown(answers: list[Answer]) -> str:
    parts = []
    for answer in answers:
        sources = "\n".join(
            f"- [{c.marker}] {c.doc}, paragraph {c.paragraph}: {c.quote}"
            for c in (*answer.citations, *answer.related)
        )
        parts.append(f"**{answer.question}**\n\n{answer.answer}\n\n{sources}".rstrip())
    return "\n\n---\n\n".join(parts) + "\n"


def run(flags: Mapping[str, Any], only: Sequence[str]) -> None:
    """Talk until the end of the input, at first about some documents `only` if any are named."""
    with suppress(ImportError):
        import readline  # noqa: F401  # gives input() its line editing; not on Windows

    config = load_config(flags)
    require_documents(config, only)
    with progress() as report:
        bot = RagBot.from_corpus(config=config, report=report)
    chat = Chat(bot, only)
    typed = sys.stdin.isatty()
    if typed:
        console.err().print(_HELP, markup=False)
    while True:
        try:
            line = input("> ").strip()
            if not typed:
                sys.stdout.write(f"{line}\n")  # read from a file: the talk should still read as one
            if not chat.handle(line):
                return
        except KeyboardInterrupt:
            sys.stdout.write("\n")  # at the prompt it clears the line, as a shell does
        except EOFError:
            sys.stdout.write("\n")
            return
        except RagbotError as error:
            console.err().print(f"{error}", markup=False)
