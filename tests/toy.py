"""A language model of a few kilobytes, random but real: for what llama.cpp does with a prompt before
any model reads it. It knows bytes and the control tokens it is given, so that a text whose control
tokens are not recognized costs a token a byte."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np

_WIDTH = 32
_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)


def write_toy_model(path: Path, control_tokens: Sequence[str]) -> Path:
    """A GGUF file at `path`; `control_tokens` hold those of its ChatML template."""
    kinds = gguf.TokenType
    tokens = [f"<0x{byte:02X}>" for byte in range(256)] + list(control_tokens)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(8192)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(_WIDTH)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([kinds.BYTE] * 256 + [kinds.CONTROL] * len(control_tokens))
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_chat_template(_CHATML)
    square, table = (_WIDTH, _WIDTH), (len(tokens), _WIDTH)
    shapes = {"token_embd": table, "output": table, "output_norm": (_WIDTH,)}
    names = "attn_norm attn_q attn_k attn_v attn_output ffn_norm ffn_gate ffn_up ffn_down"
    shapes |= {f"blk.0.{n}": (_WIDTH,) if "norm" in n else square for n in names.split()}
    for number, (name, shape) in enumerate(shapes.items()):
        values = np.random.default_rng(number).standard_normal(shape)
        writer.add_tensor(f"{name}.weight", values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
