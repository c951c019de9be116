"""ragbot beside its peers: the same corpus, questions, encoder weights and generator file.

The peers run in an environment of their own, which is made here. All answerers are open at the same
time and are asked in turn, question by question, so that what else the machine does meets them
alike. Each peer's generator is served by a llama.cpp of its own, the build that ragbot runs.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ragbot.config import load_config
from ragbot.evaluation.questions import Question
from ragbot.models import resolve_encoder, resolve_generator
from scripts.bench.figures import largest, mean, median, p95, paired_ratio, whole
from scripts.bench.plan import (
    MAX_TOKENS,
    MODELS,
    ROOT,
    Part,
    Plan,
    Row,
    Sample,
    Table,
    cited,
    cites_gold,
    right,
    tokens,
)
from scripts.bench.processes import Child, FailedError, environment, own, peak_mb, served

REQUIREMENTS = Path(__file__).with_name("peers.txt")
ENVIRONMENT = ROOT / ".bench-venv"
CONTEXT = 8192  # tokens: room for whatever a peer puts into a prompt
OURS = "ragbot"
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is on this machine


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer's name, its module in `answerer/`, and whether it is set to read as little as ours."""

    name: str
    module: str
    lean: bool


PEERS = (
    Peer("LlamaIndex", "llamaindex", False),
    Peer("LlamaIndex, paragraphs", "llamaindex", True),
    Peer("Haystack", "haystack", False),
    Peer("Haystack, 3 passages", "haystack", True),
)


class Opened:
    """An answerer that runs, with the server of its generator if it is a peer."""

    def __init__(self, child: Child, url: str = "", server: int = 0):
        self._child, self._url, self._server = child, url, server

    def ask(self, plan: Plan, question: Question) -> Sample:
        """A sample of one question. Raises FailedError."""
        before = self._counted()
        told = self._child.ask(question.question)
        pieces = cited(told["text"], told["sources"])
        return {
            "near_s": told.get("near_s"),
            "first_s": told["first_s"],
            "total_s": told["total_s"],
            **self._effort(told, before),
            "right": right(question, told["text"], told.get("abstained", False)),
            "cites_gold": cites_gold(question, pieces, plan.corpus),
            "text": told["text"],
            "peak_mb": round(self._child.peak_mb() + (peak_mb(self._server) if self._url else 0)),
        }

    def _effort(self, told: Sample, before: tuple[float, float]) -> Sample:
        """Tokens that were read, what lay in the cache not counted, and written."""
        if self._url:
            read, written = self._counted()
            return {"read": read - before[0], "written": written - before[1]}
        timings = told["timings"]
        reused = tokens(timings, "reused")
        read_anew = None if reused is None else timings["prompt_tokens"] - reused
        return {"read": read_anew, "written": timings["completion_tokens"]}

    def _counted(self) -> tuple[float, float]:
        """The tokens that a peer's generator has read and written so far, by its own account."""
        if not self._url:
            return 0, 0
        with _DIRECT.open(f"{self._url}/metrics") as reply:
            lines = reply.read().decode().splitlines()
        counts = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        read, written = "llamacpp:prompt_tokens_total", "llamacpp:tokens_predicted_total"
        return float(counts[read]), float(counts[written])


def _count(plan: Plan) -> int:
    return (1 + len(PEERS)) * len(plan.questions[: plan.peer_questions])


def _samples(plan: Plan) -> Iterator[Sample]:
    reason = _prepared()
    with ExitStack() as stack:
        answerers = {OURS: _ours(stack, plan)}
        for peer in PEERS:
            print(f"  opening {peer.name} ...", file=sys.stderr, flush=True)
            try:
                if reason:
                    raise FailedError(reason)
                answerers[peer.name] = _opened(stack, peer, plan)
            except FailedError as error:
                yield {"answerer": peer.name, "failed": str(error)}
        for question in plan.questions[: plan.peer_questions]:
            for name, answerer in list(answerers.items()):
                sample: Sample = {"answerer": name, "question": question.id}
                try:
                    yield sample | answerer.ask(plan, question)
                except FailedError as error:
                    del answerers[name]
                    yield sample | {"failed": str(error)}


