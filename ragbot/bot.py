"""The story of one question: retrieve, write, prove, answer.

Nothing is shown before it is proven: the text streams a sentence at a time, each with the markers
of the quotations that support it, and what nothing supports is left out.
"""

from __future__ import annotations

import re
import threading
import time
import unicodedata
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

from ragbot import prompts, retelling
from ragbot.citations import Citer, gather, stream_sentences
from ragbot.config import Config, load_config
from ragbot.engines import Engine
from ragbot.errors import ConfigError
from ragbot.retriever import PERFECT, UNRELATED, Retriever
from ragbot.streaming import AnswerStream, Written
from ragbot.text import across, detect_language, detect_script
from ragbot.types import Answer, Hit, Language, Message, Timings
from ragbot.workspace import (
    Report,
    current_index,
    default_encoder,
    default_engine,
    default_reranker,
    require_corpus,
    silent,
)

LONGEST_QUESTION = 2000  # characters; what is longer is a document, not a question

_FIRST_LOOK, _SECOND_LOOK = 4, 2  # sentences


class RagBot:
    """Answers questions from an index. Build one with `RagBot.from_corpus`."""

    def __init__(
        self,
        retriever: Retriever,
        engine: Callable[[], Engine],
        *,
        top_k: int = 4,
        max_tokens: int = 320,
        context: int = 4096,
    ):
        self.retriever = retriever
        self._open_engine = engine
        self._engine: Engine | None = None
        self._opening = threading.Lock()
        self._top_k = top_k
        self._max_tokens = max_tokens
        self._context = context

    @classmethod
    def from_corpus(
        cls,
        corpus: str | Path | None = None,
        *,
        config: Config | None = None,
        report: Report = silent,
    ) -> RagBot:
        """A bot over a file or a folder, whose index is built if need be and kept in the cache.

        Without `corpus`, over the configured one. Raises ConfigError, CorpusError, StoreError,
        ModelError.
        """
        config = config or load_config()
        if corpus is not None:
            config = config.model_copy(update={"corpus": Path(corpus)})
        require_corpus(config)
        reranker = default_reranker(config)  # first: what is wrong with it shows at once
        encoder = default_encoder(config, report)
        return cls(
            Retriever(current_index(config, encoder, report), encoder, rerank=reranker),
            lambda: default_engine(config, report),
            top_k=config.top_k,
            max_tokens=config.max_tokens,
            context=config.context,
        )

    @property
    def engine(self) -> Engine:
        """The generator, loaded when it is first needed: searching does without it."""
        with self._opening:
            if self._engine is None:
                self._engine = self._open_engine()
            return self._engine

    def search(self, question: str, *, top_k: int | None = None) -> list[Hit]:
        """The passages that bear on a question, best first. Raises ConfigError for a bad one."""
        return self.retriever.search(checked(question), limit=top_k or self._top_k)

    def ask(self, question: str, *, history: Sequence[Message] = ()) -> Answer:
        """The finished answer. Raises ConfigError for a bad question, ModelError."""
        return self.stream(question, history=history).answer

    def stream(
        self,
        question: str,
        *,
        history: Sequence[Message] = (),
        cancel: threading.Event | None = None,
    ) -> AnswerStream:
        """The answer as it is proven, sentence by sentence. Raises as `ask` does.

        Closing the stream, or setting `cancel`, stops the generator; a cancelled answer ends with
        what was proven by then.
        """
        return AnswerStream(self._answer(checked(question), tuple(history), cancel))

    def _answer(
        self, question: str, history: tuple[Message, ...], cancel: threading.Event | None
    ) -> Generator[str, None, Answer]:
        clock = _Clock()
        query = standalone(question, history)
        hits = self.retriever.search(query, limit=self._top_k)
        language = _language(question, history, hits)
        # In a mixed corpus, the best passage's language is the one that is answered from.
        source = detect_language(hits[0].text, language) if hits else language
        foreign = across(source, language)
        retrieval_ms = clock.ms()
        written, shown, ttft_ms = Written(), "", 0.0
        citer = Citer(question, language, gather(hits), self._similarity(hits))
        asked = question
        if foreign:
            asked, citer.language = prompts.in_words_of_the_source(question, source), source
            citer.retell = self._reteller(question, language, written, cancel)
        room = self._context - self._max_tokens
        for passages in self._looks(query, hits, foreign=foreign):
            messages = prompts.answer_messages(asked, citer.language, passages, history, room)
            reply = self.engine.stream(messages, max_tokens=self._max_tokens, cancel=cancel)
            for piece in _proven(stream_sentences(written.kept(reply)), citer, language):
                ttft_ms = ttft_ms or clock.ms()
                shown += piece
                yield piece
            if shown or prompts.refuses(written.text) or (cancel and cancel.is_set()):
                break
        if not shown:
            ttft_ms = clock.ms()
            yield prompts.ABSTENTION[language]
        return Answer(
            question=question,
            language=language,
            answer=shown or prompts.ABSTENTION[language],
            abstained=not shown,
            citations=tuple(citer.citations),
            passages=tuple(hits),
            timings=Timings(retrieval_ms, ttft_ms, clock.ms(), *written.tokens),
            confidence=_confidence(hits),
            raw=written.text,
        )

    def _looks(self, query: str, hits: Sequence[Hit], *, foreign: bool) -> Iterator[Sequence[Hit]]:
        """What the generator is shown: the passages, or of another language the sentences that bear
        most on the question; when nothing it wrote could be proven, still fewer sentences."""
        yield self.retriever.focus(query, hits, limit=_FIRST_LOOK) if foreign else hits
        yield self.retriever.focus(query, hits, limit=_SECOND_LOOK)

    def _reteller(
        self,
        question: str,
        language: Language,
        written: Written,
        cancel: threading.Event | None,
    ) -> Callable[[str], str]:
        """Tells what was proven in the sources' language in the asker's."""

        def retell(claim: str) -> str:
            if not across(detect_language(claim), language):
                return claim
            messages = retelling.messages(question, claim, language)
            reply = self.engine.stream(messages, max_tokens=self._max_tokens, cancel=cancel)
            return retelling.retold("".join(written.kept(reply)), question, claim, language)

        return retell

    def _similarity(self, hits: Sequence[Hit]) -> Callable[[str], Sequence[float]]:
        """Cosines of a claim with the sentences of the hits, by the vectors the index holds."""
        index, encoder = self.retriever.index, self.retriever.encoder

        def cosines(claim: str) -> Sequence[float]:
            vector = encoder.queries([claim])[0]
            return [
                float(cosine) for hit in hits for cosine in index.sentences_of(hit.chunk) @ vector
            ]

        return cosines


