from __future__ import annotations

from pathlib import Path

import pytest

from ragbot.errors import ModelError
from ragbot.models import fingerprint, resolve_encoder, resolve_generator


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("packaged:nonsense", "no packaged generator 'nonsense': use one of qwen"),
        ("packaged:e5-small", "no packaged generator 'e5-small'"),
        ("./missing.gguf", "no such file"),
        ("missing.gguf", "no such file"),
        ("word", "no file and no hub id"),
        ("", "no hub id"),
        ("a/b/c", "no hub id"),
    ],
)
def test_an_unknown_name_says_what_is_known(tmp_path: Path, name: str, said: str) -> None:
    if name:
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
