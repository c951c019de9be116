"""What some passages answer to a question: read, proven sentence by sentence, weighed.

What is said when they do not is the bot's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from ragbot import phrases
from ragbot.abstention import probability, size, threshold
from ragbot.citations import Citer, echoes, is_closed
from ragbot.dense import products
from ragbot.disagreement import disagreeing
from ragbot.enumeration import AROUND, asked_for, enumerated
from ragbot.evidence import Evidence, contradicts, copied, denies, gather, rivals
from ragbot.generator import Generator, Reading
from ragbot.looks import Look, weight
from ragbot.retriever import Retriever
from ragbot.text import across, asks, detect_language, sentences, to_language
from ragbot.tracing import note, span
from ragbot.types import Hit, Language, Step, Watch

# Log probability of "none" below which an answer from a short document stands: where all there is
# was found, a score tells little, for nothing competes.
_CERTAIN = -4.0
_VERBATIM = 0.8  # of a copy: the rest is slips
# How far the sentence that was copied may rank behind the best one: from further down it was the
# right one in none of the cases that were looked at, and the best one often was.
_TRUSTED = 0.02
_QUOTED = 2  # sentences at the most
_SHORT = 150.0  # tokens, about, of a sentence that can stand for an answer


@dataclass(frozen=True, slots=True)
class Found:
    """What some passages answered: nothing, as long as there is no text."""

    text: str = ""
    probability: float = 0.0
    signals: Mapping[str, float] = field(default_factory=dict)
    citer: Citer | None = None
    proven: Sequence[tuple[str, Sequence[Evidence]]] = ()


@dataclass(frozen=True, slots=True)
class Inquiry:
    """A question on its way to an answer.

    `queries` are the question so that it stands alone and, if any, its translation; `language` is
    the asker's.
    """

    queries: Sequence[str]
    language: Language
    hits: Sequence[Hit]
    retriever: Retriever
    generator: Generator
    watch: Watch

    @span("look")
    def read(self, look: Look) -> Found:
        """What some sentences, all in one language, answer, and how sure that is."""
        passages, texts = look.passages, look.texts
        source = detect_language("".join(texts), self.language)
        # As it was asked: read in its translation instead, or besides, it was answered worse.
        reading = self.generator.read(self.queries[0], texts, source)
        citer = self._citer(source, gather(passages))
        said = self._listed(passages[0]) or _said(reading, look, citer)
        searched = len(self.retriever.index.chunks)
        signals = {
            "score": look.score,
            "log_none": reading.log_none,
            "log_least": reading.log_least,
            "proven": float(bool(said.claims)),
            "english": float(source == "en"),
            "across": float(across(source, self.language)),
            "size": size(searched),
        }
        sure = probability(signals)
        everything = len(self.hits) >= searched
        if everything and said.claims and reading.log_none <= _CERTAIN:
            sure = max(sure, threshold())
        told: list[str] = []
        if sure >= threshold():
            self.watch(Step("telling"))
            claims = said.claims or [
                ("", [piece]) for piece in said.verbatim if not asks(piece.text)
            ]
            told = [_told(citer, claim, proof) for claim, proof in claims]
        joined = (" " if self.language == "en" else "").join(told)
        note({"ragbot.passages": len(passages), "ragbot.confidence": sure})
        return Found(joined, sure, signals, citer, said.claims)

    def disagreement(self, found: Found) -> str:
        """What another passage says instead of what was found, if one does."""
        if not found.text or found.citer is None:
            return ""
        others = gather(self.hits)
        for claim, proof in found.proven:
            other = disagreeing(self.queries[0], claim, proof[0], others)
            if other is not None:
                said = found.citer.retell(to_language(other.text, found.citer.language))
                told = phrases.DISAGREEMENT[self.language].format(said.rstrip("。."))
                return told + found.citer.markers([other])
        return ""

    def _citer(self, source: Language, evidence: Sequence[Evidence]) -> Citer:
        citer = Citer(" ".join(self.queries), self.language, evidence, self._similarity(evidence))
        if across(source, self.language):
            # What is proven in the sources' language is told in the asker's.
            citer.language = source
            citer.retell = lambda claim: self.generator.retold(
                self.queries[0], claim, self.language
            )
        return citer

    def _listed(self, best: Hit) -> _Said | None:
        """The sentences that name the things one by one, where a question asks for so many."""
        asked = max(map(asked_for, self.queries))
        if asked.things == 1:
            return None
        around = self.retriever.index.around(best.chunk, AROUND)
        listed = enumerated(asked, best, around)
        return _Said([("", [piece]) for piece in listed]) if listed else None

    def _similarity(self, evidence: Sequence[Evidence]) -> Callable[[str], Sequence[float]]:
        """Cosines of a claim with pieces of evidence, by the vectors the index holds."""
        index, encoder = self.retriever.index, self.retriever.encoder
        hits = dict.fromkeys(piece.hit for piece in evidence)

        def cosines(claim: str) -> Sequence[float]:
            vector = encoder.queries([claim])[0]
            rows = (index.sentences_of(hit.chunk) for hit in hits)
            return [float(cosine) for part in rows for cosine in products(part, vector)]

        return cosines


@dataclass(frozen=True, slots=True)
class _Said:
    """An answer on its way: what of it is proven, and what may be told as it stands where nothing
    is."""

    claims: Sequence[tuple[str, Sequence[Evidence]]] = ()
    verbatim: Sequence[Evidence] = ()


@span("prove")
def _said(reading: Reading, look: Look, citer: Citer) -> _Said:
    """What was written, or the sentence that it should have been written from."""
    written = [reading.answer[start:end] for start, end in sentences(reading.answer)]
    if not written:
        return _Said()
    share, places = copied(reading.sentence, citer.evidence)
    quoted = [citer.evidence[place] for place in sorted(places)][:_QUOTED]
    behind = look.behind(quoted)
    made_up = share < _VERBATIM  # and so may be the answer
    claims = _proven(citer, written, frozenset() if made_up else places)
    note({"ragbot.claims": len(written), "ragbot.proven": len(claims)})
    if made_up:
        return _Said(claims)
    proof = [piece for _, pieces in claims for piece in pieces]
    if proof and look.behind(proof) <= _TRUSTED:
        # The best sentence was copied, but the answer is of another one.
        strayed = not behind and not any(piece in quoted for piece in proof)
        if not (strayed and _standing(citer, quoted)):
            return _Said(claims)
    if behind > _TRUSTED:
        quoted = look.best(citer.evidence)
    elif not claims and not all(echoes(one, citer.question) for one in written):
        return _Said(verbatim=quoted)
    # From another sentence than it should be, or the question once more: it speaks for itself.
    return _Said(_standing(citer, quoted), quoted)


def _standing(citer: Citer, pieces: Sequence[Evidence]) -> list[tuple[str, Sequence[Evidence]]]:
    """Those of some evidence that could answer as they stand."""
    return _proven(citer, [piece.text for piece in pieces], frozenset())


def _proven(
    citer: Citer, written: Sequence[str], places: AbstractSet[int]
) -> list[tuple[str, Sequence[Evidence]]]:
    """The sentences of an answer that something proves, and what does."""
    return [found for one in written if (found := citer.prove(one, places))]


def _told(citer: Citer, claim: str, proof: Sequence[Evidence]) -> str:
    """A claim with its markers; the sentence itself where it says more than the claim got right."""
    source = proof[0].text
    # Asked whether or why something is so, a small model says yes to a sentence that says no.
    turned = is_closed(citer.question) and denies(claim) != denies(source)
    turned = turned or contradicts(claim, source)
    if not claim or ((turned or rivals(claim, source)) and weight(source) <= _SHORT):
        claim, proof = to_language(source, citer.language), proof[:1]
    return citer.tell(claim, proof)
