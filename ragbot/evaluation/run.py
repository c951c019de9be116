"""Ask a question set, judge each answer, and leave record, summary and report in a folder.

The answers come from the same bot that readers use. They are judged by code of their own.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from ragbot.bot import RagBot
from ragbot.config import Config
from ragbot.engines.llamacpp import LlamaCppEngine
from ragbot.errors import ModelError
from ragbot.evaluation.conditions import Case, Conditions, cases
from ragbot.evaluation.judge import open_judge
from ragbot.evaluation.questions import Question, Selection, load_questions, select, source
from ragbot.evaluation.records import Record
from ragbot.evaluation.retrieval import CHUNKS_A_PARAGRAPH, DEPTH
from ragbot.evaluation.scoring import Judges, Library, Outcome, Scorer
from ragbot.evaluation.support import Support, entailment
from ragbot.generator import joined
from ragbot.models import fingerprint
from ragbot.workspace import Report, default_engine

CHECKER = "packaged:qwen2.5-coder-1.5b"

# What a figure may depend on.
_LIBRARIES = ("ragbot", "xllamacpp", "onnxruntime", "faiss-cpu", "bm25s", "jieba", "transformers")
# Settings that say where things lie, or what is secret, and change no figure.
_PLACES = {
    "corpus",
    "index",
    "cache",
    "encoder",
    "reranker",
    "llm",
    "base_url",
    "llm_api_key",
    "api_key",
    "milvus_token",
    "rate",
    "database",
    "threads",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be evaluated: which questions, under what conditions, with what figures."""

    questions: Path | str
    """A file, or the URL of a database of ratings."""
    selection: Selection = field(default_factory=Selection)
    conditions: Conditions = field(default_factory=Conditions)
    retrieval_only: bool = False
    rephrase: bool = False
    checker: str = CHECKER
    judge: str = ""


class Evaluation:
    """A plan with everything it needs. Raises ConfigError for gold that the corpus leaves open.

    `open_judges` is called when the first answer is to be judged.
    """

    def __init__(
        self,
        plan: Plan,
        asked: Sequence[Question],
        config: Config,
        bot: RagBot,
        open_judges: Callable[[], Judges],
    ):
        self.plan = plan
        self.config = config
        self.library = Library.of(bot.retriever.index)
        placed = [self.library.place(question) for question in asked]
        self.cases = cases(placed, plan.conditions)
        self._bot = bot
        self._open_judges = open_judges

    def records(self, done: Mapping[str, Record]) -> Iterator[Record]:
        """The records of the questions that are not done yet, each as it is finished."""
        scorer: Scorer | None = Scorer(self.library) if self.plan.retrieval_only else None
        for case in self.cases:
            if case.question.id in done:
                continue
            if scorer is None:
                scorer = Scorer(self.library, self._open_judges())
            yield scorer.record(case.question, self._outcome(case))

    def fingerprint(self) -> dict[str, Any]:
        """Everything the answers depend on, and nothing of this machine but what they depend on."""
        manifest = self._bot.retriever.index.manifest
        settings = self.config.model_dump(mode="json", exclude=_PLACES)
        return {
            "models": {
                "encoder": _named(self.config.encoder),
                "encoder_fingerprint": manifest.encoder_fingerprint,
                "reranker": _named(self.config.reranker),
                "llm": None if self._unread else _named(self.config.llm),
                "checker": None if self.plan.retrieval_only else _named(self.plan.checker),
                "judge": _named(self.plan.judge),
            },
            "settings": settings | {"threads": self.config.threads or os.cpu_count()},
            "versions": {"python": platform.python_version()}
            | {name: version(name) for name in _LIBRARIES},
            "corpus": {
                "name": self.config.corpus.name,
                "fingerprint": manifest.corpus_fingerprint,
                "chunks": manifest.chunks,
            },
            "questions": {
                "name": source(self.plan.questions).name,
                "fingerprint": _digest([case.question for case in self.cases]),
                "n": len(self.cases),
                "types": list(self.plan.selection.types),
                "langs": list(self.plan.selection.langs),
                "limit": self.plan.selection.limit,
            },
            "conditions": asdict(self.plan.conditions),
            "retrieval_only": self.plan.retrieval_only,
            "rephrase": self.plan.rephrase,
            "seed": self.plan.selection.seed,
        }

    @property
    def _unread(self) -> bool:
        """Whether the generator has no part in the figures."""
        return self.plan.retrieval_only and not self.plan.rephrase

    def passages(self) -> Mapping[str, str]:
        """The text of every paragraph, by `DOCUMENT#NUMBER`."""
        return {f"{doc}#{number}": text for (doc, number), text in self.library.texts.items()}

    def _outcome(self, case: Case) -> Outcome:
        question, bot = case.question, self._bot_for(case)
        # Noise is for the prompt alone; what is hidden cannot be found either.
        searched = bot if case.hidden else self._bot
        answer = None
        queries: tuple[str, ...] = (joined(question.question, question.messages),)
        if not self.plan.retrieval_only:
            answer = bot.ask(question.question, history=question.messages)
            queries = answer.queries
        elif self.plan.rephrase:
            queries = bot.queries(question.question, history=question.messages)
        depth = DEPTH * CHUNKS_A_PARAGRAPH
        hits = searched.retriever.search(queries[0], limit=depth, phrasings=queries[1:])
        return Outcome(hits, answer.passages if answer else hits[: self.config.top_k], answer)

    def _bot_for(self, case: Case) -> RagBot:
        """The bot as it is under the conditions of a case; the engine is the same."""
        conditions = self.plan.conditions
        rerank = case.rerank(conditions, self.config.top_k, self.plan.selection.seed)
        if rerank is None:
            return self._bot
        return RagBot(
            self._bot.retriever.then(rerank),
            lambda: self._bot.engine,
            top_k=self.config.top_k + conditions.noise,
            max_tokens=self.config.max_tokens,
        )


def open_evaluation(plan: Plan, config: Config, report: Report) -> Evaluation:
    """The plan over the configured corpus, with the configured models. Raises RagbotError."""
    asked = select(load_questions(plan.questions), plan.selection)  # mistakes are told first
    bot = RagBot.from_corpus(config=config, report=report)

    def open_judges() -> Judges:
        return Judges(
            _open_checker(plan.checker, config, bot, report) if plan.checker else None,
            open_judge(plan.judge, config, report) if plan.judge else None,
        )

    return Evaluation(plan, asked, config, bot, open_judges)


def _open_checker(name: str, config: Config, bot: RagBot, report: Report) -> Support:
    checking = config.model_copy(update={"llm": name, "engine": "llamacpp"})
    shared = config.llm == name and isinstance(bot.engine, LlamaCppEngine)
    try:
        engine = bot.engine if shared else default_engine(checking, report)
    except ModelError as error:
        raise ModelError(f"{str(error).rstrip('.')}; or do without it by --checker ''.") from error
    return entailment(cast(LlamaCppEngine, engine).first_token)


def _named(model: str) -> str | None:
    """A model's name; of one on disk what tells it from another, not the folder it lies in."""
    path = Path(model)
    if path.is_file():
        return f"{path.name}, {path.stat().st_size} bytes"
    if model and path.is_dir():
        return f"{path.name}, {fingerprint(model)}"
    return model or None


def _digest(questions: Sequence[Question]) -> str:
    digest = hashlib.sha256()
    for question in questions:
        digest.update(question.model_dump_json().encode() + b"\n")
    return digest.hexdigest()
