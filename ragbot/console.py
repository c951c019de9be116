"""What the terminal shows: answers with their sources, hits, verdicts. Colours only on a terminal.

Documents, file names and answers are printed as text: no markup of theirs is interpreted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ragbot.types import Answer, Citation, Finding, Hit, LeftOut
from ragbot.verify import Problem, SavedCitation, Verdict

if TYPE_CHECKING:
    from rich.console import Console

_LINE = 80  # characters of a quote where it shares a line
_WIDEST = 200  # columns of a table where the terminal has not even so many
_EXCERPT = 400  # characters of a passage that a listing shows


def out() -> Console:
    """Standard output, for what was asked for."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True, emoji=False)


def err() -> Console:
    """Standard error, for everything else."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on standard output, and nothing else."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def answer_json(answer: Answer) -> dict[str, Any]:
    """An answer as `ragbot ask --json` prints it."""
    return {
        "question": answer.question,
        "language": answer.language,
        "answer": answer.answer,
        "abstained": answer.abstained,
        "confidence": answer.confidence,
        "citations": [asdict(citation) for citation in answer.citations],
        "related": [asdict(citation) for citation in answer.related],
        "queries": answer.queries,
        "passages": [
            {name: row[name] for name in ("rank", "doc", "paragraph", "score", "text")}
            for row in map(hit_json, answer.passages)
        ],
        "timings": asdict(answer.timings),
    }


def hit_json(hit: Hit) -> dict[str, Any]:
    """A hit as `ragbot search --json` prints it."""
    return {
        "rank": hit.rank,
        "doc": hit.doc,
        "paragraph": hit.paragraph,
        "score": round(hit.score, 6),
        "start": hit.start,
        "end": hit.end,
        "text": hit.text,
    }


def print_hits(hits: Sequence[Hit]) -> None:
    """A search's hits, best first."""
    console = out()
    for hit in hits:
        console.print(
            f"{hit.rank}. {place(hit)}  score {hit.score:.3f}", style="bold", markup=False
        )
        text = hit.text if len(hit.text) <= _EXCERPT else hit.text[:_EXCERPT] + "…"
        console.print(f"   {text}\n", markup=False)


def print_sources(answer: Answer) -> None:
    """Each citation with its place and its paragraph, the quoted sentence marked in it; what only
    comes nearest to a refused question under a heading that says so."""
    for citation in answer.citations:
        _print_source(citation, answer.passages)
    if answer.related:
        out().print("\nNearest, but not an answer:", style="bold", markup=False)
    for citation in answer.related:
        _print_source(citation, answer.passages)


def _print_source(citation: Citation, passages: Sequence[Hit]) -> None:
    from rich.text import Text

    console = out()
    console.print(Text(f"\n[{citation.marker}] {place(citation)}", style="bold"))
    console.print(_marked(citation, next((h for h in passages if _holds(h, citation)), None)))


def _marked(citation: Citation, hit: Hit | None) -> Any:
    """The quote in the passage that holds it; by itself where none of the hits does."""
    from rich.text import Text

    shown = Text("    ")
    before, after = ("", "") if hit is None else _around(citation, hit)
    shown.append(before, style="dim")
    shown.append(f">>{citation.quote}<<", style="bold yellow")
    shown.append(after, style="dim")
    return shown


def _around(citation: Citation, hit: Hit) -> tuple[str, str]:
    return hit.text[: citation.start - hit.start], hit.text[citation.end - hit.start :]


def _holds(hit: Hit, citation: Citation) -> bool:
    return hit.doc == citation.doc and hit.start <= citation.start and citation.end <= hit.end


def place(item: Hit | Citation | SavedCitation) -> str:
    """Where it stands, for readers."""
    return f"{item.doc}, paragraph {item.paragraph}"


def print_left_out(pieces: Sequence[tuple[str, LeftOut]]) -> None:
    """What was not indexed, and why."""
    console = err()
    for document, piece in pieces:
        text = " ".join(piece.text.split())[:80]
        console.print(f"left out of {document}: {text!r} ({piece.reason})", markup=False)


