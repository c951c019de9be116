"""A proven claim in the asker's language: retold by the generator, trusted only where it can be.

The generator answers in the sources' own language, where its words can be held against theirs; what
is proven is then retold: a term in a sentence that keeps it in brackets, a sentence as a whole.
"""

from __future__ import annotations

import re

from ragbot import phrases, prompts
from ragbot.text import HAN, across, detect_language, fold, sentences, to_language
from ragbot.types import Language, Message
from ragbot.words import mentioned_numbers, stated_numbers

# What is short enough to stand in brackets: a name, a date, a term; not a sentence.
_LONGEST_TERM = {"en": 60, "zh-Hant": 24, "zh-Hans": 24}
_BESIDE = 60  # characters of a claim that may stand beside its retelling
_SENTENCES = 3  # that a long sentence is translated into, at the most
_A_WORD = 4  # letters: fewer are no sentence
_FULL_STOP = re.compile(r"[。.！!]+$")


def is_term(claim: str) -> bool:
    """Whether a claim is short enough to be a name, a date or a term rather than a sentence."""
    bare = _bare(claim)
    return len(bare) <= _LONGEST_TERM[detect_language(bare)] and "，" not in bare


def messages(question: str, claim: str, language: Language) -> list[Message]:
    """What the generator is asked for: a sentence around a term, or a sentence's translation."""
    said = prompts.written(language)
    if is_term(claim):
        return prompts.retelling_messages(question, claim, said)
    return prompts.translation_messages(claim, said)


def retold(written: str, question: str, claim: str, language: Language) -> str:
    """What the reader is shown for a proven claim in another language, of which the generator
    wrote `written`: a sentence around a term, the whole of a translation; with the claim in
    brackets when that is short, or not long and the retelling has names that nothing confirms: a
    small model spells them as it likes.

    A retelling that adds a number, is in the wrong language or refuses is not shown; the claim is
    then quoted as it is.
    """
    text = to_language(_taken(written, 1 if is_term(claim) else _SENTENCES), language)
    if language == "en":  # "was瑞金醫院"
        text = re.sub(rf"(?<=[A-Za-z,])(?=[{HAN}])|(?<=[{HAN}])(?=[A-Za-z])", " ", text)
    bare = _bare(claim)
    if not _fits(text, question, claim, language):
        return quoted(claim, language)
    beside = is_term(claim) or (len(bare) <= _BESIDE and _new_names(text, f"{question} {claim}"))
    if not beside or fold(bare).text in fold(text).text:
        return text
    end = _FULL_STOP.search(text)
    body, stop = (text[: end.start()], end.group()) if end else (text, "")
    return f"{body}（{bare}）{stop}" if language != "en" else f"{body} ({bare}){stop}"


def quoted(claim: str, language: Language) -> str:
    """A claim as it is, marked as the source's own words: for want of a retelling."""
    return phrases.QUOTED[language].format(_bare(claim))


def _bare(claim: str) -> str:
    return _FULL_STOP.sub("", claim.strip())


def _fits(text: str, question: str, claim: str, language: Language) -> bool:
    if not text or phrases.refuses(text) or prompts.repeats_example(text):
        return False
    if language == "en":  # the source's own terms may stand in it
        foreign = set(re.findall(f"[{HAN}]", fold(text).text)) - set(fold(claim).text)
        in_language = not foreign and len(re.findall("[A-Za-z]", text)) >= _A_WORD
    else:
        in_language = not across(detect_language(text), language)
    given = mentioned_numbers(claim) | mentioned_numbers(question)
    return in_language and not stated_numbers(text) - given


def _new_names(text: str, known: str) -> bool:
    """Whether an English text has a capitalised word, beyond each sentence's first, that `known`
    has not."""
    names = re.findall(r"(?<![.!?] )(?<=[ (])[A-Z][A-Za-z]+", text)
    return any(name not in known for name in names)


def _taken(text: str, most: int) -> str:
    """The first sentences of what was written; what comes after a line is talk."""
    line = text.strip().partition("\n")[0]
    spans = sentences(line)[:most]
    return line[spans[0][0] : spans[-1][1]] if spans else ""
