"""From a question and what ragbot made of it to a record: its figures, and where it went wrong."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass

from ragbot.errors import ConfigError
from ragbot.evaluation.judge import Judge
from ragbot.evaluation.matching import exact_match, f1, facts_held, has_fact, in_language
from ragbot.evaluation.questions import Gold, Question
from ragbot.evaluation.records import Cited, Found, Record, Scores
from ragbot.evaluation.retrieval import Place, ranked_paragraphs, retrieval_figures
from ragbot.evaluation.support import Support, recall_and_precision, without_markers
from ragbot.index import Index
from ragbot.types import Answer, Citation, Hit

STEPS = (
    "not indexed",
    "not retrieved",
    "ranked out of the prompt",
    "in the prompt, not used",
    "used, mis-cited",
    "wrongly refused",
    "wrongly answered",
)


@dataclass(frozen=True, slots=True)
class Library:
    """The paragraphs of an index: their text, and which of them can be found."""

    texts: Mapping[Place, str]
    indexed: Collection[Place]

    @classmethod
    def of(cls, index: Index) -> Library:
        """Read off an index."""
        texts = {
            (document.name, paragraph.number): document.text[paragraph.start : paragraph.end]
            for document in index.documents.values()
            for paragraph in document.paragraphs
        }
        return cls(texts, {(chunk.doc, chunk.paragraph) for chunk in index.chunks})

    def place(self, question: Question) -> Question:
        """The question with a document for each gold paragraph: the only one, if it names none.

        Raises ConfigError when there is more than one to choose from.
        """
        documents = sorted({doc for doc, _ in self.texts})
        if len(documents) > 1 and any(not gold.doc for gold in question.gold):
            raise ConfigError(
                f"The gold of question {question.id} names no document, and the corpus has "
                f'{len(documents)}: give it as "gold": [{{"doc": "{documents[0]}", ...}}].'
            )
        gold = (
            Gold(doc=gold.doc or documents[0], paragraph=gold.paragraph) for gold in question.gold
        )
        return question.model_copy(update={"gold": tuple(dict.fromkeys(gold))})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a search found, best first, and what was answered, if anything was asked."""

    hits: Sequence[Hit]
    prompt: Sequence[Hit]
    answer: Answer | None = None


@dataclass(frozen=True, slots=True)
class Judges:
    """What figures cannot be computed without a model: support, and a language model's opinion."""

    support: Support | None = None
    opinion: Judge | None = None


@dataclass(frozen=True, slots=True)
class Scorer:
    """Makes the record of a question; without a judge the figures that need it are None."""

    library: Library
    judges: Judges = Judges()

    def record(self, question: Question, outcome: Outcome) -> Record:
        """What became of a question, with its figures and the step at which it went wrong."""
        gold = [(place.doc, place.paragraph) for place in question.gold]
        ranked = ranked_paragraphs(outcome.hits)
        record = Record(
            id=question.id,
            question=question.question,
            lang=question.lang,
            type=question.type,
            answerable=question.answerable,
            gold=question.gold,
            reference=question.reference_answer,
            retrieved=_found(ranked),
            prompt=_found(ranked_paragraphs(outcome.prompt, len(outcome.prompt))),
            scores=dict(retrieval_figures(gold, list(ranked))) if gold else {},
        )
        if outcome.answer is not None:
            record = self._answered(record, question, outcome.answer)
        return record.model_copy(update={"step": _step(record, self.library)})

    def _answered(self, record: Record, question: Question, answer: Answer) -> Record:
        citations = [self._cited(citation) for citation in answer.citations]
        scores = answer_scores(question, answer.answer, answer.abstained)
        scores |= citation_scores(record, citations, answer.abstained)
        supported, citations = support_scores(answer, citations, self.judges.support)
        return record.model_copy(
            update={
                "answer": answer.answer,
                "abstained": answer.abstained,
                "confidence": answer.confidence,
                "queries": answer.queries,
                "signals": dict(answer.signals),
                "citations": tuple(citations),
                "related": tuple(self._cited(citation) for citation in answer.related),
                "timings": asdict(answer.timings),
                "scores": record.scores | scores | supported | self._opinion(answer),
                "raw": answer.raw,
            }
        )

    def _cited(self, citation: Citation) -> Cited:
        text = self.library.texts.get((citation.doc, citation.paragraph), "")
        return Cited(
            marker=citation.marker,
            doc=citation.doc,
            paragraph=citation.paragraph,
            quote=citation.quote,
            verbatim=bool(citation.quote.strip()) and citation.quote in text,
        )

    def _opinion(self, answer: Answer) -> Scores:
        if self.judges.opinion is None or answer.abstained:
            return {}
        passages = [hit.text for hit in answer.passages]
        return self.judges.opinion(answer.question, without_markers(answer.answer), passages)


