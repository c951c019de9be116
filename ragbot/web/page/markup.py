"""The one way by which text of others becomes part of the page: escaped, and never as Markdown.

Controls that would steer how the text around them is read or shown are left out.
"""

from __future__ import annotations

import html
import re

from ragbot.text import detect_language
from ragbot.types import Language

# Controls that are no white space, and the marks that turn or hide the direction of what follows.
_STEERING = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_SAMPLE = 2000  # characters that tell a language


def plain(text: str) -> str:
    """Text as it may be shown or saved: without controls that no reader sees and that steer."""
    return _STEERING.sub("", text)


def escaped(text: str) -> str:
    """Text for an element's content or an attribute in double quotes."""
    return html.escape(plain(text), quote=True)


def lang(text: str, default: Language = "zh-Hans") -> Language:
    """The language that a text is to be shown and read out in."""
    return detect_language(text[:_SAMPLE], default)
