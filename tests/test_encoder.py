"""The packaged encoder, for real: both roads, side by side."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ragbot.config import load_config
from ragbot.encoder import LightEncoder, SentenceEncoder, _prompts, open_encoder
from ragbot.errors import ModelError
from ragbot.models import fingerprint, resolve_encoder

TEXTS = [
    "華為3月對外宣告組建醫療衛生軍團。",
    "黑豹队的防守只丢了308分。",
    "The Panthers defense gave up just 308 points.",
    "ＡＩ　全形，half-width… 🙂",
    "字" * 900,
    "x",
    "",
]


@pytest.fixture(scope="module")
def folder() -> str:
    config = load_config()
    return resolve_encoder(config.encoder, config.cache)


@pytest.fixture(scope="module")
def light(folder: str) -> LightEncoder:
    encoder = open_encoder(folder, name="packaged:e5-small", fingerprint=fingerprint(folder))
    assert isinstance(encoder, LightEncoder)
    return encoder


@pytest.mark.model
def test_both_roads_give_the_same_vectors(folder: str, light: LightEncoder) -> None:
    heavy = SentenceEncoder(folder, "packaged:e5-small", "", 0)
    for road in ("queries", "passages"):
        ours, theirs = getattr(light, road)(TEXTS), getattr(heavy, road)(TEXTS)
        assert (ours * theirs).sum(axis=1).min() > 0.9999
    assert light.dimension == heavy.dimension and light.max_tokens == heavy.max_tokens
    assert [light.count_tokens(t) for t in TEXTS] == [heavy.count_tokens(t) for t in TEXTS]


@pytest.mark.model
def test_vectors_are_of_unit_length_and_of_the_promised_shape(light: LightEncoder) -> None:
    vectors = light.passages(TEXTS)
    assert vectors.shape == (len(TEXTS), light.dimension) and vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert light.queries([]).shape == (0, light.dimension)


@pytest.mark.model
def test_a_vector_does_not_depend_on_its_company(light: LightEncoder) -> None:
    together = light.passages(TEXTS)
    alone = np.concatenate([light.passages([text]) for text in TEXTS])
    assert (together * alone).sum(axis=1).min() > 0.9999


@pytest.mark.model
def test_queries_and_passages_are_prompted_apart(light: LightEncoder) -> None:
    assert float(light.queries([TEXTS[0]])[0] @ light.passages([TEXTS[0]])[0]) < 0.999


@pytest.mark.model
def test_a_translation_is_nearer_than_another_text(light: LightEncoder) -> None:
    zh, en, other = light.passages([TEXTS[1], TEXTS[2], TEXTS[0]])
    assert en @ zh > en @ other


@pytest.mark.model
def test_several_threads_at_once(light: LightEncoder) -> None:
    with ThreadPoolExecutor(4) as pool:
        vectors = list(pool.map(lambda text: light.queries([text])[0], TEXTS[:4] * 8))
    expected = light.queries(TEXTS[:4])
    assert all(np.allclose(v, expected[i % 4], atol=1e-4) for i, v in enumerate(vectors))


@pytest.mark.model
def test_progress_is_told(light: LightEncoder) -> None:
    seen: list[tuple[int, int]] = []
    light.passages(TEXTS, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(TEXTS), len(TEXTS))


def test_a_folder_that_is_no_model(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("nothing")
    with pytest.raises(ModelError, match="cannot be loaded"):
        open_encoder(str(folder), name=str(folder), fingerprint="")


@pytest.mark.parametrize(
    ("name", "saved", "expected"),
    [
        ("x/any", {"query": "q: ", "document": "d: "}, ("q: ", "d: ")),
        ("x/any", {"query": "q: ", "passage": "p: "}, ("q: ", "p: ")),
        ("intfloat/multilingual-e5-base", {}, ("query: ", "passage: ")),
        ("BAAI/bge-m3", {}, ("", "")),
        ("x/core5-model", {}, ("", "")),
    ],
)
def test_prompts_of_other_models(
    name: str, saved: dict[str, str], expected: tuple[str, str]
) -> None:
    prompts = _prompts(name, saved)
    assert (prompts["query"], prompts["document"]) == expected
