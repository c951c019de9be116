"""What the generator is asked for in the course of one question, and what comes of it.

Each method is one call. Nothing is believed here: a reading is proven elsewhere, a retelling is
checked by `retelling`, and a translated or rewritten question only serves to search and to ask.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ragbot import phrases, prompts, retelling
from ragbot.engines import Engine
from ragbot.enumeration import asked_for
from ragbot.evidence import content_words, coverage
from ragbot.streaming import Written
from ragbot.text import HAN, across, detect_language, fold, to_language
from ragbot.tracing import note, span
from ragbot.types import Language, Message, Token, Usage

_UNLIKELY = -10.0  # the log probability of what is not among the likeliest tokens, or unknown
_USUAL = -2.0  # that of the least likely token of an answer, about
_SHORT = 80  # tokens of a question
_KEPT = 0.5  # of a follow-up's words, which its rewriting has to keep


@dataclass(frozen=True, slots=True)
class Reading:
    """What the generator found in some texts: the sentence that answers, as it copied it, and its
    answer, empty when it found none; the log probabilities of "none" in the answer's place, and of
    the answer's least likely token."""

    sentence: str
    answer: str
    log_none: float
    log_least: float


class Generator:
    """An engine, opened when it is needed, at work on one question. `written` keeps all that it
    wrote."""

    def __init__(
        self, engine: Callable[[], Engine], max_tokens: int, cancel: threading.Event | None
    ):
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
        return parsed(self._all(messages, self._max_tokens, form), self.written.last.tokens)

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
        engine = self._engine()
        with span(f"chat {engine.name}", calls=True):
            reply = engine.stream(messages, max_tokens=max_tokens, cancel=self._cancel, form=form)
            text = "".join(self.written.kept(reply))
            note(_called(engine.name, max_tokens, self.written.last))
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


def parsed(text: str, tokens: Sequence[Token] = ()) -> Reading:
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
    told = _answered(tokens)
    return Reading(sentence, "" if nothing else answer, _log_none(told), _log_least(told))


def _answered(tokens: Sequence[Token]) -> Sequence[Token]:
    """The tokens of the answer: those behind its label."""
    text = ""
    for number, token in enumerate(tokens, start=1):
        text += token.text
        if any(not text[label.end() :].strip() for label in _ANSWER.finditer(text)):
            return tokens[number:]
    return ()


def _log_none(tokens: Sequence[Token]) -> float:
    """The log probability that "none" had come first."""
    first = tokens[0].likeliest if tokens else {}
    return max(_likelihood(first, none) for none in prompts.NONE.values())


def _log_least(tokens: Sequence[Token]) -> float:
    """The log probability of the token that was least likely; a usual one where none is known."""
    known = (one.likeliest.get(one.text, _UNLIKELY) for one in tokens if one.text.strip())
    return max(_UNLIKELY, min(known, default=_USUAL))


_TELLING = 3  # letters of a word that is no other: "no" may be the beginning of "no more than"


def _likelihood(likeliest: Mapping[str, float], word: str) -> float:
    """The log probability that a word, or enough of its letters, comes first."""
    fitting = (
        likelihood
        for text, likelihood in likeliest.items()
        if len(text.strip()) >= min(_TELLING, len(word)) and word.startswith(text.strip().lower())
    )
    return max(_UNLIKELY, max(fitting, default=_UNLIKELY))


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0].strip()
