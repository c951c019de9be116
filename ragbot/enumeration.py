"""Things that a document names one by one: "The first barrier is …", paragraphs before the second.

A question for "the three barriers" needs a sentence of each. Retrieval may miss one and a small
model stops at the first, but ordinals that open sentences can be followed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from ragbot.evidence import Evidence, gather
from ragbot.text import fold
from ragbot.types import Chunk, Hit

AROUND = 6  # chunks before and behind the best one, in which the things are looked for
_CLOSE = 4  # characters between neighbouring paragraphs

_COUNTS = {
    "两": 2, "二": 2, "三": 3, "四": 4, "2": 2, "3": 3, "4": 4, "two": 2, "three": 3, "four": 4,
}  # fmt: skip
_COUNTED = re.compile(
    r"(?<![第\d零〇一二三四五六七八九十百千])(?P<han>[两二三四2-4])"
    r"(?P<measure>个(?!月|小时|星期|世纪)|种|把|项|家|大|道|位(?!数)|名|座|部|条|类|点(?!钟)|者|款)"
    r"|(?<!\w)(?:which|what|name|list|are)(?: (?:are|were|the|its|their))*"
    r" (?P<english>two|three|four)\b"
)
_ANY = frozenset("个种项大类点")  # measures of whatever there is


class Asked(NamedTuple):
    """How many things a question asks to be named, 1 when it does not say, and the Chinese measure
    that it counts them by; empty where that is of any thing."""

    things: int
    measure: str = ""


def asked_for(question: str) -> Asked:
    """What a question asks to be named: "the three barriers"."""
    found = _COUNTED.search(fold(question).text)
    if not found:
        return Asked(1)
    return Asked(_COUNTS[found["han"] or found["english"]], _specific(found["measure"] or ""))


def _specific(measure: str) -> str:
    return "" if measure in _ANY else measure


_ORDINALS = {
    "一": 1, "二": 2, "三": 3, "四": 4, "1": 1, "2": 2, "3": 3, "4": 4,
    "头一": 1, "首": 1, "首先": 1, "其次": 2, "再次": 3,
    "first": 1, "second": 2, "third": 3, "fourth": 4,
}  # fmt: skip
_OPENING = re.compile(
    r"\W*(?:(?:第|其)(?P<counted>[一二三四1-4])|(?P<named>头一|首(?=[个项大]))"
    r"|(?P<plain>首先|其次|再次))(?P<measure>\w?)"
    r"|\W*(?:the |a )?(?P<english>first|second|third|fourth)(?:ly)?\b(?: (?P<thing>\w+))?"
)


def enumerated(asked: Asked, hit: Hit, around: Sequence[Chunk]) -> list[Evidence]:
    """The sentences that open with the ordinals from the first to the last asked for, in order,
    close to the passage of `hit`; none when they are not so many, or more, or of another kind: two
    companies are not two swords.

    `around` are the chunks around it, in order.
    """
    near = [Hit(hit.rank, hit.score, chunk) for chunk in around if chunk.doc == hit.doc]
    opened = [
        (thing, ordinal, piece) for piece in gather(near) for thing, ordinal in _opened(piece)
    ]
    opened.sort(key=lambda one: one[0])  # stable: each thing's ordinals stay in reading order
    for thing, run in groupby(opened, key=lambda one: one[0]):
        found = list(run)
        if asked.measure and _specific(thing) not in ("", asked.measure):
            continue
        if [ordinal for _, ordinal, _ in found] == list(range(1, asked.things + 1)):
            pieces = [piece for _, _, piece in found]
            # Before and behind them stand what announces them and what sums them up.
            if pieces[0].start - hit.end <= _CLOSE and hit.start - pieces[-1].hit.end <= _CLOSE:
                return pieces
    return []


def _opened(piece: Evidence) -> list[tuple[str, int]]:
    """Of what thing a sentence opens with an ordinal, and which, if it does."""
    match = _OPENING.match(fold(piece.text).text)
    if not match:
        return []
    said = match["counted"] or match["named"] or match["plain"] or match["english"]
    thing = "" if match["plain"] else match["thing"] or match["measure"] or ""
    return [(thing, _ORDINALS[said])]
