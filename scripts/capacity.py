"""How long readers wait, by how many there are and how many generators: a simulation to plan by.

usage: python -m scripts.capacity [--seconds FILE]

Readers come at random (Poisson), each with one question, and the desk's rules hold: so many wait at
the most, and nobody for longer than his patience (ragbot/web/desk.py). How long a generator takes
is drawn from measured times: FILE is a list of seconds, or `answers.jsonl` of an evaluation. One
queue stands for those of all copies of the server, which is the best that a balancer can do. What
is foretold for readers at once is set beside what `python -m scripts.bench --only readers`
measured, where docs/results/bench.json has that. Writes docs/results/capacity.json and
docs/images/capacity.png, the same ones each time.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.bench.figures import largest, median, p95

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from simpy import Environment, Event, Resource

ROOT = Path(__file__).parents[1]
SECONDS = ROOT / "docs" / "results" / "seconds.json"
BENCH = ROOT / "docs" / "results" / "bench.json"
RESULT = ROOT / "docs" / "results" / "capacity.json"
PICTURE = ROOT / "docs" / "images" / "capacity.png"

RATES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # readers a minute
GENERATORS = (1, 2, 5, 10, 20, 50)
ROOM, PATIENCE, LIMIT = 64, 300.0, 180.0  # places; seconds in the queue, and at work
SEED = 0
GOOD_TIME = 30.0  # seconds to the answer, for 95 of 100
_LEAST, _MINUTES = 3000, 30  # readers of one simulation, or the minutes, whichever is more
_WARM = 0.2  # of them come before anything is counted

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Visit:
    """What became of a reader; times in seconds. One who was refused has no times."""

    number: int
    waited: float | None = None
    answered: float | None = None
    """From asking to the answer, which is shown when it is proven, not before."""


# --- the queue -------------------------------------------------------------------------------


class Desk:
    """So many generators with one queue before them, and who was there."""

    def __init__(self, generators: int, seconds: Sequence[float], seed: int):
        import simpy

        self.env: Environment = simpy.Environment()
        self.places: Resource = simpy.Resource(self.env, generators)
        self.visits: list[Visit] = []
        self.random = random.Random(seed)
        self._seconds = seconds

    def ask(self, number: int) -> Generator[Event, object, None]:
        """A reader with a question, from the door to the answer."""
        begun = self.env.now
        if len(self.places.queue) >= ROOM:
            self.visits.append(Visit(number))
            return
        with self.places.request() as turn:
            yield turn | self.env.timeout(PATIENCE)
            if not turn.triggered:
                self.visits.append(Visit(number))
                return
            waited = self.env.now - begun
            yield self.env.timeout(min(self.random.choice(self._seconds), LIMIT))
            self.visits.append(Visit(number, waited, self.env.now - begun))


def crowd(rate: float, generators: int, seconds: Sequence[float]) -> list[Visit]:
    """What became of readers who come at `rate` a minute, once the queue has settled."""
    desk = Desk(generators, seconds, SEED)
    readers = max(_LEAST, round(rate * _MINUTES))

    def door() -> Generator[Event, object, None]:
        for number in range(readers):
            yield desk.env.timeout(desk.random.expovariate(rate / 60))
            desk.env.process(desk.ask(number))

    desk.env.process(door())
    desk.env.run()
    return [visit for visit in desk.visits if visit.number >= _WARM * readers]


def at_once(readers: int, rounds: int, seconds: Sequence[float], seed: int) -> list[Visit]:
    """What becomes of readers who all ask one generator at the same moment, and again as soon as
    they have their answer."""
    desk = Desk(1, seconds, seed)

    def reader(number: int) -> Generator[Event, object, None]:
        for _ in range(rounds):
            yield from desk.ask(number)

    for number in range(readers):
        desk.env.process(reader(number))
    desk.env.run()
    return desk.visits


def grid(seconds: Sequence[float]) -> list[Row]:
    """The waits of each crowd before each number of generators."""
    return [_row(rate, many, crowd(rate, many, seconds)) for many in GENERATORS for rate in RATES]


def needed(rate: float, seconds: Sequence[float]) -> Row:
    """The fewest generators with which 95 of 100 have their answer in good time, and the waits."""
    generators = math.ceil(rate / 60 * statistics.fmean(seconds))
    while True:
        row = _row(rate, generators, crowd(rate, generators, seconds))
        if not row["refused"] and (row["answer_p95_s"] or 0.0) <= GOOD_TIME:
            return row
        generators += 1


def _row(rate: float, generators: int, visits: Sequence[Visit]) -> Row:
    waits = [visit.waited for visit in visits if visit.waited is not None]
    answers = [visit.answered for visit in visits if visit.answered is not None]
    return {
        "readers_a_minute": rate,
        "generators": generators,
        "wait_median_s": _rounded(median(waits)),
        "wait_p95_s": _rounded(p95(waits)),
        "answer_median_s": _rounded(median(answers)),
        "answer_p95_s": _rounded(p95(answers)),
        "refused": round(1 - len(answers) / len(visits), 4),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


# --- beside what was measured ----------------------------------------------------------------

_DRAWS = 400


def check(bench: Path) -> list[Row]:
    """Seconds to the answer for readers at once, foretold from those of one reader, and measured;
    empty where nothing was measured."""
    if not bench.exists():
        return []
    part = json.loads(bench.read_text(encoding="utf-8")).get("readers", {})
    samples = [one for one in part.get("samples", []) if one["readers"] and not one["refused"]]
    alone = [one["total_s"] for one in samples if one["readers"] == 1]
    crowds = sorted({one["readers"] for one in samples})
    return [_checked(many, samples, alone) for many in crowds] if alone else []


def _checked(readers: int, samples: Sequence[Row], alone: Sequence[float]) -> Row:
    measured = [one["total_s"] for one in samples if one["readers"] == readers]
    rounds = max(1, round(len(measured) / readers))
    middles, lasts = [], []
    for seed in range(_DRAWS):
        times = [v.answered for v in at_once(readers, rounds, alone, seed) if v.answered]
        middles.append(median(times))
        lasts.append(largest(times))
    return {
        "readers": readers,
        "questions": len(measured),
        "foretold_median_s": _rounded(median(middles)),
        "foretold_longest_s": _rounded(median(lasts)),
        "measured_median_s": _rounded(median(measured)),
        "measured_longest_s": _rounded(largest(measured)),
    }


# --- files -----------------------------------------------------------------------------------


def load_seconds(path: Path) -> list[float]:
    """Measured seconds of a file, see above. Raises OSError, ValueError, KeyError."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        rows = map(json.loads, filter(str.strip, text.splitlines()))
        return [row["timings"]["total_ms"] / 1000 for row in rows]
    found = json.loads(text)
    return [float(value) for value in (found["seconds"] if isinstance(found, dict) else found)]


