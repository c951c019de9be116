"""Whether a text supports a claim, and how well an answer's citations do, after ALCE.

The judge of support is a small chat model that is asked for the relation of premise and hypothesis;
what it would say first, by probability, is read. It works within and across languages, and shares
nothing with the proofs that ragbot demands of its own answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache

from ragbot.text import sentences
from ragbot.types import Message

Support = Callable[[str, str], bool]
"""Whether the second text, a quotation or several, supports the first, a claim."""

FirstToken = Callable[[Sequence[Message]], Mapping[str, float]]

_INSTRUCTION = (
    "You are a natural language inference system. Reply with one word: entailment, neutral or"
    " contradiction."
)
_YES, _NO = ("entailment",), ("neutral", "contradiction")
# The log odds of "entailment" from which on a claim counts as supported. The small model is too
# reluctant: at 0 it agrees with 80 of 100 hand-labelled pairs, here with 90 (`make agreement`).
THRESHOLD = -2.0
_UNSEEN = -20.0  # the log probability of what is not among the likeliest tokens, about


def entailment(first_token: FirstToken) -> Support:
    """The check by a chat model, of which `first_token` gives a reply's likeliest first tokens.

    Each pair is asked once. Raises ModelError when used and the model fails.
    """

    @cache
    def supports(claim: str, text: str) -> bool:
        return log_odds(first_token, claim, text) >= THRESHOLD

    return supports


def log_odds(first_token: FirstToken, claim: str, text: str) -> float:
    """How much likelier "entailment" is than the likeliest of the other relations."""
    premise, hypothesis = " ".join(text.split()), " ".join(claim.split())
    asked = f"Premise: {premise}\nHypothesis: {hypothesis}\nRelation:"
    said = first_token([Message("system", _INSTRUCTION), Message("user", asked)])
    entailed = _likeliest(said, _YES)
    return entailed - _likeliest(said, _NO) if entailed > _UNSEEN else _UNSEEN


def _likeliest(said: Mapping[str, float], words: Sequence[str]) -> float:
    fitting = [
        probability
        for token, probability in said.items()
        if token.strip() and any(word.startswith(token.strip().lower()) for word in words)
    ]
    return max(fitting, default=_UNSEEN)


# --- an answer's sentences and what supports them --------------------------------------------

_MARKERS = re.compile(r"\s*((?:\[\d+\]\s*)+)")


def cited_sentences(answer: str) -> list[tuple[str, list[int]]]:
    """The sentences of an answer without their markers, each with the numbers of its markers."""
    found: list[tuple[str, list[int]]] = []
    parts = _MARKERS.split(answer)
    for text, markers in zip(parts[::2], [*parts[1::2], ""], strict=True):
        spoken = [text[a:b] for a, b in sentences(text) if any(map(str.isalnum, text[a:b]))]
        found += [(sentence, []) for sentence in spoken]
        if found:
            found[-1][1].extend(int(number) for number in re.findall(r"\d+", markers))
    return found


def without_markers(answer: str) -> str:
    """An answer as it would read without citations."""
    return _MARKERS.sub(" ", answer).strip()


def recall_and_precision(
    answer: str, quotes: Mapping[int, str], support: Support
) -> tuple[float, float, dict[int, bool]]:
    """Citation recall and precision of an answer after ALCE (Gao et al., EMNLP 2023), and which
    markers are precise.

    A sentence is recalled when its quotations together support it. A citation is precise when its
    sentence is recalled, unless it does not support the sentence alone and the rest do without it.
    Recall is the share of sentences, precision that of citations; an answer without any has 0.
    """
    recalled: list[bool] = []
    precise: list[tuple[int, bool]] = []
    for claim, markers in cited_sentences(answer):
        cited = {marker: quotes[marker] for marker in markers if marker in quotes}
        whole = bool(cited) and support(claim, "\n".join(cited.values()))
        recalled.append(whole)
        for marker in dict.fromkeys(markers):
            precise.append((marker, whole and _needed(claim, marker, cited, support)))
    good = {marker: any(yes for other, yes in precise if other == marker) for marker, _ in precise}
    return _share(recalled), _share([yes for _, yes in precise]), good


def _needed(claim: str, marker: int, cited: Mapping[int, str], support: Support) -> bool:
    if marker not in cited:  # a marker that stands for nothing
        return False
    if len(cited) == 1 or support(claim, cited[marker]):
        return True
    return not support(claim, "\n".join(q for other, q in cited.items() if other != marker))


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else 0.0
