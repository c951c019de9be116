"""The packed multilingual-e5-small: from its one file to a folder that other libraries load.

The source holds 4-bit blocks; what is written is an ordinary sentence-transformers folder with
float32 weights (Wang et al. 2024, "Multilingual E5 Text Embeddings"), and beside it the layers as
ONNX graphs, so that texts can be encoded without importing torch. The same source gives the same
folder, whatever else is installed. Only data is read from the package; none of its code runs.
"""

from __future__ import annotations

import json
import mmap
import struct
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragbot.layers import WORDS, bert

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

CONVERTER_VERSION = 3  # raise it when what is written changes: caches are then built anew
WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILE = "tokenizer.json"
ONNX_FILE = "onnx/layers.onnx"
QUICK_FILE = "onnx/layers-int8.onnx"  # twice as fast, and all but as exact
PROMPTS = {"query": "query: ", "document": "passage: "}
MAX_TOKENS = 512

_MAGIC = b"E5S1"
_SIZES = (
    "hidden_size num_hidden_layers num_attention_heads intermediate_size vocab_size "
    "max_position_embeddings type_vocab_size"
).split()
_BLOCK = 32  # weights that share one scale
_SPECIAL = dict(bos="<s>", cls="<s>", pad="<pad>", eos="</s>", sep="</s>", unk="<unk>")

# The model was trained on NFKC but for these: control characters go, white space and its like
# become spaces, and the full-width tilde, common in Chinese, stays.
_DROPPED = "[\x01-\x08\x0b\x0e-\x1f\x7f\x8f\x9f]"
_SPACES = "[\t\n\f\r\u1680\u200b-\u200f\u2028\u2029\u2581\ufeff\ufffd]"
_TILDE, _STAND_IN = "\uff5e", "\uf8ff"  # the stand-in is one that NFKC leaves alone


class Packed:
    """The packed file's content; integers are little-endian. Raises ValueError on another file."""

    def __init__(self, data: mmap.mmap):
        self._data = data
        self._at = 0
        magic, _version = self._take("4si")
        if magic != _MAGIC:
            raise ValueError("not a packed e5 model")
        self.sizes: dict[str, int] = dict(zip(_SIZES, self._take("7i"), strict=True))
        (self.epsilon,) = self._take("f")
        (block,) = self._take("i")
        if block != _BLOCK:
            raise ValueError(f"weights come in blocks of {block}, not {_BLOCK}")
        self._read_vocabulary()
        _characters, length = self._take("iI")
        self._at += length  # the normalisation table; _DROPPED and so on say what is in it
        self._read_directory()

    def _take(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + layout, self._data, self._at)
        self._at += struct.calcsize("<" + layout)
        return values

    def _read_vocabulary(self) -> None:
        count, self.begin, self.end, self.pad, self.unknown = self._take("5i")
        (length,) = self._take("Q")
        offsets, scores = self._take(f"{count + 1}I"), self._take(f"{count}f")
        (text,) = self._take(f"{length}s")
        pieces = (text[a:b].decode("utf-8", "replace") for a, b in pairwise(offsets))
        self.vocabulary = list(zip(pieces, scores, strict=True))

    def _read_directory(self) -> None:
        (count,) = self._take("i")
        self._tensors: dict[str, tuple[int, int, int]] = {}
        for _ in range(count):
            (length,) = self._take("H")
            name, _kind, elements, offset, size = self._take(f"{length}sBIQQ")
            self._tensors[name.decode()] = (elements, offset, size)

    def tensor(self, name: str, columns: int = 0) -> NDArray[float32]:
        """A tensor as float32, flat or in rows; packed, `value = (nibble - 8) * scale`."""
        import numpy as np

        elements, offset, size = self._tensors[name]
        stored = self._data[offset : offset + size]
        values = np.frombuffer(stored, np.float32) if size == 4 * elements else _unpacked(stored)
        return values.reshape(-1, columns) if columns else values


