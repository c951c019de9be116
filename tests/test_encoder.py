"""Both roads side by side: over a tiny packed model made here, and over the packaged one."""

from __future__ import annotations

import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ragbot.config import load_config
from ragbot.e5 import _unpacked, convert
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


PIECES = [
    "<s>",
    "<pad>",
    "</s>",
    "<unk>",
    *"▁▁▁",
    *"query: passage",
    "～",
    "~",
    "字",
    "x",
    "▁a",
    "b",
]
WIDTH, LAYERS, HEADS, INNER, POSITIONS = 32, 2, 4, 64, 512


def q4(count: int, random: np.random.Generator) -> bytes:
    """Random weights as the pack holds them: a float16 scale and 16 bytes of nibbles a block."""
    blocks = count // 32
    scales = (0.02 + 0.05 * random.random(blocks)).astype(np.float16)
    nibbles = random.integers(0, 256, (blocks, 16), dtype=np.uint8)
    return np.concatenate([scales[:, None].view(np.uint8), nibbles], axis=1).tobytes()


def tensors(random: np.random.Generator) -> dict[str, tuple[int, bytes]]:
    """Number of elements and bytes of each tensor of the pack."""
    sizes = {"emb.word": (len(PIECES) + 3) * WIDTH, "emb.pos": POSITIONS * WIDTH}
    plain = {"emb.type": WIDTH, "emb.ln.w": WIDTH, "emb.ln.b": WIDTH}
    for layer in range(LAYERS):
        for part in ("q", "k", "v", "ao", "fi", "fo"):
            sizes[f"l{layer}.{part}.w"] = WIDTH * (INNER if part[0] == "f" else WIDTH)
            plain[f"l{layer}.{part}.b"] = INNER if part == "fi" else WIDTH
        for part in ("aln", "oln"):
            plain |= {f"l{layer}.{part}.w": WIDTH, f"l{layer}.{part}.b": WIDTH}
    packed = {name: (size, q4(size, random)) for name, size in sizes.items()}
    floats = {
        name: (size, (random.random(size) + 0.5).astype(np.float32).tobytes())
        for name, size in plain.items()
    }
    return packed | floats


def tiny_pack() -> bytes:
    """A packed model of the known form with random weights."""
    random = np.random.default_rng(7)
    pieces = list(dict.fromkeys(PIECES))
    encoded = [piece.encode() for piece in pieces]
    offsets = np.cumsum([0, *map(len, encoded)]).astype(np.uint32)
    head = struct.pack("<4si7i", b"E5S1", 1, WIDTH, LAYERS, HEADS, INNER, len(PIECES) + 3, 512, 2)
    head += struct.pack("<fi5iQ", 1e-12, 32, len(pieces), 0, 2, 1, 3, int(offsets[-1]))
    head += offsets.tobytes() + (-np.arange(len(pieces))).astype(np.float32).tobytes()
    head += b"".join(encoded) + struct.pack("<iI", 0, 0)
    held = tensors(random)
    length = len(head) + 4 + sum(2 + len(name) + 21 for name in held)
    directory, data = struct.pack("<i", len(held)), b""
    for name, (count, content) in held.items():
        directory += struct.pack("<H", len(name)) + name.encode()
        directory += struct.pack("<BIQQ", 0, count, length + len(data), len(content))
        data += content
    return head + directory + data


def tiny_encoder(folder: Path) -> Path:
    """The tiny model, converted, in a folder of `folder`."""
    source = folder / "pack.bin"
    source.write_bytes(tiny_pack())
    convert(source, folder / "tiny")
    return folder / "tiny"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("tiny"))


def opened(folder: Path) -> LightEncoder:
    encoder = open_encoder(str(folder), name="tiny", fingerprint="f", threads=1)
    assert isinstance(encoder, LightEncoder)
    return encoder


TINY_TEXTS = ["ab x", "a", "字" * 900, "", "axxxx～～ ~\tb", "unknown: wörter"]


def test_converted_folders_take_both_roads_alike(tiny: Path) -> None:
    light, heavy = opened(tiny), open_encoder(str(tiny), name="e", fingerprint="", device="cpu")
    assert isinstance(heavy, SentenceEncoder)
    assert np.abs(light.queries(TINY_TEXTS) - heavy.queries(TINY_TEXTS)).max() < 1e-5
    ours, theirs = light.passages(TINY_TEXTS), heavy.passages(TINY_TEXTS)
    assert 0.998 < (ours * theirs).sum(axis=1).min() < 0.99999  # in whole numbers, and yet alike
    assert np.abs(light.queries(TINY_TEXTS) - light.passages(TINY_TEXTS)).max() > 1e-3
    assert (light.dimension, light.max_tokens) == (heavy.dimension, heavy.max_tokens) == (32, 512)
    assert [light.count_tokens(t) for t in TINY_TEXTS] == [
        heavy.count_tokens(t) for t in TINY_TEXTS
    ]


def test_a_conversion_gives_the_same_bytes_each_time(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "pack.bin").write_bytes(tiny_pack())
    convert(tmp_path / "pack.bin", tmp_path / "again")
    files = [path.relative_to(tiny) for path in tiny.rglob("*") if path.is_file()]
    assert len(files) == 11
    assert all(
        (tiny / file).read_bytes() == (tmp_path / "again" / file).read_bytes() for file in files
    )


