"""What the generator is asked for in the course of one question, and what comes of it.

Each method is one call. Nothing is believed here: a reading is proven elsewhere, a retelling is
checked by `retelling`, and a translated or rewritten question only serves to search and to ask.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ragbot import phrases, prompts, retelling
from ragbot.engines import Engine
from ragbot.enumeration import asked_for
from ragbot.evidence import content_words, coverage
from ragbot.streaming import Written
from ragbot.text import HAN, across, detect_language, fold, to_language
from ragbot.tracing import note, span
from ragbot.types import Language, Message, Token, Usage

_UNLIKELY = -10.0  # the log probability of what is not among the likeliest tokens, or unknown
_SHORT, _A_WORD = 80, 2  # tokens: a question, a yes or no
_SAID = 4.0  # log odds of what was said by an engine that tells none, about
_KEPT = 0.5  # of a follow-up's words, which its rewriting has to keep


@dataclass(frozen=True, slots=True)
class Reading:
    """What the generator found in some texts: the sentence that answers, as it copied it, and its
    answer, empty when it found none; and the log probability that it had said so at once."""

    sentence: str
    answer: str
    log_none: float


class Generator:
    """An engine at work on one question. `written` keeps all that it wrote."""

    def __init__(self, engine: Engine, max_tokens: int, cancel: threading.Event | None):
        self.written = Written()
        self._engine = engine
        self._max_tokens = max_tokens
        self._cancel = cancel

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._cancel is not None and self._cancel.is_set()

    def read(self, question: str, texts: Sequence[str], language: Language) -> Reading:
        """What texts, which are in `language`, answer to a question in any language."""
        said = prompts.written(language)
        plain = [to_language(text, "zh-Hans") for text in texts]
        messages = prompts.reading_messages(to_language(question, "zh-Hans"), plain, said)
        form = prompts.reading_form(said, asked_for(question).things)
        return parsed(self._all(messages, self._max_tokens, form), self.written.last.opening)

    @span("check")
    def check(self, sentence: str, question: str, answer: str, language: Language) -> float:
        """The log odds, from -10 to 10, that an answer from a sentence answers the question; all
        three are in `language`."""
        said = prompts.written(language)
        plain = [to_language(text, "zh-Hans") for text in (sentence, question, answer)]
        text = self._all(prompts.checking_messages(plain[0], plain[1], plain[2], said), _A_WORD)
        yes, no = prompts.YES[said], prompts.NO[said]
        if not self.written.last.opening:  # an engine without probabilities: only what it says
            return _SAID if text.strip().lower().startswith(yes) else 0.0
        first = self.written.last.opening[0].likeliest
        odds = _likelihood(first, yes) - _likelihood(first, no)
        return max(_UNLIKELY, min(-_UNLIKELY, odds))

    @span("translate question")
    def translated_question(self, question: str, language: Language) -> str:
        """A question in another language; empty when what was written is not in it."""
        messages = prompts.question_translation_messages(question, prompts.written(language))
        text = _first_line(self._all(messages, _SHORT))
        return "" if across(detect_language(text, language), language) else text

    @span("rewrite question")
    def rewritten_question(
        self, question: str, history: Sequence[Message], language: Language
    ) -> str:
        """A follow-up as a question that stands alone, in the asker's language and script.

        Where that loses what was asked, it is joined to the question before it instead.
        """
        messages = prompts.rewriting_messages(question, history, prompts.written(language))
        text = to_language(_first_line(self._all(messages, _SHORT)), language)
        kept = coverage(content_words(question), fold(text).text) >= _KEPT
        if text and kept and not across(detect_language(text), language):
            return text
        return joined(question, history)

    @span("retell")
    def retold(self, question: str, claim: str, language: Language) -> str:
        """A claim in the asker's language: as it is if it is in it already, all of it."""
        mixed = language == "en" and re.search(f"[{HAN}]", claim)
        if not mixed and not across(detect_language(claim), language):
            return claim
        plain = to_language(claim, "zh-Hans")
        ways = [retelling.messages(question, plain, language)]
        # A short sentence passes for a term, too, and is translated better.
        if retelling.is_term(claim):
            ways.append(prompts.translation_messages(plain, prompts.written(language)))
        told = quoted = retelling.quoted(claim, language)
        for messages in ways:
            written = self._all(messages, self._max_tokens)
            told = retelling.retold(written, question, claim, language)
            if told != quoted:
                break
        return told

    def translated(self, text: str, language: Language) -> str:
        """A text in another language than it is in; empty when it is in that one already."""
        if not across(detect_language(text), language):
            return ""
        plain = to_language(text, "zh-Hans")
        messages = prompts.translation_messages(plain, prompts.written(language))
        return to_language(self._all(messages, self._max_tokens).strip(), language)

    def _all(self, messages: Sequence[Message], max_tokens: int, form: str = "") -> str:
        with span(f"chat {self._engine.name}", calls=True):
            reply = self._engine.stream(
                messages, max_tokens=max_tokens, cancel=self._cancel, form=form
            )
            text = "".join(self.written.kept(reply))
            note(_called(self._engine.name, max_tokens, self.written.last))
            return text