def draw(rows: Sequence[Row], checked: Sequence[Row], path: Path) -> None:
    """The picture: waits, refusals, and readers at once."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, (waits, refused, once) = pyplot.subplots(1, 3, figsize=(15, 4.6), layout="tight")
    for colour, many in enumerate(GENERATORS):
        mine = [row for row in rows if row["generators"] == many]
        _line(waits, mine, "answer_median_s", Look(f"C{colour}", "-", str(many)))
        _line(waits, mine, "answer_p95_s", Look(f"C{colour}", ":"))
        _line(refused, mine, "refused", Look(f"C{colour}", "-", str(many)))
    waits.set(xscale="log", yscale="log", title="Seconds to the answer: median, p95 dotted")
    refused.set(xscale="log", title="Share refused, or tired of waiting")
    for axes in (waits, refused):
        axes.set_xlabel("readers a minute")
        axes.legend(title="generators", fontsize="small")
    _draw_check(once, checked)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


@dataclass(frozen=True, slots=True)
class Look:
    """How a line is drawn; one with a label is in the legend."""

    colour: str
    style: str
    label: str | None = None


def _line(axes: Axes, rows: Sequence[Row], name: str, look: Look) -> None:
    """A line through a figure of the rows."""
    across = [row["readers_a_minute"] for row in rows]
    axes.plot(across, [row[name] for row in rows], look.style, color=look.colour, label=look.label)


def _draw_check(axes: Axes, checked: Sequence[Row]) -> None:
    axes.set(title="Readers at once, one generator: seconds to the answer", xlabel="readers")
    if not checked:
        axes.text(0.5, 0.5, "not measured yet", ha="center", transform=axes.transAxes)
        return
    readers = [row["readers"] for row in checked]
    for name, colour in (("median", "C0"), ("longest", "C1")):
        axes.plot(readers, [row[f"foretold_{name}_s"] for row in checked], "-", color=colour)
        axes.plot(readers, [row[f"measured_{name}_s"] for row in checked], "o", color=colour)
        axes.plot([], [], "-o", color=colour, label=f"{name}: line foretold, points measured")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize="small")


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate, compare, write. Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=Path, default=SECONDS, help="measured seconds")
    parser.add_argument("--bench", type=Path, default=BENCH, help="results of scripts.bench")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    options = parser.parse_args(arguments)
    try:
        seconds = load_seconds(options.seconds)
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"{options.seconds} holds no measured seconds ({error}).", file=sys.stderr)
        return 2
    rows, checked = grid(seconds), check(options.bench)
    result = {
        "seconds": {"from": options.seconds.name, "n": len(seconds), "median": median(seconds)},
        "rules": {"room": ROOM, "patience_s": PATIENCE, "limit_s": LIMIT, "seed": SEED},
        "crowds": rows,
        "needed": [needed(rate, seconds) for rate in RATES],
        "at_once": checked,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    draw(rows, checked, options.picture)
    for row in checked:
        print(row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