def _unpacked(stored: bytes) -> NDArray[float32]:
    import numpy as np

    blocks = np.frombuffer(stored, np.uint8).reshape(-1, 2 + _BLOCK // 2)
    values = np.empty((len(blocks), _BLOCK), np.float32)
    values[:, : _BLOCK // 2] = blocks[:, 2:] & 15
    values[:, _BLOCK // 2 :] = blocks[:, 2:] >> 4
    values -= 8
    values *= blocks[:, :2].copy().view(np.float16)
    return values.ravel()


def convert(source: Path, target: Path) -> None:
    """Write the folder `target` from the packed file. Raises OSError, ValueError."""
    from safetensors.numpy import save

    with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        packed = Packed(data)
        weights = _weights(packed)
    for name, settings in _settings(packed).items():
        _write(target / name, json.dumps(settings, indent=1).encode())
    _write(target / TOKENIZER_FILE, _tokenizer(packed).to_str().encode())
    for name, quick in ((ONNX_FILE, False), (QUICK_FILE, True)):
        graph = bert(weights, packed.sizes, epsilon=packed.epsilon, quick=quick)
        _write(target / name, graph)
    _write(target / WEIGHTS_FILE, save(weights, metadata={"format": "pt"}))


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _settings(packed: Packed) -> dict[str, object]:
    """The JSON files, in the old form that every version of sentence-transformers reads."""
    width = packed.sizes["hidden_size"]
    pooling = {"pooling_mode_mean_tokens": True, "word_embedding_dimension": width}
    modules = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    return {
        "config.json": {
            "architectures": ["BertModel"],
            "model_type": "bert",
            "hidden_act": "gelu",
            "layer_norm_eps": packed.epsilon,
            "pad_token_id": packed.pad,
            **packed.sizes,
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": MAX_TOKENS,
            **{f"{role}_token": token for role, token in _SPECIAL.items()},
        },
        "sentence_bert_config.json": {"max_seq_length": MAX_TOKENS, "do_lower_case": False},
        "1_Pooling/config.json": pooling,
        "2_Normalize/config.json": {},
        "modules.json": [
            {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for n, (kind, path) in enumerate(modules)
        ],
        "config_sentence_transformers.json": {"prompts": PROMPTS, "similarity_fn_name": "cosine"},
    }


def _tokenizer(packed: Packed) -> Tokenizer:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.Unigram(packed.vocabulary, packed.unknown, False))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(_DROPPED), ""),
            normalizers.Replace(Regex(_SPACES), " "),
            normalizers.Replace(_TILDE, _STAND_IN),
            normalizers.NFKC(),
            normalizers.Replace(_STAND_IN, _TILDE),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    begin, end = _SPECIAL["bos"], _SPECIAL["eos"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}", special_tokens=[(begin, packed.begin), (end, packed.end)]
    )
    tokenizer.add_special_tokens(list(dict.fromkeys(_SPECIAL.values())))
    return tokenizer


def _weights(packed: Packed) -> dict[str, NDArray[float32]]:
    """The weights by the names that transformers' BertModel gives them."""
    width = packed.sizes["hidden_size"]
    # Texts are all of one type: its vector stands for the others, which were not kept.
    types = packed.tensor("emb.type", width)[:1].repeat(packed.sizes["type_vocab_size"], axis=0)
    weights = {
        WORDS: packed.tensor("emb.word", width),
        "embeddings.position_embeddings.weight": packed.tensor("emb.pos", width),
        "embeddings.token_type_embeddings.weight": types,
        "embeddings.LayerNorm.weight": packed.tensor("emb.ln.w"),
        "embeddings.LayerNorm.bias": packed.tensor("emb.ln.b"),
    }
    names = {
        "q": "attention.self.query",
        "k": "attention.self.key",
        "v": "attention.self.value",
        "ao": "attention.output.dense",
        "aln": "attention.output.LayerNorm",
        "fi": "intermediate.dense",
        "fo": "output.dense",
        "oln": "output.LayerNorm",
    }
    for layer in range(packed.sizes["num_hidden_layers"]):
        for short, name in names.items():
            ours, theirs = f"encoder.layer.{layer}.{name}", f"l{layer}.{short}"
            weights[f"{ours}.bias"] = packed.tensor(f"{theirs}.b")
            rows = len(weights[f"{ours}.bias"])
            weights[f"{ours}.weight"] = packed.tensor(f"{theirs}.w").reshape(rows, -1).squeeze()
    return weights
