"""Questions to begin with, and to go on with: made from the corpus, and checked by being asked.

The generator writes a question for a passage; it is kept where the bot answers it and cites that
very paragraph, in each language and script for itself. What to ask next is looked up among these,
without a generator. When all this is done is for the caller to say: it takes minutes.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ragbot.bot import RagBot
from ragbot.encoder import Encoder
from ragbot.errors import StoreError
from ragbot.index import Index
from ragbot.looks import weight
from ragbot.store import replace_file
from ragbot.text import fold
from ragbot.types import Answer, Chunk, Language
from ragbot.web.posing import phrasings, stands_alone

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Start:
    """A question that the corpus is known to answer, and the paragraph that holds the answer."""

    question: str
    language: Language
    doc: str
    paragraph: int


# --- making them -----------------------------------------------------------------------------

_LEAST, _MOST = 25.0, 400.0  # tokens, about, of a passage that is asked about
_SEEN = 20_000  # chunks of a large corpus from which they are chosen
_TRIES = 2  # passages for one that gives a question


def make_starts(
    bot: RagBot,
    *,
    passages: int = 8,
    cancel: threading.Event,
    pause: Callable[[], None] = lambda: None,
) -> tuple[Start, ...]:
    """Questions for so many passages, or fewer where fewer give any; none once `cancel` is set.

    `pause` is called between two questions, so that others' can be answered there. Raises
    ModelError.
    """
    made: list[Start] = []
    given = 0
    for passage in islice(chosen(bot.retriever.index), passages * _TRIES):
        found = starts_for(bot, passage, cancel=cancel, pause=pause)
        if cancel.is_set():
            return ()
        made += found
        given += bool(found)
        if given == passages:
            break
    return tuple(made)


def starts_for(
    bot: RagBot,
    passage: Chunk,
    *,
    cancel: threading.Event,
    pause: Callable[[], None] = lambda: None,
) -> tuple[Start, ...]:
    """A question about one passage, in each language in which the bot answers it from there.

    None once `cancel` is set. Raises ModelError.
    """
    found = []
    leads_back: dict[str, bool] = {}  # what both scripts write alike is asked once
    for question, language in phrasings(bot.engine, passage, cancel):
        if question not in leads_back:
            pause()
            if cancel.is_set():
                return ()
            answer = bot.stream(question, cancel=cancel).answer
            places = {(citation.doc, citation.paragraph) for citation in answer.citations}
            here = (passage.doc, passage.paragraph) in places
            leads_back[question] = here and not answer.abstained
        if leads_back[question]:
            found.append(Start(question, language, passage.doc, passage.paragraph))
    return () if cancel.is_set() else tuple(found)


def chosen(index: Index) -> Iterator[Chunk]:
    """Passages that a question can be made of, every beginning of them spread over the documents
    and over each document."""
    documents: dict[str, dict[int, Chunk]] = {name: {} for name in index.documents}
    for chunk in index.chunks[:: max(1, len(index.chunks) // _SEEN)]:
        if _LEAST <= weight(chunk.text) <= _MOST:
            documents[chunk.doc].setdefault(chunk.paragraph, chunk)
    rows = []
    for number, found in enumerate(_spread(list(documents.values()))):
        chunks = list(found.values())
        first = int(math.modf(number * 0.618)[0] * len(chunks))  # not all from their beginnings
        rows.append(_spread(chunks[first:] + chunks[:first]))
    for turn in zip_longest(*rows):
        yield from (chunk for chunk in turn if chunk is not None)


def _spread(items: Sequence[T]) -> list[T]:
    """The items, in the order of their numbers' bits read backwards: halves, then quarters."""
    bits = max(1, (len(items) - 1).bit_length())
    order = sorted(range(len(items)), key=lambda number: f"{number:0{bits}b}"[::-1])
    return [items[number] for number in order]


# --- keeping them ----------------------------------------------------------------------------

_FILE = "starts.json"


def save_starts(folder: Path, index: Index, starts: Sequence[Start]) -> None:
    """Keep the questions beside the index in `folder`, all at once. Raises StoreError."""
    kept = {"made_for": _made_for(index), "starts": [asdict(start) for start in starts]}
    try:
        replace_file(folder / _FILE, json.dumps(kept, ensure_ascii=False, indent=1))
    except OSError as error:
        raise StoreError(
            f"The example questions cannot be kept in {folder} ({error.strerror or error}): make it"
            " writable, or they are made anew at each start."
        ) from error


def saved_starts(folder: Path, index: Index) -> tuple[Start, ...] | None:
    """The questions kept for this very index; None when there are none, or for another one."""
    from pydantic import TypeAdapter, ValidationError

    try:
        kept = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        if kept["made_for"] != _made_for(index):
            return None
        starts = TypeAdapter(tuple[Start, ...]).validate_python(kept["starts"])
    except (OSError, ValueError, TypeError, KeyError, ValidationError):
        return None  # they can always be made anew
    good = all(stands_alone(start.question, start.language) for start in starts)
    return starts if good else None


def _made_for(index: Index) -> dict[str, str]:
    manifest = index.manifest
    return {"corpus": manifest.corpus_fingerprint, "encoder": manifest.encoder_fingerprint}


# --- what to ask next ------------------------------------------------------------------------


def suggestions(
    starts: Sequence[Start],
    answer: Answer,
    asked: Collection[str],
    encoder: Encoder,
    limit: int = 3,
) -> tuple[str, ...]:
    """The prepared questions nearest to what was just answered, in the asker's language and script.

    None that was asked before, and none about a paragraph that the answer cites: that was read.
    """
    known = {_key(question) for question in (*asked, answer.question, *answer.queries)}
    read = {(citation.doc, citation.paragraph) for citation in answer.citations}
    open_ones = [
        number
        for number, start in enumerate(starts)
        if start.language == answer.language
        and (start.doc, start.paragraph) not in read
        and _key(start.question) not in known
    ]
    if not open_ones:
        return ()
    vectors = _vectors(cast(Any, encoder), tuple(start.question for start in starts))
    near = vectors @ encoder.queries([next(iter(answer.queries), answer.question)])[0]
    best = sorted(open_ones, key=lambda number: -float(near[number]))
    return tuple(dict.fromkeys(starts[number].question for number in best))[:limit]


@lru_cache(maxsize=2)
def _vectors(encoder: Encoder, questions: tuple[str, ...]) -> NDArray[float32]:
    return encoder.queries(questions)


def _key(question: str) -> str:
    return "".join(filter(str.isalnum, fold(question).text))
