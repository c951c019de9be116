"""What leaves the page: a conversation as Markdown or JSON, an answer with its sources to paste.

In Markdown, markup in the text of others is broken, so that no viewer loads a picture for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from ragbot.console import answer_json
from ragbot.types import Answer, Citation, Language
from ragbot.web.page.markup import plain
from ragbot.web.page.strings import word

# Markup within a line; `[1]` stays, unless it could be a link's text or name.
_INLINE = re.compile(r"[\\`*_<>|~&]|\[(?!\d{1,4}\](?![(:]))|\](?=[(:])|!(?=\[)")
_BLOCK = re.compile(r"^[ \t]*([#+=-])", re.MULTILINE)
_NUMBERED = re.compile(r"^[ \t]*(\d{1,9})([.)])", re.MULTILINE)


def copied(answer: Answer, language: Language) -> str:
    """An answer and its sources as plain text."""
    text = plain(answer.answer).strip()
    rows = [f"[{one.marker}] {_where(one, language)}: {plain(one.quote)}" for one in _cited(answer)]
    return "\n".join([text, "", *_nearest(answer, language), *rows]) if rows else text


def markdown(answers: Sequence[Answer], language: Language) -> str:
    """A conversation as a document of its own."""
    parts = [f"# {word('exported', language)}"]
    for answer in answers:
        sources = [
            f"- [{one.marker}] {inert(_where(one, language))}: {inert(one.quote)}"
            for one in _cited(answer)
        ]
        # On one line: what stands on several could be a heading, a list or a table.
        parts += [f"## {inert(_line(answer.question))}", inert(answer.answer)]
        parts += ["\n".join([*_nearest(answer, language), *sources])] if sources else []
    return "\n\n".join(parts) + "\n"


def as_json(answers: Sequence[Answer]) -> str:
    """A conversation as `ragbot verify` reads it: a list of what `ragbot ask --json` prints."""
    return json.dumps([answer_json(one) for one in answers], ensure_ascii=False, indent=2) + "\n"


def inert(text: str) -> str:
    """Text as Markdown that says just that text."""
    broken = _INLINE.sub(r"\\\g<0>", plain(text))
    return _NUMBERED.sub(r"\1\\\2", _BLOCK.sub(r"\\\1", broken))


def _cited(answer: Answer) -> tuple[Citation, ...]:
    return (*answer.citations, *(answer.related if answer.abstained else ()))


def _nearest(answer: Answer, language: Language) -> list[str]:
    return [f"{word('related', language)}\n"] if answer.abstained and answer.related else []


def _where(citation: Citation, language: Language) -> str:
    where = word("paragraph", language).format(citation.paragraph)
    return _line(citation.doc) + (", " if language == "en" else "，") + where


def _line(text: str) -> str:
    return " ".join(plain(text).split())
