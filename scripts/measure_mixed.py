"""Do two languages in one corpus crowd each other out?

usage: python scripts/measure_mixed.py CHINESE.txt ENGLISH.txt QUESTIONS.jsonl... [--limit N]

The corpora are parallel, a paragraph a line: of the first half of the lines the Chinese is kept, of
the others the English, as two files of one folder. So a question's answer is there in one language
only, whatever it is asked in. Prints recall@1 and @5 for questions in the language of their
paragraph and in the other one, as they are and with the generator's translation.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path

from ragbot import RagBot
from ragbot.config import load_config
from ragbot.evaluation.questions import Selection, load_questions, select

PLACES = (1, 5)


def halves(chinese: Path, english: Path, folder: Path) -> int:
    """Write the mixed corpus; the number of the last line that is Chinese."""
    zh = chinese.read_text(encoding="utf-8").splitlines()
    en = english.read_text(encoding="utf-8").splitlines()
    middle = len(zh) // 2
    (folder / "zh.txt").write_text("\n".join(zh[:middle]), encoding="utf-8")
    (folder / "en.txt").write_text("\n".join(en[middle:]), encoding="utf-8")
    return middle


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chinese", type=Path)
    parser.add_argument("english", type=Path)
    parser.add_argument("questions", nargs="+", type=Path)
    parser.add_argument("--limit", type=int)
    options = parser.parse_args()
    ranks: dict[tuple[str, str], list[int]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        middle = halves(options.chinese, options.english, Path(name))
        bot = RagBot.from_corpus(config=load_config({"corpus": Path(name)}))
        for path in options.questions:
            for question in select(load_questions(path), Selection(limit=options.limit)):
                gold = {place.paragraph for place in question.gold}
                there = "zh" if min(gold) <= middle else "en"
                wanted = {(f"{there}.txt", n - (middle if there == "en" else 0)) for n in gold}
                kind = f"{question.lang[:2]} over {there}"
                queries = bot.queries(question.question)
                for way, phrasings in (("as asked", ()), ("translated, too", queries[1:])):
                    hits = bot.retriever.search(queries[0], limit=10, phrasings=phrasings)
                    places = [(hit.doc, hit.paragraph) in wanted for hit in hits]
                    ranks[kind, way].append(places.index(True) + 1 if any(places) else 99)
    for (kind, way), found in sorted(ranks.items()):
        recalls = "  ".join(f"@{k} {sum(r <= k for r in found) / len(found):.3f}" for k in PLACES)
        print(f"{kind:12} {way:16} {recalls}  ({len(found)} questions)")


if __name__ == "__main__":
    main()
