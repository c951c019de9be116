"""Text of others at the door: a question has to be one, and in a prompt all of it is content.

An engine fills its chat template and reads the whole of it with control tokens, so that a document
holding `<|im_end|>` would end its turn, and could speak as the system in the next. Both llama.cpp
(tests/test_fence.py shows it) and transformers do so, and neither can be told not to.
"""

from __future__ import annotations

import re
import unicodedata

from ragbot.errors import ConfigError

LONGEST_QUESTION = 2000  # characters; what is longer is a document, not a question

# What no reader sees: controls that are no white space, half characters, and what Unicode calls
# ignorable: zero-width and bidirectional marks, variation selectors, tags. They go first, since
# one of them may stand in the middle of a control token.
_UNSEEN = re.compile(
    "[\0-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)

# Where a control token is broken, by the form of it: a list of names would be out of date with the
# next model. Each sign in all its widths, since some tokenizers read them alike.
_LESS, _MORE, _BAR, _OPEN, _SHUT = "<＜﹤", ">＞﹥", "|｜", r"\[［﹇", r"\]］﹈"
_TAG = rf"[^\s/.{_LESS}{_MORE}]{{1,64}}[{_MORE}]"  # no address: <https://a.org> and <me@a.org> stay
_ANY = rf"[^\s{_OPEN}{_SHUT}]{{0,64}}"
_CONTROL = re.compile(
    rf"[{_LESS}](?=[{_BAR}]|[{_LESS}]?/?{_TAG})"  # <|im_start|> <｜User｜> <s> </s> <<SYS>>
    rf"|[{_BAR}](?=[{_MORE}])"  # <turn|>
    rf"|[{_OPEN}](?=[{_BAR}]|{_ANY}?[A-ZＡ-Ｚ]{{2}}{_ANY}[{_SHUT}])"  # [INST] [gMASK] [|user|]
    rf"|[{_OPEN}{_SHUT}](?=\S?[~～])"  # ]~b] [e~[
)


def fenced(text: str) -> str:
    """The text on one line, without what no reader sees, its control tokens broken by a space."""
    line = " ".join(_UNSEEN.sub("", text).split())
    return _CONTROL.sub(r"\g<0> ", line)


def checked(question: str) -> str:
    """The question without white space around it. Raises ConfigError when it cannot be one."""
    question = question.strip()
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in re.sub(r"\s", "", question)):
        raise ConfigError("The question holds control characters: type it anew as plain text.")
    if not any(char.isalnum() for char in question):
        raise ConfigError("The question is empty: ask it in words.")
    if len(question) > LONGEST_QUESTION:
        raise ConfigError(
            f"The question has {len(question):,} characters: shorten it to {LONGEST_QUESTION:,}, "
            "and give a long text as the corpus instead."
        )
    return question
