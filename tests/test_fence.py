"""Text of others in a prompt: the same to read, but no control token to any tokenizer."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers

from ragbot.engines.llamacpp import LlamaCppEngine
from ragbot.fence import fenced
from ragbot.types import Message
from tests.conftest import ARTICLE
from tests.test_engines import whole
from tests.toy import write_toy_model

# As they stand in the vocabularies of the models most used.
CONTROL_TOKENS = (
    "<|im_start|> <|im_end|> <|endoftext|> <|fim_prefix|> <tool_call> </tool_call> <think> </think>"  # Qwen
    " <|begin_of_text|> <|start_header_id|> <|end_header_id|> <|eot_id|> <|python_tag|>"  # Llama 3
    " <s> </s> <unk> <pad> [INST] [/INST] [SYSTEM_PROMPT] [TOOL_CALLS] [IMG]"  # Llama 2, Mistral
    " <bos> <eos> <start_of_turn> <end_of_turn> <|turn> <turn|> <|channel> <channel|>"  # Gemma
    " <｜begin▁of▁sentence｜> <｜end▁of▁sentence｜> <｜User｜> <｜Assistant｜>"  # DeepSeek
    " <|system|> <|user|> <|assistant|> <|end|> <|start|> <|message|> [gMASK] <sop>"  # Phi, GPT, GLM
    " [|system|] [|endofturn|] <|START_OF_TURN_TOKEN|> <BOS_TOKEN> <reserved_106> [UNUSED_TOKEN_146]"
    " <用户> <AI> <seed:bos> <extra_id_0> <role> </role> [BOS] [EOS] [@BOS@] ]~b] [e~["
).split()  # fmt: skip
KNOWN = [*CONTROL_TOKENS, "<<SYS>>", "<</SYS>>"]  # the last are only a template's words


@pytest.mark.parametrize("form", ["{}", "甲{}乙", "<{}>", "[{}]", "{0}{0}", "｜{}｜"])
def test_a_control_token_is_broken_by_spaces_and_nothing_else(form: str) -> None:
    for token in KNOWN:
        text = form.format(token)
        assert not any(known in fenced(text) for known in KNOWN), token
        assert fenced(text).replace(" ", "") == text


@pytest.mark.parametrize("unseen", ["\u200b", "\u00ad", "\u202e", "\ufe0f", "\x00", "\U000e0041"])
def test_what_no_reader_sees_cannot_hide_a_control_token(unseen: str) -> None:
    for token in KNOWN:
        assert fenced(unseen.join(token)) == fenced(token) != token


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("甲。\n\n[9] 乙。\r\n問題：丙", "甲。 [9] 乙。 問題：丙"),
        ("a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\u3000h\ti", "a b c d e f g h i"),
        ("甲\u200b乙\u200c丙\u200d丁\u2060\ufeff戊", "甲乙丙丁戊"),
        ("\u202eabc\u2066def\u2069", "abcdef"),
        ("a\x00b\x07c\x1b[31md\x7fe\x9ff\ud800", "abc[31mdef"),
        ("hello\U000e0069\U000e0067", "hello"),  # letters that only a model reads
        ("  ", ""),
        ("", ""),
    ],
)
def test_a_text_becomes_one_line_of_what_can_be_seen(text: str, line: str) -> None:
    assert fenced(text) == line


@pytest.mark.parametrize(
    "text",
    [
        "AI算法做到85%，多半就能發paper；《衛生健康行業》「平權時代」。",
        "p<0.05, a < b, x<5 and y>3, 3 > 2, A|B, ||x||, <=, ->, <-, << >>",
        "[1] [2, 3] [12] [sic] [註1] [來源請求] ［1］ 【2】 [a] [I] array[i][j]",
        "| 欄 | 值 |",
        "https://example.com/a?b=c&d=[e] <https://example.com> a@b.org ![圖](x.png)",
        "été naïve 한국어 العربية 👍🏽 葛城 ﷽ ½",
    ],
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert fenced(text) == text


def test_the_article_stays_as_it_is() -> None:
    text = ARTICLE.read_text(encoding="utf-8")
    assert fenced(text) == " ".join(text.split())


@given(st.lists(st.sampled_from([*"<|>[]/｜＜＞ ~a用S\n\u200b", "INST", *KNOWN])))
def test_no_text_yields_a_control_token_a_line_or_a_hidden_character(pieces: list[str]) -> None:
    line = fenced("".join(pieces))
    assert not any(token in line for token in KNOWN)
    assert fenced(line) == line and len(line.splitlines()) <= 1


@given(st.text())
def test_any_text_keeps_what_can_be_seen(text: str) -> None:
    line = fenced(text)
    assert not any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in line)
    seen = {char for char in text if unicodedata.category(char)[0] in "NP" or char.isascii()}
    assert {char for char in seen if char.isprintable() and not char.isspace()} <= set(line)


# --- real tokenizers -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cost(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], int]:
    """How many tokens llama.cpp reads for a message, its template's included."""
    path = write_toy_model(tmp_path_factory.mktemp("toy") / "toy.gguf", CONTROL_TOKENS)
    engine = LlamaCppEngine(path, context=4096, threads=1)

    return lambda text: whole(engine, [Message("user", text)], 1)[1].prompt_tokens


def test_llama_cpp_reads_control_tokens_in_content(cost: Callable[[str], int]) -> None:
    """The danger itself; once this fails, llama.cpp tells content from template by itself."""
    text = "".join(CONTROL_TOKENS)
    assert cost(text) - cost("") == len(CONTROL_TOKENS)


def test_llama_cpp_reads_none_in_fenced_content(cost: Callable[[str], int]) -> None:
    for text in ("".join(CONTROL_TOKENS), "<｜".join(CONTROL_TOKENS), "\u200b|".join("<>" * 9)):
        line = fenced(text)
        assert cost(line) - cost("") == len(line.replace(" ", "▁").encode())  # how it reads a space


@pytest.mark.parametrize("form", ["NFC", "NFKC"])
def test_tokenizers_reads_none_in_fenced_content(form: Literal["NFC", "NFKC"]) -> None:
    """Nor in wide characters, where a tokenizer reads these as the narrow ones."""
    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer.normalizer = getattr(normalizers, form)()
    tokenizer.add_special_tokens([AddedToken(token, normalized=True) for token in CONTROL_TOKENS])
    for token in CONTROL_TOKENS:
        wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in token)
        read = tokenizer.encode(token).ids
        assert read != [0] and tokenizer.encode(fenced(token)).ids == [0], token
        assert form == "NFC" or "｜" in token or tokenizer.encode(wide).ids == read
        assert tokenizer.encode(fenced(wide)).ids == [0], wide
