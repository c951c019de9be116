"""The story of one question: search, read, prove, answer or refuse.

Nothing is shown before it is proven: each sentence has the markers of the quotations that support
it, and what nothing supports is left out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from collections.abc import Generator as Iteration
from pathlib import Path

from ragbot import phrases
from ragbot.config import Config, load_config
from ragbot.engines import Engine
from ragbot.evidence import cited, gather
from ragbot.fence import checked
from ragbot.generator import Generator
from ragbot.index import Index
from ragbot.inquiry import Found, Inquiry
from ragbot.looks import look_at
from ragbot.naming import named
from ragbot.retriever import Retriever, is_near
from ragbot.streaming import AnswerStream
from ragbot.text import across, detect_language, detect_script, fold
from ragbot.tracing import note, note_texts, span
from ragbot.types import Answer, Citation, Hit, Language, Message, Step, Timings, Watch
from ragbot.workspace import (
    Report,
    current_index,
    default_encoder,
    default_engine,
    default_reranker,
    require_corpus,
    silent,
)


class RagBot:
    """Answers questions from an index. Build one with `RagBot.from_corpus`."""

    def __init__(
        self,
        retriever: Retriever,
        engine: Callable[[], Engine],
        *,
        top_k: int = 8,
        max_tokens: int = 320,
    ):
        self.retriever = retriever
        self._open_engine = engine
        self._engine: Engine | None = None
        self._opening = threading.Lock()
        self._renewing = threading.Lock()
        self._top_k = top_k
        self._max_tokens = max_tokens

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
        )

    @property
    def engine(self) -> Engine:
        """The generator, loaded when it is first needed: searching does without it."""
        with self._opening:
            if self._engine is None:
                self._engine = self._open_engine()
            return self._engine

    def queries(self, question: str, *, history: Sequence[Message] = ()) -> tuple[str, ...]:
        """What is searched for: the question so that it stands alone and, where the documents
        speak the other language, too, its translation. Raises ConfigError, ModelError."""
        generator = self._generator()
        languages = self._renewed().index.languages
        return _queries(checked(question), tuple(history), generator, languages)

    def translated(self, text: str, language: Language) -> str:
        """A quotation in a reader's language; empty when it is in it already. Raises ModelError."""
        return self._generator().translated(text, language)

    def search(self, question: str, *, top_k: int | None = None) -> list[Hit]:
        """The passages that bear on a question, best first. Raises ConfigError for a bad one."""
        return self._renewed().search(checked(question), limit=top_k or self._top_k)

    def ask(self, question: str, *, history: Sequence[Message] = ()) -> Answer:
        """The finished answer. Raises ConfigError for a bad question, ModelError."""
        return self.stream(question, history=history).answer

    def stream(
        self,
        question: str,
        *,
        history: Sequence[Message] = (),
        cancel: threading.Event | None = None,
        watch: Watch = lambda step: None,
    ) -> AnswerStream:
        """The answer as it is proven, sentence by sentence. Raises as `ask` does.

        Closing the stream, or setting `cancel`, stops the generator; a cancelled answer ends with
        what was proven by then. `watch` is called as the work goes on, by whoever reads the stream.
        """
        return AnswerStream(self._answer(checked(question), tuple(history), cancel, watch))

    def over(self, index: Index) -> RagBot:
        """A bot over another index of the same encoder, with the same generator."""
        return RagBot(
            self.retriever.over(index),
            lambda: self.engine,
            top_k=self._top_k,
            max_tokens=self._max_tokens,
        )

    def within(self, documents: Sequence[str]) -> RagBot:
        """A bot that answers from some documents alone, with the same generator: each of these is a
        name, a folder, or a pattern (`ragbot.naming`). Raises ConfigError: one means no document.
        """
        index = self._renewed().index
        return self.over(index.within(named(documents, index.documents)))

    def _answer(
        self,
        question: str,
        history: tuple[Message, ...],
        cancel: threading.Event | None,
        watch: Watch,
    ) -> Iteration[str, None, Answer]:
        if phrases.greets(fold(question).text):
            answer = _greeted(
                question, _language(question, history, self.search(question, top_k=1))
            )
        else:  # a span must not be open while somebody else reads what is yielded
            answer = self._answered(question, history, self._generator(cancel), watch)
        yield answer.text
        return answer

    @span("question")
    def _answered(
        self,
        question: str,
        history: tuple[Message, ...],
        generator: Generator,
        watch: Watch,
    ) -> Answer:
        clock = _Clock()
        watch(Step("searching"))
        retriever = self._renewed()
        queries = _queries(question, history, generator, retriever.index.languages)
        hits = _found(retriever, queries, self._top_k)
        language = _language(question, history, hits)
        retrieval_ms = clock.ms()
        inquiry = Inquiry(queries, language, hits, retriever, generator, watch)
        ranked = retriever.ranked(queries, hits)
        look, nearest = look_at(hits, ranked, language), _nearest(ranked, hits)
        if look:
            watch(Step("reading", tuple(look.passages), nearest))
        best = inquiry.read(look) if look else Found()
        related = (nearest,) if nearest and not best.text else ()
        text = best.text or phrases.ABSTENTION[language]
        text += inquiry.disagreement(best)
        text += "".join(phrases.RELATED[language].format(one.marker) for one in related)
        answer = Answer(
            question=question,
            language=language,
            answer=text,
            abstained=not best.text,
            citations=tuple(best.citer.citations) if best.text and best.citer else (),
            passages=tuple(hits),
            timings=Timings(retrieval_ms, clock.ms(), clock.ms(), *generator.written.tokens),
            confidence=round(best.probability, 3),
            related=related,
            queries=queries,
            signals=best.signals,
            raw=generator.written.text,
        )
        _note(answer)
        return answer

    def _generator(self, cancel: threading.Event | None = None) -> Generator:
        return Generator(lambda: self.engine, self._max_tokens, cancel)

    def _renewed(self) -> Retriever:
        """What a question is answered from, throughout: the index as it is kept now."""
        with self._renewing:
            index = self.retriever.index.current()
            if index is not self.retriever.index:
                self.retriever = self.retriever.over(index)
            return self.retriever


