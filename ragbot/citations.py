"""From what a model wrote to what may be shown: each sentence proven by a quotation, or dropped.

The model's markers are hostile input and thrown away; the sentences that it copied are found again
in the passages and taken as a hint of where it looked. A sentence is kept when a sentence of the
passages supports it, and gets a marker that stands for exactly that quotation. No model is asked;
`Similarity` is the only thing not computed here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from ragbot.evidence import STOP_WORDS, Evidence, cited, content_words, coverage, denies
from ragbot.text import across, asks, detect_language, fold, sentences, to_language
from ragbot.types import Citation, Language
from ragbot.words import mentioned_numbers, names, stated_numbers, topic

Similarity = Callable[[str], Sequence[float]]
"""A claim's cosine with each piece of evidence, in the order of `gather`."""

# --- markers ---------------------------------------------------------------------------------

_LABEL = r"(?:资料|資料|来源|來源|段落|文献|文獻|source|sources|passage|doc|document)"
_LIST = r"\^?\d+\^?(?:\s*(?:[-–~,，、;；]|and|和|与|與)\s*\^?\d+\^?)*"
_MARKER = re.compile(
    rf"\s*(?:[\[［【〔]\s*{_LABEL}?\s*[:：]?\s*{_LIST}\s*[\]］】〕]"
    rf"|[(（]\s*(?:see\s+)?{_LABEL}\s*[:：]?\s*[\[［【]?{_LIST}[\]］】]?\s*[)）])",
    re.IGNORECASE,
)


def strip_markers(text: str) -> str:
    """The text without anything that looks like a citation marker."""
    return _MARKER.sub("", text)


# --- support ---------------------------------------------------------------------------------

# Calibrated on sentence pairs of a parallel corpus (docs/architecture.md): 96 % of translations
# have a cosine above this, 20 % of the nearest wrong sentences of the same paragraph do.
ACROSS_LANGUAGES = 0.81
# Within a language: the part of a claim's words, and of those the question did not supply, that
# its quotation must hold.
_ALL_WORDS = 0.45
_NEW_WORDS = 0.5
_ECHOED = 0.8  # of all, where the question supplied each of them
_ALL_NEW, _REWORDED = 0.9, 0.25  # of new words, of all: the question in other words than the text's
_HINT = 0.3  # what having been copied is worth, as a part of all words
_ENGLISH = re.compile(r"(?<![A-Za-z])[a-z]{3,}(?![A-Za-z])")
_CLAUSE = re.compile(r"[，；,;]|而(?!且)|\band\b|\bwhile\b")