def answer_scores(question: Question, answer: str, abstained: bool) -> Scores:
    """Accuracy, fact recall, exact match, F1 and language of one answer.

    A right answer holds every required fact in one of its forms and no forbidden string. A refusal
    of an answerable question scores 0; what the question set does not decide is None.
    """
    text = without_markers(answer)
    judged_by_facts = question.answerable and (question.must_include or question.must_not_include)
    held = facts_held(text, question.must_include)
    forbidden = any(has_fact(text, [form]) for form in question.must_not_include)
    compared = question.answerable and question.reference_answer
    reference, lang = question.reference_answer, question.lang
    given = not abstained
    return {
        "accuracy": float(given and all(held) and not forbidden) if judged_by_facts else None,
        "fact_recall": given * sum(held) / len(held) if question.answerable and held else None,
        "exact_match": given * exact_match(text, reference, lang) if compared else None,
        "f1": given * f1(text, reference, lang) if compared else None,
        "language_match": float(in_language(text, lang)),
    }


def citation_scores(record: Record, citations: Sequence[Cited], abstained: bool) -> Scores:
    """Citations against gold paragraphs, for an answered question that has some.

    Precision is the share of the citations that lead to a gold paragraph, recall the share of the
    gold paragraphs that are cited; `gold_cited` says whether any is. No citations score 0.
    """
    names = ("citation_precision", "citation_recall", "citation_f1", "gold_cited")
    if abstained or not record.answerable or not record.gold:
        return dict.fromkeys(names)
    gold = {(place.doc, place.paragraph) for place in record.gold}
    cited = [(citation.doc, citation.paragraph) for citation in citations]
    precision = sum(place in gold for place in cited) / len(cited) if cited else 0.0
    recall = len(gold & set(cited)) / len(gold)
    both = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return dict(zip(names, (precision, recall, both, float(recall > 0)), strict=True))


def support_scores(
    answer: Answer, citations: Sequence[Cited], support: Support | None
) -> tuple[Scores, list[Cited]]:
    """Support-based citation figures of an answer, and its citations with whether they support."""
    if answer.abstained or support is None:
        return {"support_recall": None, "support_precision": None, "valid": None}, [*citations]
    quotes = {citation.marker: citation.quote for citation in citations}
    recall, precision, good = recall_and_precision(answer.answer, quotes, support)
    checked = [c.model_copy(update={"supports": good.get(c.marker, False)}) for c in citations]
    valid = [citation.verbatim and bool(citation.supports) for citation in checked]
    share = sum(valid) / len(valid) if valid else None
    return {"support_recall": recall, "support_precision": precision, "valid": share}, checked


def _step(record: Record, library: Library) -> str:
    """The step at which a question went wrong; empty when it did not, or nobody knows.

    The first of `STEPS` that holds, in the order in which a question runs through them; where there
    are several gold paragraphs, one of them that came through is enough.
    """
    if record.answerable is None or (record.answer is None and not record.gold):
        return ""
    if not record.answerable:
        return "" if record.abstained else "wrongly answered"
    gold = {(place.doc, place.paragraph) for place in record.gold}
    cited = bool(gold & {(citation.doc, citation.paragraph) for citation in record.citations})
    if record.answer is not None and not record.abstained and record.scores["accuracy"] != 0.0:
        return "" if cited or not gold else "used, mis-cited"
    for step, places in (
        ("not indexed", library.indexed),
        ("not retrieved", {(found.doc, found.paragraph) for found in record.retrieved}),
        ("ranked out of the prompt", {(found.doc, found.paragraph) for found in record.prompt}),
    ):
        if gold and gold.isdisjoint(places):
            return step
    if record.answer is None:
        return ""
    if record.abstained:
        return "wrongly refused"
    return "wrongly answered" if cited or not gold else "in the prompt, not used"


def _found(ranked: Mapping[Place, float]) -> tuple[Found, ...]:
    return tuple(
        Found(doc=doc, paragraph=paragraph, score=round(score, 6))
        for (doc, paragraph), score in ranked.items()
    )
