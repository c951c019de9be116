"""What was measured: one JSON file, a part at a time, so that the others' results are kept."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ragbot.errors import StoreError
from ragbot.store import replace_file
from scripts.bench.plan import MAX_TOKENS, MODELS, SEED, Plan, Sample, Table

_LIBRARIES = ("ragbot", "xllamacpp", "onnxruntime", "faiss-cpu", "bm25s", "openai", "numpy")

Results = dict[str, Any]


def load(path: Path) -> Results:
    """The results so far, {part: result}; none when there is no file. Raises StoreError."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{path} cannot be read ({error}): move it away, or name another file with --out."
        ) from error
    if not isinstance(kept, dict):
        raise StoreError(f"{path} holds no results: move it away, or name another with --out.")
    return kept


def save(path: Path, results: Mapping[str, Any]) -> None:
    """Write the results, all at once. Raises StoreError."""
    save_text(path, json.dumps(results, ensure_ascii=False, indent=1) + "\n")


def save_text(path: Path, text: str) -> None:
    """Write a file, all at once. Raises StoreError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, text)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written ({error.strerror}): name another file for it."
        ) from error


def merged(results: Mapping[str, Any], part: str, result: Mapping[str, Any]) -> Results:
    """The results with those of one part in place of what it had before."""
    return {**results, part: dict(result)}


def result(
    plan: Plan, samples: Sequence[Sample], tables: Sequence[Table], *, complete: bool
) -> Results:
    """The result of a part: when, where, with what, the tables, and the samples behind them."""
    return {
        "measured": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "complete": complete,
        "machine": machine(),
        "versions": versions(),
        "settings": settings(plan),
        "tables": [asdict(table) for table in tables],
        "samples": list(samples),
    }


def settings(plan: Plan) -> dict[str, Any]:
    """What the figures depend on, and nothing of where things lie."""
    return {
        "questions": [question.id for question in plan.questions],
        "warm_up": plan.warm_up.id,
        "seed": SEED,
        "corpus": plan.corpus.name,
        "models": MODELS,
        "max_tokens": MAX_TOKENS,
        "cold_starts": plan.cold_starts,
        "rounds": plan.rounds,
        "peer_questions": plan.peer_questions,
    }


def machine() -> dict[str, Any]:
    """The processor, its cores and the memory; how busy it was when the part was done."""
    return {
        "system": platform.system(),
        "processor": _field(Path("/proc/cpuinfo"), "model name") or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_average": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Python, and the libraries that the times depend on."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _field(path: Path, name: str) -> str:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    values = (line.partition(":")[2].strip() for line in lines if line.startswith(name))
    return next(values, "")
