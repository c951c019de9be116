"""The whole server with the packaged models, spoken to with OpenAI's own client."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from ragbot.corpus import load_corpus
from tests.conftest import ARTICLE

pytestmark = pytest.mark.model

WORD_SECONDS = 120.0  # for an answer, on a slow machine


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server over the article; its index is made in the cache."""
    kept = {"RAGBOT_CACHE"}
    env = {k: v for k, v in os.environ.items() if k in kept or not k.startswith("RAGBOT_")}
    folder = tmp_path_factory.mktemp("served")
    command = [sys.executable, "-m", "ragbot", "serve", "--port", "0", "--corpus", str(ARTICLE)]
    with (folder / "log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            assert process.stdout
            line = process.stdout.readline()
            assert "http://127.0.0.1:" in line, (folder / "log").read_text(encoding="utf-8")
            yield line.split()[3].rstrip(";")
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 130
        finally:
            process.kill()
            process.wait()
    assert "Traceback" not in (folder / "log").read_text(encoding="utf-8")


@pytest.fixture
def openai(address: str) -> OpenAI:
    return OpenAI(base_url=f"{address}/v1", api_key="any", timeout=WORD_SECONDS, max_retries=0)


QUESTIONS = [
    ("華為在什麼時候宣布成立醫療衛生軍團？", "3月", "zh-Hant"),
    ("华为在什么时候宣布成立医疗卫生军团？", "3月", "zh-Hans"),
    ("When did Huawei announce its medical and health corps?", "March", "en"),
]


@pytest.mark.parametrize(
    ("question", "expected", "language", "stream"),
    [(*QUESTIONS[0], True), (*QUESTIONS[1], False), (*QUESTIONS[2], True)],
)
def test_the_official_client_gets_a_proven_answer(
    openai: OpenAI, question: str, expected: str, language: str, stream: bool
) -> None:
    asked: Any = {"model": "ragbot", "messages": [{"role": "user", "content": question}]}
    told: Any
    if stream:
        chunks = list(openai.chat.completions.create(**asked, stream=True))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        told = chunks[-1].choices[0].delta
    else:
        told = openai.chat.completions.create(**asked).choices[0].message
        text = told.content
    assert expected in text and told.language == language and not told.abstained
    (document,) = load_corpus(ARTICLE).documents
    assert told.citations
    for cited in told.citations:
        assert f"[{cited['marker']}]" in text
        assert document.text[cited["start"] : cited["end"]] == cited["quote"]


def test_what_the_article_does_not_hold_is_refused(openai: OpenAI) -> None:
    question = "誰在2022年贏得世界盃足球賽？"
    reply: Any = openai.chat.completions.create(
        model="ragbot", messages=[{"role": "user", "content": question}]
    )
    assert reply.choices[0].message.abstained and not reply.choices[0].message.citations


def test_a_client_that_leaves_frees_the_generator(openai: OpenAI, address: str) -> None:
    asked: Any = {"model": "ragbot", "messages": [{"role": "user", "content": QUESTIONS[2][0]}]}
    before = left(address)
    begun = openai.chat.completions.create(**asked, stream=True)
    next(iter(begun))
    begun.close()
    end = time.monotonic() + 20.0
    while left(address) == before:
        assert time.monotonic() < end
        time.sleep(0.1)


def left(address: str) -> str:
    figures = httpx.get(f"{address}/metrics").text.splitlines()
    return next(
        line for line in figures if line.startswith('ragbot_questions_total{outcome="left"}')
    )


def test_the_page_is_there(address: str) -> None:
    page = httpx.get(address)
    assert page.status_code == 200 and "<script nonce=" in page.text


def test_the_port_is_taken(address: str, tmp_path: Path) -> None:
    port = address.rsplit(":", 1)[1]
    done = subprocess.run(
        [sys.executable, "-m", "ragbot", "serve", "--port", port],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"ragbot: Port {port} is taken") and done.stderr.count("\n") == 1
