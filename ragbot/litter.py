"""Which lines at the head or the tail of a copied web page are its furniture, and not its text.

The rule is structural. At either end of a text there may be a run of short lines without the
punctuation of sentences. Within it the litter begins (at the tail) or ends (at the head) with the
first line that no author writes: a lone symbol, a bare counter, a button, a line said twice. It is
acted on only when the run is long and has several such lines, for losing text is far worse than
keeping litter.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

_SHORT = 40  # characters; titles of related pages are not much longer
_SENTENCE_END = re.compile(r"[。！？；!?;:：,，、…]$|\.$")
_LEAST_RUN = 5
_LEAST_FURNITURE = 3
_MOST_LOST = 0.5  # of the text's characters

# What no author writes as a line of its own, by kind. Counters alone prove nothing: the end of a
# recipe or of a price list looks just like them. So there must be another kind beside them.
_COUNTER = re.compile(
    r"[\W_]*\d[\d,.]*\s*[kKmMwW万萬]?\+?\s*[^\W\d_]{0,12}[\W_]*"  # 87文章, 273614 -, 12 Comments
    r"|[^\W\d_]{1,12}\s*[(（]\s*\d[\d,.]*\s*[)）]"  # Share (3)
)
_NO_WORDS = re.compile(r"[\W_]+")
_BUTTON = re.compile(r"[+＋×✕»›▶►↑←→❤♥👍★☆#＃|]\s*\S{1,12}|\S{1,12}\s*[»›▶►↑→▼]")
_LEAST_KINDS = 2


def litter_lines(lines: Sequence[str]) -> dict[int, str]:
    """The numbers (from 0) of the lines to leave out, with the reason for each."""
    tail = _run(lines, range(len(lines) - 1, -1, -1))
    head = _run(lines, range(len(lines))) if len(tail) < len(lines) else []
    litter = {
        **{n: "page furniture after the text" for n in _trimmed(lines, tail[::-1])},
        **{n: "page furniture before the text" for n in _trimmed(lines, head, from_end=True)},
    }
    lost = sum(len(lines[n]) for n in litter)
    return litter if lost <= _MOST_LOST * sum(map(len, lines)) else {}


def _run(lines: Sequence[str], order: range) -> list[int]:
    run = []
    for number in order:
        line = lines[number].strip()
        if len(line) > _SHORT or _SENTENCE_END.search(line):
            break
        run.append(number)
    return run


def _trimmed(lines: Sequence[str], run: Sequence[int], *, from_end: bool = False) -> list[int]:
    """The litter of a run, in order: from its first furniture on, or up to its last."""
    said = Counter(lines[number].strip() for number in run)
    kinds = {number: _kind(lines[number].strip(), said) for number in run}
    furniture = [number for number in run if kinds[number]]
    if len(furniture) < _LEAST_FURNITURE or len({*kinds.values()} - {""}) < _LEAST_KINDS:
        return []
    first, last = (run[0], furniture[-1]) if from_end else (furniture[0], run[-1])
    litter = [number for number in run if first <= number <= last]
    return litter if len(litter) >= _LEAST_RUN else []


def _kind(line: str, said: Counter[str]) -> str:
    if _NO_WORDS.fullmatch(line):
        return "symbols"
    if _COUNTER.fullmatch(line):
        return "counter"
    if _BUTTON.fullmatch(line):
        return "button"
    return "repeated" if said[line] > 1 else ""
