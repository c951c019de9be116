"""The results as a page of Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_HEAD = """# Bench

Made by `make bench` (`python -m scripts.bench`) out of `docs/results/bench.json`, which also has
every sample; parts are measured anew with `--only`. Times are seconds of the wall clock. "First
text" is the first of the answer that a reader could read: ragbot shows a sentence when it is
proven, its peers as it is written. "Nearest sentence" is what ragbot shows before: the sentence of
the documents that comes nearest to the question. "Memory" is the most that a process and its
children have held, mapped files of models included.
"""
_BROKEN_OFF = "Broken off: the figures are those of the samples until then."


def rendered(results: Mapping[str, Any], order: Sequence[str]) -> str:
    """The page of all parts that have results, in this order."""
    sections = [_section(name, results[name]) for name in order if name in results]
    return "\n".join([_HEAD, *sections])


def _section(name: str, result: Mapping[str, Any]) -> str:
    lines = [f"## {name.capitalize()}", "", _conditions(result), ""]
    if not result["complete"]:
        lines += [_BROKEN_OFF, ""]
    for table in result["tables"]:
        lines += [f"**{table['title']}**: {table['conditions']}", "", markdown(table["rows"]), ""]
    return "\n".join(lines)


def _conditions(result: Mapping[str, Any]) -> str:
    machine, versions = result["machine"], result["versions"]
    libraries = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{result['measured']}; {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_gb']} GB, load {machine['load_average']} at the end; {libraries}."
    )


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows, all with the columns of the first, as a Markdown table; figures stand to the right."""
    if not rows:
        return "Nothing was measured."
    columns = list(rows[0])
    rule = [_rule([row[column] for row in rows]) for column in columns]
    body = [[_cell(row[column]) for column in columns] for row in rows]
    return "\n".join(
        f"| {' | '.join(line)} |" for line in ([_cell(c) for c in columns], rule, *body)
    )


def _rule(values: Sequence[Any]) -> str:
    return "---" if any(isinstance(value, str) for value in values) else "---:"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
    return str(value).replace("|", "\\|").replace("\n", " ")
