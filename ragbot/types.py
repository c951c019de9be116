"""The records that travel through ragbot: documents in, hits and cited answers out.

Every record is frozen and holds plain values, so it can be compared, copied, pickled and printed.
Nothing is computed here beyond a name for a part of a record, and nothing of ours is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Language = Literal["zh-Hant", "zh-Hans", "en"]
Role = Literal["system", "user", "assistant"]
Progress = Callable[[int, int], None]
"""Told (done, total) while a long piece of work goes on."""


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A paragraph's place in its document: `document.text[start:end]`, numbered from 1."""

    number: int
    start: int
    end: int
    headings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A piece of a file that was not kept, and the reason, in words for the reader."""

    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class Document:
    """A file as the reader may see it. `name` is its path relative to the corpus, with slashes."""

    name: str
    title: str
    text: str
    paragraphs: tuple[Paragraph, ...]
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """What is embedded and retrieved: a paragraph, or a run of sentences of an over-long one.

    `document.text[start:end] == text` holds for the document named `doc`.
    """

    doc: str
    paragraph: int
    start: int
    end: int
    text: str
    headings: tuple[str, ...] = ()

    @property
    def passage(self) -> str:
        """The text that is encoded and searched: the headings say what the paragraph is about."""
        return "\n".join((*self.headings, self.text))


@dataclass(frozen=True, slots=True)
class Hit:
    """A retrieved chunk. `rank` counts from 1; `score` is comparable within one search only."""

    rank: int
    score: float
    chunk: Chunk

    @property
    def doc(self) -> str:
        return self.chunk.doc

    @property
    def paragraph(self) -> int:
        return self.chunk.paragraph

    @property
    def start(self) -> int:
        return self.chunk.start

    @property
    def end(self) -> int:
        return self.chunk.end

    @property
    def text(self) -> str:
        return self.chunk.text


Rerank = Callable[[str, Sequence[Hit]], Sequence[Hit]]
"""Given a question and its hits, gives the hits as they rank then."""


Stage = Literal["searching", "reading", "telling"]


@dataclass(frozen=True, slots=True)
class Step:
    """What is being done for a question; of "reading", also which passages are read, and which of
    their sentences comes nearest, if any comes near: it proves nothing yet."""

    stage: Stage
    passages: tuple[Hit, ...] = ()
    nearest: Citation | None = None


Watch = Callable[[Step], None]
"""Told what is being done while an answer is under way."""


@dataclass(frozen=True, slots=True)
class Citation:
    """The proof of a sentence: marker `[n]` stands for `quote`, `document.text[start:end]`."""

    marker: int
    doc: str
    paragraph: int
    start: int
    end: int
    quote: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation, as chat models take it."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Token:
    """A token that was written, and the likeliest in its place with their log probabilities."""

    text: str
    likeliest: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that one generation read (cached ones included) and wrote.

    `tokens` are those written; it is empty where an engine gives no probabilities.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    tokens: tuple[Token, ...] = ()
    reused_tokens: int = 0
    """Of those read, what was in a cache."""


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds from the question's arrival; `ttft_ms` is the time to the first shown text."""

    retrieval_ms: float
    ttft_ms: float
    total_ms: float
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reused_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer with everything needed to check it."""

    question: str
    language: Language
    answer: str
    abstained: bool
    citations: tuple[Citation, ...]
    passages: tuple[Hit, ...]
    timings: Timings
    confidence: float = 0.0
    """How sure, from 0 to 1, that the documents hold the answer."""
    related: tuple[Citation, ...] = ()
    """Of a refusal: what comes nearest, which proves nothing."""
    queries: tuple[str, ...] = ()
    """What was searched for: the question, so that it stands alone, and its translation, if any."""
    signals: Mapping[str, float] = field(default_factory=dict, compare=False)
    """What `confidence` was computed from."""
    raw: str = field(default="", compare=False)

    @property
    def text(self) -> str:
        """The answer itself, with its markers."""
        return self.answer


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a health report; `remedy` is empty when all is well."""

    subject: str
    state: str
    remedy: str = ""
