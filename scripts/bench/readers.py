"""Readers at once: a real `ragbot serve`, asked through its API with OpenAI's client.

Each reader has a loopback address of its own, so that the server takes them for as many visitors.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from scripts.bench.figures import jain, largest, mean, median, ratio
from scripts.bench.plan import MODELS, Part, Plan, Row, Sample, Table
from scripts.bench.processes import own, peak_mb, served

if TYPE_CHECKING:
    from openai import AsyncOpenAI

READERS = (1, 2, 4, 8)
_ENOUGH = 4  # questions in all, of few readers, so that there is a median
_PATIENCE = 600.0


def _rounds(plan: Plan, readers: int) -> int:
    return max(plan.rounds, _ENOUGH // readers)


def _count(plan: Plan) -> int:
    return 1 + sum(readers * _rounds(plan, readers) for readers in READERS)


def _samples(plan: Plan) -> Iterator[Sample]:
    command = [*own("ragbot"), "serve", "--port", "0", "--rate", "0", "--llm", MODELS["1.5B"]]
    command += ["--corpus", str(plan.corpus), "--index", str(plan.index)]
    start = time.perf_counter()
    with served(command) as (url, pid):
        listening = time.perf_counter() - start
        first = asyncio.run(_crowd(url, 1, [plan.warm_up.question]))[0]
        yield first | {"readers": 0, "listening_s": round(listening, 3)}
        texts = [question.question for question in plan.questions]
        for readers in READERS:
            asked = readers * _rounds(plan, readers)
            turn = [texts[n % len(texts)] for n in range(asked)]
            for sample in asyncio.run(_crowd(url, readers, turn)):
                yield sample | {"peak_mb": round(peak_mb(pid))}


async def _crowd(url: str, readers: int, questions: Sequence[str]) -> list[Sample]:
    """So many readers at once, who deal the questions out among themselves and ask in turn."""
    from httpx2 import AsyncHTTPTransport
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient

    start = time.perf_counter()
    async with AsyncExitStack() as stack:

        async def reader(number: int) -> list[Sample]:
            transport = AsyncHTTPTransport(local_address=f"127.0.0.{number + 2}")
            client = await stack.enter_async_context(
                AsyncOpenAI(
                    base_url=f"{url}/v1",
                    api_key="none",
                    max_retries=0,
                    timeout=_PATIENCE,
                    http_client=DefaultAsyncHttpxClient(transport=transport, trust_env=False),
                )
            )
            found = [await _asked(client, text, start) for text in questions[number::readers]]
            return [sample | {"readers": readers, "reader": number} for sample in found]

        found = await asyncio.gather(*map(reader, range(readers)))
    return [sample for one in found for sample in one]


async def _asked(client: AsyncOpenAI, question: str, start: float) -> Sample:
    """One question: when it was asked, its first text and its end after that, or its refusal."""
    from openai import APIError

    asked, first, refused = time.perf_counter(), None, ""
    try:
        stream = await client.chat.completions.create(
            model="ragbot", messages=[{"role": "user", "content": question}], stream=True
        )
        async for chunk in stream:
            if first is None and chunk.choices and chunk.choices[0].delta.content:
                first = time.perf_counter() - asked
    except APIError as error:
        refused = str(error)
    return {
        "asked_s": round(asked - start, 3),
        "first_s": first and round(first, 3),
        "total_s": None if refused else round(time.perf_counter() - asked, 3),
        "refused": refused,
    }


# --- tables ----------------------------------------------------------------------------------


def _tables(samples: Sequence[Sample]) -> list[Table]:
    crowds = [[s for s in samples if s["readers"] == readers] for readers in READERS]
    return [
        Table(
            "The first question",
            "from the start of `ragbot serve` until it listens, then the first answer, for which "
            "the model is loaded",
            [
                {"listening": s["listening_s"], "first text": s["first_s"], "end": s["total_s"]}
                for s in samples
                if s["readers"] == 0
            ],
        ),
        Table(
            "Readers at once",
            "1.5B, over the API of `ragbot serve`, streamed; all ask at the same moment, and ask "
            "again as soon as they have their answer; waits are to the first text, fairness is "
            "Jain's index over the readers' mean waits; no limit of rate",
            [_row(crowd) for crowd in crowds if crowd],
        ),
    ]


def _row(crowd: Sequence[Sample]) -> Row:
    answered = [sample for sample in crowd if not sample["refused"]]
    end = largest(s["asked_s"] + s["total_s"] for s in answered)
    waits = [
        mean(s["first_s"] for s in answered if s["reader"] == reader)
        for reader in sorted({s["reader"] for s in crowd})
    ]
    middle, last = median(s["first_s"] for s in answered), largest(s["first_s"] for s in answered)
    return {
        "readers": crowd[0]["readers"],
        "questions": len(crowd),
        "refused": len(crowd) - len(answered),
        "answers a minute": ratio(60.0 * len(answered), end),
        "first text, median": middle,
        "longest": last,
        "end, median": median(s["total_s"] for s in answered),
        "end, longest": largest(s["total_s"] for s in answered),
        "fairness": jain(waits),
        "longest / median": ratio(last, middle),
        "memory, MB": largest(s["peak_mb"] for s in crowd),
    }


PART = Part("readers", _count, _samples, _tables)