@dataclass(slots=True)
class Citer:
    """Turns the sentences of one answer into proven ones, numbering quotations as they appear."""

    question: str
    language: Language
    evidence: Sequence[Evidence]
    similarity: Similarity
    retell: Callable[[str], str] = str
    """Makes of a proven claim what the reader is shown."""
    citations: list[Citation] = field(default_factory=list)

    def cite(self, written: str, hinted: AbstractSet[int] = frozenset()) -> str | None:
        """The sentence as it may be shown, with its markers, or None when nothing supports it."""
        proven = self.prove(written, hinted)
        return self.tell(*proven) if proven else None

    def prove(
        self, written: str, hinted: AbstractSet[int] = frozenset()
    ) -> tuple[str, Sequence[Evidence]] | None:
        """The claim that a sentence makes, and what proves it; None when nothing does.

        `hinted` are the places of evidence that the model says it is from.
        """
        claim = to_language(_tidy(strip_markers(written)), self.language)
        if not _says_something(claim, self.question):
            return None
        proof = self.support(claim, hinted)
        return (claim, proof) if proof else None

    def tell(self, claim: str, proof: Sequence[Evidence]) -> str:
        """A proven claim as the reader is shown it, each sentence with the markers of what is now
        cited."""
        told, markers = self.retell(claim), self.markers(proof)
        between = " " if detect_language(told) == "en" else ""
        return between.join(told[start:end] + markers for start, end in sentences(told))

    def markers(self, proof: Sequence[Evidence]) -> str:
        """The markers that stand for some evidence, which is now cited."""
        return "".join(f"[{number}]" for number in dict.fromkeys(map(self._marker, proof)))

    def support(self, claim: str, hinted: AbstractSet[int]) -> Sequence[Evidence]:
        """The sentences that prove a claim; none when nothing does.

        The one that proves it best as a whole, and, for each clause that this one does not prove,
        the one that does.
        """
        whole = _best(self._scores(claim, hinted))
        proofs = [whole]
        clauses = [clause for clause in _CLAUSE.split(claim) if content_words(clause)]
        for clause in clauses if len(clauses) > 1 else ():
            scores = self._scores(clause, hinted)
            if not any(scores) and self._made_up(clause):
                return ()
            proofs.append(whole if whole is not None and scores[whole] else _best(scores))
        if whole is None and (None in proofs[1:] or len(proofs) == 1):
            return ()
        return [self.evidence[proof] for proof in dict.fromkeys(proofs) if proof is not None]

    def _made_up(self, clause: str) -> bool:
        """Whether no evidence in its language holds anything of a clause, which rides on others."""
        language = detect_language(clause)
        texts = [piece.text for piece in self.evidence]
        same = [text for text in texts if not across(language, detect_language(text))]
        return bool(same) and not coverage(content_words(clause), fold("\n".join(same)).text)

    def _scores(self, claim: str, hinted: AbstractSet[int]) -> list[float]:
        """How well each piece of evidence supports the claim; 0 where it does not."""
        language = detect_language(claim)
        foreign = [across(language, detect_language(piece.text)) for piece in self.evidence]
        cosines = self.similarity(claim) if any(foreign) else [0.0] * len(foreign)
        content = content_words(claim)
        new = _unasked(content, self.question)
        named = (names(claim) - self._given_names(claim)) | _strays(claim, language)
        about = topic(claim)
        if about and about[0] in STOP_WORDS:  # 作者看好…: about the text itself
            about = []
        owed = stated_numbers(claim) - self._given_numbers()
        scores = []
        for place, evidence in enumerate(self.evidence):
            abroad, cosine = foreign[place], cosines[place]
            if abroad:
                score = cosine if cosine >= ACROSS_LANGUAGES else 0.0
            else:
                fits = _names_all(evidence, named) and _speaks_of(evidence, about)
                score = _shared(content, new, evidence, place in hinted) if fits else 0.0
            if owed - mentioned_numbers(evidence.text):
                score = 0.0
            scores.append(score + _HINT * (score > 0 and place in hinted))
        return scores

    def _given_numbers(self) -> set[str]:
        """The question's numbers that any evidence holds: any other could be a dictated one."""
        asked = mentioned_numbers(self.question)
        return asked and asked & {n for one in self.evidence for n in mentioned_numbers(one.text)}

    def _given_names(self, claim: str) -> set[str]:
        """The question's names that any passage holds: "the Sun Yat-sen University's hospital" is
        not proven by Fudan's. All of them, where a claim denies something."""
        asked = names(self.question)
        if not asked or denies(claim):
            return asked
        texts = [fold(hit.text).text for hit in {piece.hit for piece in self.evidence}]
        return {name for name in asked if any(name in text for text in texts)}

    def _marker(self, evidence: Evidence) -> int:
        for citation in self.citations:
            if (citation.doc, citation.start) == (evidence.hit.doc, evidence.start):
                return citation.marker
        self.citations.append(cited(evidence, len(self.citations) + 1))
        return len(self.citations)


# Of a folded question: what may be answered with its own words.
_CLOSED = re.compile(
    r"吗|是否|是不是|有没有|还是|\bor\b"
    r"|^(?:is|are|was|were|do|does|did|can|could|has|have|had|will|would|should)\b"
)


def is_closed(question: str) -> bool:
    """Whether a question may be answered with its own words: yes, no, or one of those it names."""
    return bool(_CLOSED.search(fold(question).text))


