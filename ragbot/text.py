"""What ragbot knows about writing: language and script, sentences, folding, words.

Everything here is a pure function of a string. Offsets are always into the string as given, so
that what is matched in folded form can be shown exactly as it was written.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from ragbot.config import default_cache
from ragbot.types import Language

if TYPE_CHECKING:
    import jieba
    from opencc import OpenCC

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_HAN = re.compile(f"[{HAN}]")
_LATIN_WORD = re.compile(r"[A-Za-zÀ-ɏ]+(?:['’][A-Za-z]+)?")
_ENGLISH_FRAME = frozenset(
    "a an and are at by can could did do does for from had has have how in is it many much of on or"
    " please should tell than that the their there they this to was were what when where which"
    " who whom whose why will with would".split()
)


# --- language and script ---------------------------------------------------------------------


def detect_language(text: str, default: Language = "zh-Hans") -> Language:
    """The language a reader wrote in. `default` decides only what the characters leave open.

    English terms inside a Chinese question, and Chinese names inside an English one, do not turn
    it: the small words that hold a sentence together do.
    """
    han = len(_HAN.findall(text))
    words = [word.lower() for word in _LATIN_WORD.findall(text)]
    if not han:
        return "en" if words or default == "en" else default
    framed = sum(word in _ENGLISH_FRAME for word in words)
    if framed >= 2 or (framed and len(words) > han):
        return "en"
    return detect_script(text, "zh-Hant" if default == "zh-Hant" else "zh-Hans")


def detect_script(text: str, default: Language = "zh-Hans") -> Language:
    """Traditional or Simplified, by the characters that only one of the two scripts uses."""
    only_traditional = _changed(text, "t2s")
    only_simplified = _changed(text, "s2t")
    if only_traditional == only_simplified:
        return default
    return "zh-Hant" if only_traditional > only_simplified else "zh-Hans"


def to_language(text: str, language: Language) -> str:
    """Chinese text in the reader's script; a text that is already in it is left as it is."""
    if language == "en" or not _HAN.search(text) or detect_script(text, language) == language:
        return text
    # s2tw and not s2t: s2t writes 爲 and 裏, which no reader of Traditional news expects.
    return str(_opencc("s2tw" if language == "zh-Hant" else "t2s").convert(text))


def _changed(text: str, direction: str) -> int:
    return sum(_converted(char, direction) != char for char in text)


@cache
def _converted(char: str, direction: str) -> str:
    return str(_opencc(direction).convert(char)) if _HAN.match(char) else char


@cache
def _opencc(direction: str) -> OpenCC:
    from opencc import OpenCC

    return OpenCC(direction)


# --- sentences -------------------------------------------------------------------------------

_CLOSERS = "\"'”’」』）》】〕)］]*_"
_END = re.compile(
    rf"[。！？]+[{re.escape(_CLOSERS)}]*"  # Chinese: ends wherever it stands
    rf"|[.!?]+[{re.escape(_CLOSERS)}]*(?=\s|$|[{HAN}「『“])"  # Latin: before a gap or Chinese
    r"|\n\s*\n|\n(?=\s*(?:[-*+•|>]|\d{1,3}[.)])\s?)"  # blank line, next list item
)
_ABBREVIATION = re.compile(
    r"(?<![A-Za-z])(?:[A-Za-z]|Mr|Mrs|Ms|Dr|Prof|Sr|Jr|St|Mt|Gen|Col|Lt|Sgt|Capt|Rev|Hon|Gov|Sen"
    r"|Rep|Pres|vs|etc|cf|al|approx|ca|Fig|Figs|Eq|No|Nos|Vol|pp|Ch|Sec|Inc|Ltd|Co|Corp|Jan|Feb|Mar"
    r"|Apr|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec|(?:[A-Za-z]\.)+[A-Za-z])$"
)
_CONTINUES = re.compile(r"\s*[,，、；;：:a-z)）]")


def sentences(text: str) -> list[tuple[int, int]]:
    """Spans of the sentences, in order, without white space at their ends.

    Between them the spans leave out white space only. A text without a full stop is one sentence.
    """
    spans = []
    start = 0
    for match in _END.finditer(text):
        if not _is_boundary(text, start, match):
            continue
        spans.append((start, match.end()))
        start = match.end()
    spans.append((start, len(text)))
    return [span for span in (stripped(text, *span) for span in spans) if span[0] < span[1]]


def _is_boundary(text: str, start: int, match: re.Match[str]) -> bool:
    mark = match.group()
    if mark[0] == "\n":
        return True
    after = text[match.end() : match.end() + 20]
    if mark[0] in "。！？":
        # 「好。」他說: the quotation is over, but its frame goes on only after a comma or the like.
        return not re.match(r"[，、；：,;]", after)
    if mark[0] == "." and _ABBREVIATION.search(text, max(start, match.start() - 12), match.start()):
        return not after.strip()
    return not _CONTINUES.match(after)