def _called(model: str, max_tokens: int, used: Usage) -> dict[str, str | bool | int | float]:
    """A call of a generator in OpenTelemetry's words."""
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": model,
        "gen_ai.request.max_tokens": max_tokens,
        "gen_ai.usage.input_tokens": used.prompt_tokens,
        "gen_ai.usage.output_tokens": used.completion_tokens,
        "gen_ai.usage.cache_read.input_tokens": used.reused_tokens,
    }


def joined(question: str, history: Sequence[Message]) -> str:
    """A follow-up together with the question it follows: what can be done without a generator."""
    asked = [message.content for message in history if message.role == "user"]
    return " ".join([*asked[-1:], question])


def _label(labels: Mapping[prompts.Written, str]) -> re.Pattern[str]:
    """Finds a label at the beginning of a line, its colon in either width."""
    names = "|".join(re.escape(label.strip(" ：:")) for label in labels.values())
    return re.compile(rf"^[ \t]*(?:{names})[ \t]*[：:]", re.MULTILINE | re.IGNORECASE)


_SENTENCE, _ANSWER = _label(prompts.SENTENCE), _label(prompts.ANSWER)


def parsed(text: str, opening: Sequence[Token] = ()) -> Reading:
    """What was written as a reading. Without its labels all of it is taken for the answer; one that
    was broken off in the middle of its copy has none."""
    text = text.strip()
    copy, *rest = _ANSWER.split(text, maxsplit=1)
    if not rest and not _SENTENCE.match(text):
        copy, rest = "", [text]
    sentence, answer = _SENTENCE.sub("", copy).strip(), "".join(rest).strip()
    # What was copied may well say that something is not known: only "none" by itself is none.
    nothing = phrases.is_none(sentence) or phrases.refuses(answer)
    nothing = nothing or prompts.repeats_instructions(to_language(answer, "zh-Hans"))
    return Reading(sentence, "" if nothing else answer, _log_none(opening))


def _log_none(opening: Sequence[Token]) -> float:
    for label, first in pairwise(opening):
        if label.text.rstrip().endswith((":", "：")):
            return max(_likelihood(first.likeliest, none, 3) for none in prompts.NONE.values())
    return _UNLIKELY


def _likelihood(likeliest: Mapping[str, float], word: str, least: int = 1) -> float:
    """The log probability that a word, or `least` letters of it or more, comes first."""
    fitting = (
        likelihood
        for text, likelihood in likeliest.items()
        if len(text.strip()) >= min(least, len(word)) and word.startswith(text.strip().lower())
    )
    return max(_UNLIKELY, max(fitting, default=_UNLIKELY))


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0].strip() if text.strip() else ""
