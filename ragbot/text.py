"""What ragbot knows about writing: language and script, sentences, folding.

Everything here is a pure function of a string. Offsets are always into the string as given, so
that what is matched in folded form can be shown exactly as it was written.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from ragbot.types import Language

if TYPE_CHECKING:
    from opencc import OpenCC

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_HAN = re.compile(f"[{HAN}]")
_LATIN_WORD = re.compile(r"[A-Za-zÀ-ɏ]+(?:['’][A-Za-z]+)?")
_ENGLISH_FRAME = frozenset(
    "a an and are at by can could did do does for from had has have how in is it many much of on or"
    " please should tell than that the their there they this to was were what when where which"
    " who whom whose why will with would".split()
)
# Characters that hold a Chinese sentence together, in either script.
_CHINESE_FRAME = re.compile(
    "[的了是在有和与與及吗嗎呢什么麼哪谁誰何怎这這那不也都把被就会會对對从從由于於以为為]"
)
_QUOTED = re.compile("「[^「」]*」|『[^『』]*』|《[^《》]*》|“[^“”]*”")


# --- language and script ---------------------------------------------------------------------


def detect_language(text: str, default: Language = "zh-Hans") -> Language:
    """The language a reader wrote in. `default` decides only what the characters leave open.

    English terms inside a Chinese question, and Chinese names inside an English one, do not turn
    it: the small words that hold a sentence together do.
    """
    if is_english(text, default):
        return "en"
    return detect_script(text, "zh-Hant" if default == "zh-Hant" else "zh-Hans")


def is_english(text: str, default: Language = "zh-Hans") -> bool:
    """Whether `detect_language` says "en"; several times as fast as to ask it."""
    if not _HAN.search(text):
        return bool(_LATIN_WORD.search(text)) or default == "en"
    bare = _QUOTED.sub("", text)
    words = [word.lower() for word in _LATIN_WORD.findall(bare)]
    framed = sum(word in _ENGLISH_FRAME for word in words)
    if framed < 2:
        return framed > 0 and len(words) > len(_HAN.findall(bare))
    return framed > len(_CHINESE_FRAME.findall(bare))


def detect_script(text: str, default: Language = "zh-Hans") -> Language:
    """Traditional or Simplified, by the characters that only one of the two scripts uses."""
    only_traditional = _changed(text, "t2s")
    only_simplified = _changed(text, "s2t")
    if only_traditional == only_simplified:
        return default
    return "zh-Hant" if only_traditional > only_simplified else "zh-Hans"


def across(one: Language, other: Language) -> bool:
    """Whether two languages differ in more than the script."""
    return (one == "en") != (other == "en")


def to_language(text: str, language: Language) -> str:
    """Chinese text in the reader's script; a text that is already in it is left as it is."""
    if language == "en" or not _HAN.search(text) or detect_script(text, language) == language:
        return text
    if language == "zh-Hans":
        return str(_opencc("t2s").convert(text))
    # s2tw and not s2t: s2t writes 爲 and 裏, which no reader of Traditional news expects.
    return _ONLY.sub("多只", _opencc("s2tw").convert(text))


_ONLY = re.compile("多隻(?=[能是有會可得要需在剩])")  # 最多只能: OpenCC counts animals in it


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


def asks(text: str) -> bool:
    """Whether a text ends as a question does."""
    return fold(text.rstrip()[-1:]).text == "?"


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