def print_findings(findings: Iterable[Finding]) -> None:
    """The doctor's report: a line each, the remedy under what needs one."""
    console = out()
    for finding in findings:
        mark = "✗" if finding.remedy else "✓"
        console.print(f"{mark} {finding.subject}: {finding.state}", markup=False)
        if finding.remedy:
            console.print(f"    to mend it: {finding.remedy}", style="bold", markup=False)


_WRONG = {
    "changed": "no paragraph of it holds the quote any more",
    "missing": "the corpus has no such document",
    "uncited": "it has no citation",
    "unused": "it has a citation and is not in the answer",
    "repeated": "it has several citations",
    "unproven": "it is no refusal and cites nothing",
}


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """What `ragbot verify --json` prints."""
    return {
        "answers": verdict.answers,
        "quotes": verdict.quotes,
        "stand": verdict.quotes - verdict.fallen,
        "problems": [
            {
                "answer": problem.answer,
                "marker": problem.marker,
                "problem": problem.state,
                "citation": problem.citation and problem.citation.model_dump(),
                "now": problem.now and asdict(problem.now),
            }
            for problem in verdict.problems
        ],
    }


def print_verdict(verdict: Verdict) -> None:
    """A line for everything that does not stand, and one that counts."""
    console = out()
    for problem in verdict.problems:
        answer = f"answer {problem.answer}" if verdict.answers > 1 else ""
        marker = f"[{problem.marker}]" if problem.marker is not None else ""
        where = place(problem.citation) if problem.citation else ""
        subject = " ".join(filter(None, (answer, marker, where))) or "answer"
        console.print(one_line(f"{subject}: {_wrong(problem)}"), markup=False)
    console.print(_count(verdict), markup=False)


def _wrong(problem: Problem) -> str:
    wrong = _WRONG.get(problem.state, "")
    if problem.now and problem.citation:
        stayed = problem.now.paragraph == problem.citation.paragraph
        wrong = f"moved {'within' if stayed else 'to'} paragraph {problem.now.paragraph}"
    return f"{wrong}: {_begun(problem.citation.quote)}" if problem.citation else wrong


def _begun(quote: str) -> str:
    return quote if len(quote) <= _LINE else quote[:_LINE] + "…"


def _count(verdict: Verdict) -> str:
    def things(number: int, thing: str) -> str:
        return f"{number} {thing}{'s' * (number != 1)}"

    fallen, others = verdict.fallen, len(verdict.problems) - verdict.fallen
    stand = verdict.quotes - fallen
    said = f"{things(verdict.quotes, 'quote')} in {things(verdict.answers, 'answer')}: "
    said += f"{stand} stand{'s' * (stand == 1)}"
    said += f", {fallen} {'does' if fallen == 1 else 'do'} not" if fallen else ""
    return said + (f"; {things(others, 'other problem')}." if others else ".")


def one_line(text: str) -> str:
    """A text that cannot steer the terminal: a saved answer may come from anybody."""
    return "".join(char if char.isprintable() else " " for char in text)


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Figures in columns, the first one to the left, the others to the right."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, head in enumerate(heads):
        table.add_column(head, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    # As wide as it is, also where there is no terminal and a width is only guessed.
    wide = out()
    wide.width = max(wide.width, _WIDEST)
    wide.print(table)


def print_search(answer: Answer) -> None:
    """What was searched for, if it is not the question itself, and how sure the answer is."""
    for query in answer.queries:
        if query != answer.question:
            err().print(f"Searched for: {query}", markup=False)
    err().print(f"Confidence: {answer.confidence:.2f}")


def print_translations(translations: Mapping[int, str]) -> None:
    """Quotes in the reader's language, which prove nothing: the quote itself does."""
    for marker, text in translations.items():
        out().print(f"\n[{marker}] means: {text}", markup=False, emoji=False)
