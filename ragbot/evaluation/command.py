"""What `ragbot eval` does: run or go on with an evaluation, compare two, and print the figures."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragbot import console
from ragbot.config import load_config
from ragbot.errors import ConfigError, StoreError
from ragbot.evaluation.compare import compare
from ragbot.evaluation.conditions import Conditions
from ragbot.evaluation.metrics import RATES
from ragbot.evaluation.questions import Selection
from ragbot.evaluation.records import REPORT, Run, writing
from ragbot.evaluation.report import comparison_report, run_report
from ragbot.evaluation.run import CHECKER, Evaluation, Plan, open_evaluation
from ragbot.evaluation.summary import at, shortfalls, summarise, thresholds
from ragbot.store import replace_file
from ragbot.types import Progress
from ragbot.waiting import countdown, progress

__all__ = [
    "CHECKER",
    "Conditions",
    "Output",
    "Plan",
    "Selection",
    "conduct",
    "evaluate",
    "show_comparison",
]


@dataclass(frozen=True, slots=True)
class Output:
    """Where a run is kept, and what is done with its figures."""

    folder: Path | None = None
    resume: bool = False
    fail_under: tuple[str, ...] = ()
    as_json: bool = False


def evaluate(plan: Plan, flags: Mapping[str, Any], output: Output) -> bool:
    """Run the plan and print its figures. Whether they reach what was demanded. RagbotError."""
    least = thresholds(output.fail_under)
    if output.folder is None and not plan.retrieval_only:
        raise ConfigError("Answers take long and are kept: name a folder for them with --out.")
    if output.folder is None and output.resume:
        raise ConfigError("Name the folder of the run that is to go on with --out.")
    if output.folder and not output.resume:
        Run(output.folder).require_none()
    with progress() as report:
        evaluation = open_evaluation(plan, load_config(flags), report)
        try:
            summary = conduct(evaluation, output, countdown(report, "Asking"))
        except KeyboardInterrupt:
            if output.folder:
                console.err().print("Stopped: what is answered is kept, --resume goes on after it.")
            raise
    short = shortfalls(summary, least)
    _print(summary, output)
    for sentence in short:
        console.err().print(f"Falls short: {sentence}.", markup=False)
    return not short


def conduct(evaluation: Evaluation, output: Output, progress: Progress) -> dict[str, Any]:
    """Ask what is not answered yet, keep it in the folder, and give the summary. RagbotError."""
    config = evaluation.fingerprint()
    with writing(output.folder) if output.folder else nullcontext() as run:
        done = run.begin(config, resume=output.resume) if run else {}
        progress(len(done), len(evaluation.cases))
        for record in evaluation.records(done):
            if run:
                run.add(record)
            done[record.id] = record
            progress(len(done), len(evaluation.cases))
        records = [done[case.question.id] for case in evaluation.cases]
        summary = summarise(records, config)
        if run:
            run.finish(summary, run_report(summary, records, evaluation.passages()))
    return summary


def _print(summary: Mapping[str, Any], output: Output) -> None:
    if output.as_json:
        console.print_json(summary)
        return
    rows = [
        (name, _shown(at(summary, name)), _between(*(at(summary["ci95"], name))))
        for name in RATES
        if at(summary, name) is not None
    ]
    console.print_table(("metric", "value", "95 % interval"), rows)
    for name in ("ttft_ms", "total_ms"):
        if times := summary["latency"][name]:
            console.out().print(f"{name}: median {times['p50']:.0f}, p95 {times['p95']:.0f}")
    if wrong := {step: n for step, n in summary["steps"].items() if n}:
        console.out().print(f"wrong: {', '.join(f'{n} {step}' for step, n in wrong.items())}")
    console.out().print(f"{summary['n']} questions")
    if output.folder:
        console.err().print(f"Report: {output.folder / REPORT}", markup=False)


def show_comparison(a: Path, b: Path, html: Path | None, *, as_json: bool) -> None:
    """Print how run B differs from run A; also as a page. Raises ConfigError, StoreError."""
    found = compare(Run(a), Run(b))
    if html:
        try:
            replace_file(html, comparison_report(found))
        except OSError as error:
            raise StoreError(f"{html} cannot be written: {error.strerror or error}.") from error
    if as_json:
        console.print_json(found)
        return
    console.print_table(
        ("metric", "A", "B", "B - A", "95 % interval", ""),
        [
            (
                name,
                _shown(row["a"]),
                _shown(row["b"]),
                _shown(row["difference"], "+.3f"),
                _between(row["low"], row["high"]),
                f"{row['better'].upper()} better, significant" if row["significant"] else "",
            )
            for name, row in found["metrics"].items()
        ],
    )
    _print_notes(found)


def _print_notes(found: Mapping[str, Any]) -> None:
    out = console.out()
    for change in found["settings"]:
        out.print(f"setting: {change}", markup=False)
    for name, said in (("gained", "right in B only"), ("lost", "right in A only")):
        out.print(f"\n{len(found[name])} questions {said}", style="bold")
        for flip in found[name]:
            out.print(f"{flip['id']}  {flip['question']}", markup=False)
            for run in ("a", "b"):
                told = flip[run]["answer"] or flip[run]["step"] or "-"
                out.print(f"    {run.upper()}: {told}", markup=False, style="dim")
    only = found["only_in_a"] + found["only_in_b"]
    left = f"; {only} that one run alone asked are left out" if only else ""
    out.print(f"\n{found['n']} questions compared{left}")


def _shown(value: float | None, form: str = ".3f") -> str:
    return "-" if value is None else format(value, form)


def _between(low: float | None, high: float | None) -> str:
    return "" if low is None else f"{low:.3f} to {high:.3f}"
