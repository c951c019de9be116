"""The command: `python -m scripts.bench [--only PART,PART] [--limit N]`.

Progress goes to standard error. Exit codes are ragbot's: 0 done, 2 a mistake that one sentence says
how to mend, 130 interrupted; what was measured until then is kept.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ragbot.config import load_config
from ragbot.errors import ConfigError, RagbotError
from ragbot.faiss_index import open_index
from ragbot.models import fingerprint, resolve_encoder
from ragbot.web.starts import save_starts
from scripts.bench import answering, page, peers, readers, results, searching
from scripts.bench.plan import ROOT, Part, Plan, Sample, draw
from scripts.bench.processes import own, timed

PARTS = {part.name: part for part in (answering.PART, readers.PART, peers.PART, searching.PART)}
QUESTIONS = ROOT.parent / "shared" / "questions" / "article_dev.jsonl"


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message[:1].upper()}{message[1:]}: --help lists what there is.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the parts asked for, and write results and page. Returns the exit code."""
    try:
        options = _parser().parse_args(arguments)
        _measure(options)
    except RagbotError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; what was measured is kept.", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m scripts.bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", type=_parts, default=list(PARTS), help=", ".join(PARTS))
    parser.add_argument(
        "--questions", type=Path, default=QUESTIONS, help="question set to draw from"
    )
    parser.add_argument(
        "--corpus", type=Path, default=ROOT / "corpus", help="folder of one document"
    )
    parser.add_argument("--limit", type=_positive, default=12, help="questions drawn (12)")
    parser.add_argument("--peer-limit", type=_positive, default=8, help="of them for peers (8)")
    parser.add_argument("--cold", type=_positive, default=3, help="cold starts of each model (3)")
    parser.add_argument("--rounds", type=_positive, default=2, help="questions a reader (2)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "bench.json")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "bench.md")
    return parser


def _parts(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in PARTS]
    if unknown or not names:
        raise ConfigError(
            f"There is no part {', '.join(map(repr, unknown)) or repr(text)}: name some of "
            f"{', '.join(PARTS)}, with commas between them."
        )
    return [name for name in PARTS if name in names]


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 up")
    return int(text)


def _measure(options: argparse.Namespace) -> None:
    questions, warm_up = draw(options.questions, options.limit)
    results.load(options.out)  # what is wrong with it shows before anything is measured
    with tempfile.TemporaryDirectory(prefix="ragbot-bench-") as folder:
        plan = Plan(
            questions,
            warm_up,
            options.corpus.resolve(),
            Path(folder, "index"),
            options.cold,
            options.rounds,
            options.peer_limit,
        )
        _index(plan)
        for name in options.only:
            _part(PARTS[name], plan, (options.out, options.page))


def _index(plan: Plan) -> None:
    """Make the index, with no example questions to come: they would be made between readers'."""
    timed([*own("ragbot"), "index", str(plan.corpus), "--index", str(plan.index)])
    config = load_config()
    encoder = fingerprint(resolve_encoder(config.encoder, config.cache))
    save_starts(plan.index, open_index(plan.index, encoder), ())


def _part(part: Part, plan: Plan, files: tuple[Path, Path]) -> None:
    """Measure a part; its results are on disk after every sample."""
    samples: list[Sample] = []
    count, start = part.count(plan), time.monotonic()
    _say(f"{part.name}: {count} samples")
    for sample in part.samples(plan):
        samples.append(sample)
        _keep(part, plan, samples, files, complete=False)
        spent = time.monotonic() - start
        left = spent / len(samples) * max(0, count - len(samples))
        _say(f"  {part.name} {len(samples)} of {count}, {spent:.0f} s, about {left:.0f} s left")
    _keep(part, plan, samples, files, complete=True)


def _keep(
    part: Part, plan: Plan, samples: Sequence[Sample], files: tuple[Path, Path], *, complete: bool
) -> None:
    out, to_page = files
    measured = results.result(plan, samples, part.tables(samples), complete=complete)
    kept = results.merged(results.load(out), part.name, measured)
    results.save(out, kept)
    results.save_text(to_page, page.rendered(kept, list(PARTS)))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