def checked(question: str) -> str:
    """The question without white space around it. Raises ConfigError when it cannot be one."""
    question = question.strip()
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in re.sub(r"\s", "", question)):
        raise ConfigError("The question holds control characters: type it anew as plain text.")
    if not any(char.isalnum() for char in question):
        raise ConfigError("The question is empty: ask it in words.")
    if len(question) > LONGEST_QUESTION:
        raise ConfigError(
            f"The question has {len(question):,} characters: shorten it to {LONGEST_QUESTION:,}, "
            "and give a long text as the corpus instead."
        )
    return question


def standalone(question: str, history: Sequence[Message]) -> str:
    """The question as it is searched for, understood without the talk before it."""
    # A follow-up names its subject in an earlier turn; the last question is searched with it.
    asked = [message.content for message in history if message.role == "user"]
    return f"{asked[-1]} {question}" if asked else question


def _confidence(hits: Sequence[Hit]) -> float:
    """The best passage's score between what the unrelated get and the most that can be had."""
    best = max((hit.score for hit in hits), default=UNRELATED)
    return round(min(1.0, max(0.0, (best - UNRELATED) / (PERFECT - UNRELATED))), 3)


def _language(question: str, history: Sequence[Message], hits: Sequence[Hit]) -> Language:
    """The asker's language; what it leaves open is as in the talk, or as in the source."""
    before = "".join(message.content for message in history if message.role == "user")
    source = detect_script("".join(hit.text for hit in hits), "zh-Hans")
    return detect_language(question, detect_language(before, source) if before else source)


def _proven(written: Iterator[str], citer: Citer, language: Language) -> Iterator[str]:
    first = True
    for sentence in written:
        proven = None if prompts.refuses(sentence) else citer.cite(sentence)
        if proven is not None:
            yield proven if first or language != "en" else f" {proven}"
            first = False


class _Clock:
    def __init__(self) -> None:
        self._start = time.perf_counter()

    def ms(self) -> float:
        return round((time.perf_counter() - self._start) * 1000, 1)
