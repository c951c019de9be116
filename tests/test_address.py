from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from ragbot.address import Milvus, index_place
from ragbot.config import load_config
from ragbot.errors import ConfigError


@pytest.mark.parametrize(
    ("written", "place"),
    [
        ("index", Path("index")),
        (Path("milvus:x"), Path("milvus:x")),
        ("milvus", Path("milvus")),
        ("milvus:a/b.db", Milvus("ragbot", lite=Path("a/b.db"))),
        ("milvus:/a/b.db", Milvus("ragbot", lite=Path("/a/b.db"))),
        ("milvus://here:19530/law", Milvus("law", uri="http://here:19530")),
        ("milvus://[::1]:19530/law/", Milvus("law", uri="http://[::1]:19530")),
        ("milvus+tls://here.org:443/law_2", Milvus("law_2", uri="https://here.org:443")),
    ],
)
def test_a_place_is_a_folder_or_milvus(written: str | Path, place: object) -> None:
    assert index_place(written) == place
    assert pickle.loads(pickle.dumps(place)) == place
    if isinstance(place, Milvus):
        assert index_place(str(place)) == place


@pytest.mark.parametrize(
    "written",
    [
        "milvus:",
        "milvus://",
        "milvus://here/law",
        "milvus://here:19530",
        "milvus://here:19530/",
        "milvus://here:99999/law",
        "milvus://here:19530/a/b",
        "milvus://here:19530/法",
        "milvus://here:19530/1st",
        "milvus://user:secret@here:19530/law",
        "milvus+ssl://here:19530/law",
    ],
)
def test_another_form_is_refused_in_one_sentence(
    written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAGBOT_INDEX", written)
    with pytest.raises(ConfigError, match=r"^Setting index=.*change it: [^\n]*\.$"):
        load_config()


def test_the_token_never_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGBOT_INDEX", "milvus://here:19530/law")
    monkeypatch.setenv("RAGBOT_MILVUS_TOKEN", "root:secret")
    place = load_config().index
    assert isinstance(place, Milvus) and place.token == "root:secret"
    assert "secret" not in f"{place}{place!r}{load_config()!r}"


def test_no_secret_is_kept_with_an_evaluation() -> None:
    from ragbot.config import Config
    from ragbot.evaluation.run import _PLACES

    assert {name for name, field in Config.model_fields.items() if not field.repr} <= _PLACES
