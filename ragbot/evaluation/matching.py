"""An answer against what a question set requires: facts, exact match, F1, language.

Nothing here is shared with the code that answers, so that a mistake there cannot hide here.
"""

from __future__ import annotations

import re
import string
import unicodedata
import warnings
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import cache
from typing import TYPE_CHECKING

from ragbot.types import Language

if TYPE_CHECKING:
    from opencc import OpenCC

_HAN = "\u3400-\u4dbf\u4e00-\u9fff"
_HAN_CHAR = re.compile(f"[{_HAN}]")

# --- facts -----------------------------------------------------------------------------------

_HAN_NUMBER = re.compile(r"(?:\d[\d,]*(?:\.\d+)?)?[零〇一二两三四五六七八九十百千万亿点]+")
_SCALED = re.compile(r"(\d+(?:\.\d+)?)[ -]?(thousand|million|billion)\b")
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_DIGITS = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
_GAP = "\0"  # stands where something was removed between two digits: "3 12" is not 312


def has_fact(answer: str, forms: Sequence[str]) -> bool:
    """Whether an answer holds one of the accepted forms of a fact.

    Both are compared after NFKC, case folding, Traditional to Simplified, and without spaces and
    punctuation. Numbers are compared as numbers (84, 八十四, "eighty-four"), so 4 is not in 84; a
    form that begins with a Latin letter must begin a word, so "all" is not in "really".
    """
    return any(_holds(answer, form) for form in forms)


def facts_held(answer: str, facts: Sequence[Sequence[str]]) -> list[bool]:
    """For each required fact, whether the answer holds it."""
    return [has_fact(answer, forms) for forms in facts]


def _holds(answer: str, form: str) -> bool:
    form, answer = _plain(form), _plain(answer)
    counted = _counted(form)
    if not any(map(str.isdigit, counted)):
        # 百年 is no number by itself but part of one in 一百年: it is looked for as written.
        return _contains(answer, form)
    # Digits may stand as they are, too: a set that asks for 3000 means the 3000 of 3000万.
    as_written = form.isascii() and _contains(_scaled(answer), form)
    return as_written or _contains(_counted(answer), counted)


def _contains(text: str, form: str) -> bool:
    wanted, (found, starts) = _squeezed(form)[0], _squeezed(text)
    at = found.find(wanted) if wanted else -1
    while at >= 0:
        if _stands_alone(found, starts, at, wanted):
            return True
        at = found.find(wanted, at + 1)
    return False


def _stands_alone(text: str, starts: set[int], at: int, wanted: str) -> bool:
    before, after = text[at - 1 : at], text[at + len(wanted) :][:2]
    if wanted[0].isascii() and wanted[0].isalpha() and at not in starts:
        return False
    if wanted[0].isdigit() and (before.isdigit() or before == "."):
        return False
    more = after[:1].isdigit() or (after[:1] == "." and after[1:].isdigit())
    return not (wanted[-1].isdigit() and more)


def _plain(text: str) -> str:
    """NFKC, folded case, Simplified: a character at a time, so that no context changes it."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(_converted(char, "t2s") for char in folded)


def _counted(text: str) -> str:
    """The text with its numbers in digits, without thousands separators and idle zeros."""
    from text_to_num import alpha2digit

    text = _HAN_NUMBER.sub(lambda match: _han_value(match.group()), text)
    text = _scaled(text)
    if re.search("[a-z]", text):
        text = alpha2digit(text, "en")
    return _DIGITS.sub(lambda match: _digits(float(match.group().replace(",", ""))), text)


def _scaled(text: str) -> str:
    return _SCALED.sub(lambda match: _digits(float(match[1]) * _SCALES[match[2]]), text)


def _han_value(number: str) -> str:
    import cn2an

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _digits(float(cn2an.cn2an(number.replace("两", "二"), "smart")))
        except ValueError:  # 万 in 万能, 百 in 百度: no number
            return number


def _digits(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _squeezed(text: str) -> tuple[str, set[int]]:
    """The letters and digits of a text, and where in that words of Latin letters begin."""
    kept: list[str] = []
    starts: set[int] = set()
    previous = ""
    for at, char in enumerate(text):
        following = text[at + 1 : at + 2]
        point = char == "." and previous.isdigit() and following.isdigit()
        if char.isalnum() or point:
            if char.isdigit() and kept and kept[-1].isdigit() and not _joined(previous):
                kept.append(_GAP)
            if not previous.isalnum() or _HAN_CHAR.match(previous):
                starts.add(len(kept))
            kept.append(char)
        previous = char
    return "".join(kept), starts


def _joined(previous: str) -> bool:
    return previous.isdigit() or previous == "."


@cache
def _converted(char: str, direction: str) -> str:
    return str(_converter(direction).convert(char)) if _HAN_CHAR.match(char) else char


@cache
def _converter(direction: str) -> OpenCC:
    from opencc import OpenCC

    return OpenCC(direction)


# --- exact match and F1 ----------------------------------------------------------------------

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def exact_match(answer: str, reference: str, lang: Language) -> float:
    """1 when the two are the same but for case, punctuation and, in English, articles; else 0.

    Chinese as CMRC 2018 (Cui et al., EMNLP 2019), English as SQuAD (Rajpurkar et al., 2016).
    """
    return float(_tokens(answer, lang) == _tokens(reference, lang))


def f1(answer: str, reference: str, lang: Language) -> float:
    """The overlap of answer and reference, from 0 to 1.

    For English, of their words as bags (SQuAD). For Chinese, the longest run of characters (and of
    whole Latin words) that both have (CMRC 2018): what is scattered does not count.
    """
    given, wanted = _tokens(answer, lang), _tokens(reference, lang)
    if lang == "en":
        common = sum((Counter(given) & Counter(wanted)).values())
    else:
        matcher = SequenceMatcher(None, given, wanted, autojunk=False)
        common = matcher.find_longest_match(0, len(given), 0, len(wanted)).size
    if not given or not wanted:
        return float(given == wanted)
    return 2 * common / (len(given) + len(wanted))


def _tokens(text: str, lang: Language) -> list[str]:
    text = text.lower()
    if lang == "en":
        text = text.translate(str.maketrans("", "", string.punctuation))
        return _ARTICLES.sub(" ", text).split()
    return re.findall(rf"[^\W_{_HAN}]+|[{_HAN}]", text)


# --- language --------------------------------------------------------------------------------

_MOST_HAN_IN_ENGLISH = 0.3  # of the letters: names may be given in the original


def in_language(answer: str, lang: Language) -> bool:
    """Whether an answer is in a language and script, by its letters and by its characters.

    Chinese is in the script of which it has more characters that the other one lacks.
    """
    han: list[str] = _HAN_CHAR.findall(answer)
    if lang == "en":
        letters = len(re.findall("[A-Za-z]", answer)) + len(han)
        return len(han) <= _MOST_HAN_IN_ENGLISH * letters
    # Names and formulas may stand as they are: it is common words that make a text English.
    if len(re.findall(r"\b[a-z]+\b", answer)) >= max(2, len(han)):
        return False
    traditional = sum(_converted(char, "t2s") != char for char in han)
    simplified = sum(_converted(char, "s2t") != char for char in han)
    return traditional >= simplified if lang == "zh-Hant" else simplified >= traditional