def _ours(stack: ExitStack, plan: Plan) -> Opened:
    settings = {"corpus": str(plan.corpus), "index": str(plan.index), "llm": MODELS["1.5B"]}
    return _warm(stack, Child(own("scripts.bench.answerer.own"), settings), plan)


def _opened(stack: ExitStack, peer: Peer, plan: Plan) -> Opened:
    config = load_config()
    model = resolve_generator(MODELS["1.5B"], config.cache)
    server = own("scripts.bench.answerer.model_server")
    url, pid = stack.enter_context(served([*server, model, str(CONTEXT)]))
    settings = {
        "url": f"{url}/v1",
        "encoder": resolve_encoder(config.encoder, config.cache),
        "corpus": str(plan.corpus),
        "context": CONTEXT,
        "max_tokens": MAX_TOKENS,
        "lean": peer.lean,
    }
    module = f"scripts.bench.answerer.{peer.module}"
    return _warm(stack, Child([str(_python()), "-m", module], settings), plan, url, pid)


def _warm(stack: ExitStack, child: Child, plan: Plan, url: str = "", server: int = 0) -> Opened:
    """The answerer after a question that does not count."""
    stack.callback(child.close)
    child.ask(plan.warm_up.question)
    return Opened(child, url, server)


# --- their environment -----------------------------------------------------------------------


def _python() -> Path:
    return ENVIRONMENT / "bin" / "python"


def _prepared() -> str:
    """Make the peers' environment, unless it is there; empty, or the reason why it cannot be."""
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    stamp = ENVIRONMENT / "requirements.sha256"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return ""
    print("  installing the peers (some minutes, once) ...", file=sys.stderr, flush=True)
    install = [str(_python()), "-m", "pip", "install", "--quiet", "-r", str(REQUIREMENTS)]
    for command in ([sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)], install):
        done = subprocess.run(command, env=environment(), capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            return f"The peers cannot be installed: {last[:200]}"
    stamp.write_text(wanted, encoding="utf-8")
    return ""


# --- tables ----------------------------------------------------------------------------------


def _tables(samples: Sequence[Sample]) -> list[Table]:
    names = list(dict.fromkeys([OURS, *(sample["answerer"] for sample in samples)]))
    ours = {s["question"]: s for s in samples if s["answerer"] == OURS}
    rows = [_row(name, [s for s in samples if s["answerer"] == name], ours) for name in names]
    return [
        Table(
            "Beside peers",
            "1.5B, warm, streamed, one question at a time and each to all of them in turn; the "
            f"same encoder weights and GGUF file, greedy, {MAX_TOKENS} tokens at the most; the "
            "peers' GGUF is served by the llama.cpp that ragbot runs, with its own defaults; "
            "times of ours is the median of a question's own ratios; right and cites gold are "
            "shares of the answerable questions, judged as in `ragbot eval`, and cited is a gold "
            "paragraph when one of its sentences stands in a source that is cited",
            rows,
        )
    ]


def _row(name: str, samples: Sequence[Sample], ours: dict[str, Sample]) -> Row:
    done = [sample for sample in samples if "failed" not in sample]
    both = [(s, ours[s["question"]]) for s in done if s["question"] in ours]
    return {
        "answerer": name,
        "answers": len(done),
        "nearest sentence, median": median(s["near_s"] for s in done),
        "first text, median": median(s["first_s"] for s in done),
        "p95": p95(s["first_s"] for s in done),
        "times of ours": paired_ratio(
            [s["first_s"] for s, _ in both], [o["first_s"] for _, o in both]
        ),
        "end, median": median(s["total_s"] for s in done),
        "end, p95": p95(s["total_s"] for s in done),
        "end, times of ours": paired_ratio(
            [s["total_s"] for s, _ in both], [o["total_s"] for _, o in both]
        ),
        "read": whole(median(s["read"] for s in done)),
        "written": whole(median(s["written"] for s in done)),
        "right": mean(s["right"] for s in done),
        "cites gold": mean(s["cites_gold"] for s in done),
        "memory, MB": largest(s["peak_mb"] for s in done),
        "failed": next((s["failed"] for s in samples if "failed" in s), ""),
    }


PART = Part("peers", _count, _samples, _tables)
