from __future__ import annotations

import json
from pathlib import Path

import pytest

from ragbot.errors import ModelError
from ragbot.models import fingerprint, resolve_encoder, resolve_generator
from ragbot.packaged import IDENTITY_FILE


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("packaged:nonsense", "no packaged generator 'nonsense': use one of packaged:qwen"),
        ("packaged:e5-small", r"no packaged generator 'e5-small' \(it is of kind encoder\)"),
        ("./missing.gguf", "no such file"),
        ("missing.gguf", "no such file"),
        ("~nobody-of-that-name/model", "no such file"),
        ("/nowhere/model", "no such file"),
        ("word", "no file and no hub id"),
        ("", "no hub id"),
        ("a/b/c", "no hub id"),
    ],
)
def test_an_unknown_name_says_what_is_known(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        resolve_generator(name, tmp_path)
    assert "\n" not in str(caught.value)


def test_paths_and_hub_ids_are_taken_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    assert resolve_generator(str(tmp_path / "m.gguf"), tmp_path) == str(tmp_path / "m.gguf")
    assert resolve_encoder("BAAI/bge-m3", tmp_path) == "BAAI/bge-m3"
    assert resolve_encoder(str(tmp_path), tmp_path) == str(tmp_path)


def test_a_fingerprint_tells_models_apart(tmp_path: Path) -> None:
    for name, weights in (("a", b"1" * 200_000), ("b", b"1" * 199_999 + b"2")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text("{}", encoding="utf-8")
        (folder / "model.safetensors").write_bytes(weights)
    one, other = fingerprint(str(tmp_path / "a")), fingerprint(str(tmp_path / "b"))
    assert one != other and one == fingerprint(str(tmp_path / "a"))
    (tmp_path / "a" / "config.json").write_text('{"x": 1}', encoding="utf-8")
    assert fingerprint(str(tmp_path / "a")) != one
    assert fingerprint("BAAI/bge-m3") == "BAAI/bge-m3"


def test_a_converted_model_is_known_by_what_it_was_made_of(tmp_path: Path) -> None:
    (tmp_path / IDENTITY_FILE).write_text(json.dumps({"identity": "tiny-v1-abc"}))
    assert fingerprint(str(tmp_path)) == "tiny-v1-abc"