def stripped(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without the white space at its ends."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


# --- folding ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Folded:
    """A text without differences of width, case and script. `origin[i]` is where `text[i]` was."""

    text: str
    origin: tuple[int, ...]

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The span of the text as written that `text[start:end]` came from."""
        return self.origin[start], self.origin[end - 1] + 1


def fold(text: str) -> Folded:
    """NFKC, case folding and Traditional to Simplified, a character at a time with its origin."""
    folded = [_fold_char(char) for char in text]
    origin = tuple(index for index, chars in enumerate(folded) for _ in chars)
    return Folded("".join(folded), origin)


@cache
def _fold_char(char: str) -> str:
    plain = unicodedata.normalize("NFKC", char).casefold()
    return "".join(_converted(part, "t2s") for part in plain)


# --- numbers ---------------------------------------------------------------------------------

_DIGITS = {char: value for value, char in enumerate("零一二三四五六七八九")} | {"两": 2, "〇": 0}
_UNITS = {"十": 10, "百": 100, "千": 1000}
_HAN_NUMBER = re.compile(r"[零〇一二两三四五六七八九十百千]+")
_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
_ENGLISH_NUMBERS = {
    word: str(value)
    for names, first in (
        (
            "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
            " fifteen sixteen seventeen eighteen nineteen twenty",
            0,
        ),
        ("first second third fourth fifth sixth seventh eighth ninth tenth", 1),
        (
            "january february march april may june july august september october november december",
            1,
        ),
    )
    for value, word in enumerate(names.split(), start=first)
} | {
    word: str(10 * n)
    for n, word in enumerate(
        "thirty forty fifty sixty seventy eighty ninety hundred".split(), start=3
    )
}


_MONTH = re.compile(
    r"\b(?:January|February|March|April|May|June|July|August|September|October|November|December)\b"
)


def stated_numbers(text: str) -> set[str]:
    """Numbers in digits and English months, as plain decimals: what a claim must have right."""
    months = {_ENGLISH_NUMBERS[month.lower()] for month in _MONTH.findall(text)}
    return months | {_plain(number) for number in _NUMBER.findall(fold(text).text)}


def mentioned_numbers(text: str) -> set[str]:
    """Every number a text can be read to hold: digits, Chinese numerals, English words, months."""
    folded = fold(text).text
    han = {str(_han_value(run)) for run in _HAN_NUMBER.findall(folded)}
    english = {_ENGLISH_NUMBERS[w] for w in re.findall("[a-z]+", folded) if w in _ENGLISH_NUMBERS}
    return stated_numbers(text) | han | english


def _plain(number: str) -> str:
    number = number.replace(",", "")
    whole, _, fraction = number.partition(".")
    fraction = fraction.rstrip("0")
    return (whole.lstrip("0") or "0") + (f".{fraction}" if fraction else "")


def _han_value(run: str) -> int:
    if not any(char in _UNITS for char in run):  # read digit by digit, as years are: 二〇二三
        return int("".join(str(_DIGITS[char]) for char in run))
    total, digit = 0, 0
    for char in run:
        if char in _UNITS:
            total += (digit or 1) * _UNITS[char]
            digit = 0
        else:
            digit = _DIGITS[char]
    return total + digit


# --- words -----------------------------------------------------------------------------------

_RUN = re.compile(rf"[{HAN}]+|[^\W_{HAN}]+(?:[.,]\d+)*")


def words(text: str) -> list[str]:
    """Words for lexical search: jieba's search mode for Chinese, folded words for the rest."""
    return [word for word, _, _ in spans_of_words(fold(text).text)]


def spans_of_words(folded: str) -> list[tuple[str, int, int]]:
    """Words of a folded text, with their spans in it."""
    found: list[tuple[str, int, int]] = []
    for match in _RUN.finditer(folded):
        run, at = match.group(), match.start()
        if _HAN.match(run):
            cut = _jieba().tokenize(run, mode="search")
            found += [(word, at + start, at + end) for word, start, end in cut]
        else:
            found.append((run, at, match.end()))
    return found


# --- names -----------------------------------------------------------------------------------

_NAME = re.compile(r"(?<![A-Za-z0-9.])[A-Z][A-Za-z0-9'’-]*[A-Za-z0-9]")
_PROPER = ("nr", "ns", "nt")  # people, places, organisations


def names(text: str) -> set[str]:
    """The proper names in a text, folded, as far as capitals and jieba's word classes show them."""
    starts = {start for start, _ in sentences(text)}
    latin = {m.group() for m in _NAME.finditer(text) if m.start() not in starts}
    han = {
        word
        for run in re.findall(f"[{HAN}]+", fold(text).text)
        for word, kind in _tagger().cut(run)
        if kind in _PROPER and len(word) > 1
    }
    return {fold(name).text for name in latin} | han


@cache
def _tagger() -> Any:
    from jieba import posseg

    return posseg.POSTokenizer(_jieba())


@cache
def _jieba() -> jieba.Tokenizer:
    import logging

    import jieba

    jieba.setLogLevel(logging.WARNING)
    tokenizer = jieba.Tokenizer()
    # jieba loads its cache with marshal: a folder that others can write to must not hold it.
    folder = default_cache()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.tmp_dir = str(folder)
    return tokenizer
