from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from ragbot.config import load_config
from ragbot.errors import ConfigError


def test_flags_go_before_variables_before_the_file_before_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert load_config().top_k == 8
    Path("ragbot.toml").write_text("top_k = 5\nmax_tokens = 99\n", encoding="utf-8")
    assert load_config().top_k == 5
    monkeypatch.setenv("RAGBOT_TOP_K", "6")
    assert load_config().top_k == 6
    assert load_config({"top_k": 7, "llm": None}).top_k == 7
    assert load_config().max_tokens == 99


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"top_k": 0}, "top_k"),
        ({"top_k": "many"}, "top_k"),
        ({"engine": "abacus"}, "engine"),
        ({"colour": "red"}, "Unknown setting 'colour'"),
    ],
)
def test_a_wrong_setting_is_one_sentence(flags: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        load_config(flags)
    assert "\n" not in str(caught.value)


def test_an_unknown_variable_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGBOT_TOPK", "3")
    with pytest.raises(ConfigError, match=r"RAGBOT_TOPK.*RAGBOT_TOP_K"):
        load_config()


@pytest.mark.parametrize("text", ["top_k = ", "topk = 3", "[a]\nb = 1", "\x00"])
def test_a_broken_file_is_an_error(text: str) -> None:
    Path("ragbot.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config()
    assert "ragbot.toml" in str(caught.value) and "\n" not in str(caught.value)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        load_config().top_k = 3


@pytest.mark.parametrize("variable", ["RAGBOT_API_KEY", "RAGBOT_LLM_API_KEY"])
def test_a_key_is_not_shown(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "secret")
    assert "secret" not in repr(load_config())
