"""What a text is made of: words for lexical search, numbers and names for checking claims.

All of it is found in folded text (see `ragbot.text.fold`), so that both scripts give the same.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragbot.config import default_cache
from ragbot.store import replace_file, sha256
from ragbot.text import HAN, fold, sentences

if TYPE_CHECKING:
    import jieba

_HAN = re.compile(f"[{HAN}]")

_CACHE = "jieba.cache"  # as jieba calls it

# --- words -----------------------------------------------------------------------------------

_RUN = re.compile(rf"[{HAN}]+|[^\W_{HAN}]+(?:[.,]\d+)*")


def words(text: str) -> list[str]:
    """Words for lexical search: jieba's search mode for Chinese, folded words for the rest."""
    found: list[str] = []
    for run in _RUN.findall(fold(text).text):
        found += _jieba().cut_for_search(run) if _HAN.match(run) else [run]
    return found


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


_SCALES = {"千": 3, "万": 4, "亿": 8, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SCALE = re.compile("|".join(_SCALES))
# Scales multiply: 千万, 万亿. Three at most, so that no run of them overflows a float.
_SCALED = re.compile(rf"({_NUMBER.pattern})\s*((?:{_SCALE.pattern}){{1,3}})")


def stated_numbers(text: str) -> set[str]:
    """Numbers in digits and English months, as plain decimals: what a claim must have right.

    A scale counts: 3000万 and 30 million are both 30000000.
    """
    months = {_ENGLISH_NUMBERS[month.lower()] for month in _MONTH.findall(text)}
    plain = _SCALED.sub(_scaled, fold(text).text)
    return months | {_plain(number) for number in _NUMBER.findall(plain)}


def _scaled(match: re.Match[str]) -> str:
    number, scales = match.groups()
    exponent = sum(_SCALES[scale] for scale in _SCALE.findall(scales))
    value = float(number.replace(",", "")) * 10**exponent
    return f" {value:.0f} " if value < 1e15 else match.group()


def mentioned_numbers(text: str) -> set[str]:
    """Every number a text can be read to hold: digits, Chinese numerals, English words, months."""
    folded = fold(text).text
    han = {str(_han_value(run)) for run in _HAN_NUMBER.findall(folded)}
    english = {_ENGLISH_NUMBERS[w] for w in re.findall("[a-z]+", folded) if w in _ENGLISH_NUMBERS}
    bare = {_plain(number) for number in _NUMBER.findall(folded)}  # also without its scale
    return stated_numbers(text) | bare | han | english


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


def topic(text: str) -> list[str]:
    """The nouns a Chinese sentence opens with, folded: what it is about. Empty when unsure."""
    found: list[str] = []
    for word, kind in _tagger().cut(fold(text).text):
        if kind[0] == "n":
            found.append(word)
        elif found:
            # 官方指引: taken for a verb by itself, a noun's second half here.
            found += [word] if kind[0] == "v" and len(word) > 1 else []
            break
        elif kind[0] not in "cdpruxf":  # it opens with something else than a noun
            break
    return found


@contextmanager
def _quiet_import() -> Iterator[None]:
    # jieba's sources hold escapes that Python warns of when it compiles them, on a user's screen.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@cache
def _tagger() -> Any:
    cut = _jieba()
    with _quiet_import():
        from jieba import posseg

    return posseg.POSTokenizer(cut)


@cache
def _jieba() -> jieba.Tokenizer:
    import logging

    with _quiet_import():
        import jieba

    jieba.setLogLevel(logging.CRITICAL)  # that it could not keep its cache is no news to a user
    tokenizer = jieba.Tokenizer()
    _initialize(tokenizer, default_cache())
    return tokenizer


def _initialize(tokenizer: jieba.Tokenizer, folder: Path) -> None:
    """Load jieba's words, from its cache where that is as it was written.

    It is loaded with marshal, which trusts what it reads: a folder that others can write to must
    not hold it, and what was damaged must not be loaded.
    """
    cache, seal = folder / _CACHE, folder / f"{_CACHE}.sha256"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (seal.is_file() and cache.is_file() and seal.read_bytes() == _checksum(cache)):
            cache.unlink(missing_ok=True)
        fresh = not cache.exists()
        tokenizer.tmp_dir = str(folder)
        tokenizer.initialize()
        if fresh and cache.exists():
            replace_file(seal, sha256(cache))
    except OSError:  # nothing can be kept there: it then takes a second each time
        tokenizer.tmp_dir = str(folder / "absent")
        tokenizer.initialize()


def _checksum(path: Path) -> bytes:
    return sha256(path).encode()