def _queries(
    question: str,
    history: tuple[Message, ...],
    generator: Generator,
    languages: Collection[Language],
) -> tuple[str, ...]:
    """What is searched for in documents of those languages."""
    language = detect_language(question)
    if history:
        question = generator.rewritten_question(question, history, language)
    others = [other for other in languages if across(other, language)]
    translated = [generator.translated_question(question, other) for other in others]
    return (question, *filter(None, translated))


@span("search")
def _found(retriever: Retriever, queries: Sequence[str], limit: int) -> list[Hit]:
    hits = retriever.search(queries[0], limit=limit, phrasings=queries[1:])
    note({"ragbot.queries": len(queries), "ragbot.passages": len(hits)})
    return hits


def _nearest(ranked: Sequence[Hit], hits: Sequence[Hit]) -> Citation | None:
    """The sentence that comes nearest to a question, if any comes near."""
    near = {hit.rank for hit in hits if is_near(hit)}
    nearest = next((part for part in ranked if part.rank in near), None)
    pieces = gather([nearest]) if nearest else []
    return cited(pieces[-1], 1) if pieces else None


def _greeted(question: str, language: Language) -> Answer:
    """The answer to what is no question: nothing is searched for, nothing proven."""
    return Answer(
        question=question,
        language=language,
        answer=phrases.GREETING[language],
        abstained=True,
        citations=(),
        passages=(),
        timings=Timings(0.0, 0.0, 0.0),
    )


def _note(answer: Answer) -> None:
    note(
        {
            "ragbot.language": answer.language,
            "ragbot.abstained": answer.abstained,
            "ragbot.confidence": answer.confidence,
            "ragbot.citations": len(answer.citations),
        }
    )
    note_texts({"ragbot.question": answer.question, "ragbot.answer": answer.text})


def _language(question: str, history: Sequence[Message], hits: Sequence[Hit]) -> Language:
    """The asker's language; what it leaves open is as in the talk, or as in the source."""
    before = "".join(message.content for message in history if message.role == "user")
    source = detect_script("".join(hit.text for hit in hits), "zh-Hans")
    return detect_language(question, detect_language(before, source) if before else source)


class _Clock:
    def __init__(self) -> None:
        self._start = time.perf_counter()

    def ms(self) -> float:
        return round((time.perf_counter() - self._start) * 1000, 1)