def _unasked(content: dict[str, int], question: str) -> dict[str, int]:
    """Those of a claim's content words that the question did not supply."""
    asked = fold(question).text
    return {word: weight for word, weight in content.items() if word not in asked}


# What an answer must tell of: a number, or a time, which some words tell, too.
_HOW_MANY = re.compile(
    r"多少|(?<![这那近前后好数十茶哪])几(?!乎|何|内亚|率|十)|哪一?年"
    r"|\bhow (?:many|much|old|long|far|tall)\b(?!-)|(?:what|which) year"
)
_ONE = re.compile("(?<=[这那每某另同单])一|一(?=[些直定样般旦起同])")  # that counts nothing
_WHEN = re.compile(r".*(?:何时|什么时候|何年)|when\b")
_TIME = re.compile(
    r"[年月日代朝春夏秋冬早晚时期前后当初末今昨]|世纪"
    r"|\b(?:after|before|during|since|until|once|while|when|century|years?|spring|summer|autumn|fall"
    r"|winter|morning|noon|evening|night|early|late|day|week|month|time|now|never|always|today)\b"
)


def echoes(claim: str, question: str) -> bool:
    """Whether a claim is the question again, or holds no word that the question does not."""
    return asks(claim) or not _unasked(content_words(claim), question)


def _says_something(claim: str, question: str) -> bool:
    """Whether a claim could answer the question: it holds a word that the question does not, or
    answers yes or no or a choice; asked how many, it has a number, asked when, a time.

    Of the answers of seven runs 8 held no new word, "Tencent's system kept the idea alive" for
    which one it was: each was wrong.
    """
    asked, told = fold(question).text, fold(claim).text
    if asks(claim):  # the question again
        return False
    numbers = mentioned_numbers(_ONE.sub("", told))
    if _HOW_MANY.search(asked) and not numbers:
        return False
    if _WHEN.match(asked) and not numbers and not _TIME.search(told):
        return False
    return bool(content_words(claim)) if is_closed(question) else not echoes(claim, question)


def _strays(claim: str, language: Language) -> set[str]:
    """The English words of a Chinese claim, which are the question's unless its source has them."""
    return set() if language == "en" else set(_ENGLISH.findall(claim))


def _best(scores: Sequence[float]) -> int | None:
    """The place of the first of the highest scores, or None when none is above 0."""
    most = max(scores, default=0.0)
    return scores.index(most) if most > 0 else None


def _shared(
    content: dict[str, int], new: dict[str, int], evidence: Evidence, copied: bool
) -> float:
    """How much of a claim's words, all and new, a sentence holds; 0 when it is too little."""
    source = fold(evidence.text).text
    every, fresh = coverage(content, source), coverage(new, source)
    # What only says the question's words again, for yes or no, has nothing else to be proven by.
    enough = _ALL_WORDS if new else _ECHOED
    if copied and new and fresh >= _ALL_NEW:
        enough = _REWORDED
    return every + fresh if every >= enough and fresh >= _NEW_WORDS else 0.0


def _names_all(evidence: Evidence, named: set[str]) -> bool:
    """Whether the passage holds every name: a sentence may call "he" whom another one names."""
    folded = fold(evidence.hit.text).text
    return all(name in folded for name in named)


def _speaks_of(evidence: Evidence, about: list[str]) -> bool:
    """Whether the passage knows what the claim is about: the price of apples proves none of pears.

    A pair of characters in common is enough, for the words of a paraphrase.
    """
    folded = fold(evidence.hit.text).text
    pairs = [word[i : i + 2] for word in about for i in range(max(1, len(word) - 1))]
    return not pairs or any(pair in folded for pair in pairs)


def _tidy(text: str) -> str:
    text = re.sub(r"\s+([.,;:!?。，；：！？])", r"\1", text.strip())
    return re.sub(r"^(?:[-*•]|\d+[.)、])\s+", "", text)