def test_a_block_is_unpacked_low_nibbles_first() -> None:
    nibbles = [*range(16), *range(15, -1, -1)]
    packed = bytes(low | high << 4 for low, high in zip(nibbles[:16], nibbles[16:], strict=True))
    values = _unpacked(np.float16(0.5).tobytes() + packed)
    assert values.dtype == np.float32
    assert values.tolist() == [(nibble - 8) * 0.5 for nibble in nibbles]


@pytest.mark.parametrize("damage", [(0, b"GGUF"), (40, b"\x40\0\0\0")])
def test_another_file_is_not_converted(tmp_path: Path, damage: tuple[int, bytes]) -> None:
    at, data = damage
    pack = tiny_pack()
    (tmp_path / "pack.bin").write_bytes(pack[:at] + data + pack[at + 4 :])
    with pytest.raises(ValueError, match=r"not a packed|blocks of 64"):
        convert(tmp_path / "pack.bin", tmp_path / "folder")


@pytest.mark.parametrize(
    ("text", "like"),
    [
        ("a\nb", "a b"),
        ("a\u200b\t b", "a b"),
        ("a\x07b", "ab"),
        ("ａ　b", "a b"),
        ("a  \r\n b", "a b"),
    ],
)
def test_white_space_and_control_characters_are_no_unknown_words(
    tiny: Path, text: str, like: str
) -> None:
    vectors = opened(tiny).queries([text, like])
    assert np.abs(vectors[0] - vectors[1]).max() < 1e-6


def test_a_full_width_tilde_stays_one(tiny: Path) -> None:
    vectors = opened(tiny).queries(["a～b", "a~b"])
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3


def test_what_is_too_long_is_cut_off(tiny: Path) -> None:
    light = opened(tiny)
    vectors = light.passages(["字" * 600, "字" * 900 + "x", "x" * 100])
    assert np.abs(vectors[0] - vectors[1]).max() < 1e-6 < np.abs(vectors[0] - vectors[2]).max()


def test_a_query_needs_no_torch(tiny: Path) -> None:
    code = (
        "import sys; from ragbot.encoder import open_encoder;"
        f"open_encoder({str(tiny)!r}, name='', fingerprint='').queries(['a']);"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "transformers", "sentence_transformers"}.isdisjoint(done.stdout.split())


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "onnx/layers.onnx", "onnx/layers-int8.onnx", "model.safetensors"]
)
def test_a_damaged_folder_is_told(tiny: Path, tmp_path: Path, name: str) -> None:
    for path in (path for path in tiny.rglob("*") if path.is_file()):
        copy = tmp_path / path.relative_to(tiny)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (tmp_path / name).write_bytes((tiny / name).read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"is damaged.*delete that folder"):
        opened(tmp_path).passages(["a"])


def test_passages_are_the_same_in_any_company_and_by_any_number_of_threads(tiny: Path) -> None:
    many = [text for text in TINY_TEXTS for _ in range(7)]
    alone = np.concatenate([opened(tiny).passages([text]) for text in many])
    for threads in (1, 3):
        encoder = open_encoder(str(tiny), name="tiny", fingerprint="f", threads=threads)
        assert np.abs(encoder.passages(many) - alone).max() < 1e-3


def test_who_reports_progress_can_stop_the_work(tiny: Path) -> None:
    def enough(done: int, total: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        opened(tiny).passages(["字" * 500] * 50, enough)


def test_a_model_of_word_vectors_alone(tmp_path: Path, tiny: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import StaticEmbedding
    from tokenizers import Tokenizer

    words = StaticEmbedding(Tokenizer.from_file(str(tiny / "tokenizer.json")), embedding_dim=8)
    SentenceTransformer(modules=[words], device="cpu").save(str(tmp_path / "static"))
    encoder = open_encoder(str(tmp_path / "static"), name="static", fingerprint="", device="cpu")
    vectors = encoder.passages(["ab", "x"])
    assert vectors.shape == (2, 8) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert encoder.count_tokens("x x") == 4 and encoder.max_tokens > 0
    assert encoder.queries([]).shape == (0, 8)


def test_threads_take_turns_on_the_long_road(tiny: Path) -> None:
    heavy = SentenceEncoder(str(tiny), "tiny", "", 0, "cpu")
    text = "x " * 600  # cut where it is encoded, counted whole
    before, expected = sys.getswitchinterval(), heavy.count_tokens(text)
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            tasks = [
                (pool.submit(heavy.queries, [text]), pool.submit(heavy.count_tokens, text))
                for _ in range(200)
            ]
    finally:
        sys.setswitchinterval(before)
    assert expected > 1000
    assert {count.result() for _, count in tasks} == {expected}
    assert np.ptp(np.stack([vector.result()[0] for vector, _ in tasks]), axis=0).max() < 1e-5


def test_without_a_hub_it_says_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(ModelError, match=r"'nobody/nothing' cannot be loaded.*packaged:e5-small"):
        open_encoder("nobody/nothing", name="nobody/nothing", fingerprint="")
    assert time.monotonic() - began < 20


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
    for road, least in (("queries", 0.9999), ("passages", 0.997)):
        ours, theirs = getattr(light, road)(TEXTS), getattr(heavy, road)(TEXTS)
        assert (ours * theirs).sum(axis=1).min() > least
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
def test_a_query_from_nothing_is_quick(folder: str) -> None:
    code = (
        "from ragbot.encoder import open_encoder;"
        f"open_encoder({folder!r}, name='', fingerprint='').queries(['When was it announced?'])"
    )
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True)
    assert time.monotonic() - began < 8  # about 1 s on an idle machine; torch alone takes longer


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
