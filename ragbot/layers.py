"""BERT's layers as an ONNX graph (Devlin et al. 2019), for ONNX Runtime to run without torch.

What the weights mean and where they come from is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

WORDS = "embeddings.word_embeddings.weight"  # the weights that the graph leaves out

_RUNTIME = "com.microsoft"  # ONNX Runtime's own nodes: one where ONNX proper needs a dozen
_OWN = ("Attention", "Gelu", "MatMulIntegerToFloat", "MultiHeadAttention")

# Weights of 7 bits: with 8, processors without VNNI would overflow, and give other vectors.
_MOST_WEIGHT, _MOST_INPUT, _ZERO = 63, 127, 128


def bert(
    weights: Mapping[str, NDArray[float32]],
    sizes: Mapping[str, int],
    *,
    epsilon: float,
    quick: bool,
) -> bytes:
    """BERT after its word embeddings, then the mean of a text's tokens, as a serialized model.

    Weights go by the names, sizes by the settings, that transformers' BertModel has. In: words
    (texts, tokens, width) float32 and mask (texts, tokens) int32, 0 where padded. Out: (texts,
    width) float32, unit length. The embeddings stay outside, four fifths of the weights: it opens
    in a moment, and their rows are read from the weights file as they are needed.

    `quick` multiplies whole numbers, scaled for each token and each column (Dettmers et al. 2022,
    "LLM.int8()", without its outliers): what a text's vector is does not depend on its company.
    """
    import numpy as np
    from onnx import TensorProto

    graph = _Quick(weights, epsilon) if quick else _Graph(weights, epsilon)
    zero, one, two = np.arange(3, dtype=np.int64).reshape(3, 1)
    length = graph.add("Slice", graph.add("Shape", "mask"), one, two)
    place, kind = (weights[f"embeddings.{x}_embeddings.weight"] for x in ("position", "token_type"))
    hidden = graph.add("Add", "words", graph.add("Slice", place + kind[0], zero, length, zero))
    hidden = graph.norm(hidden, "embeddings.LayerNorm")
    for layer in range(sizes["num_hidden_layers"]):
        hidden = graph.layer(hidden, f"encoder.layer.{layer}", sizes["num_attention_heads"])
    row = graph.add("Unsqueeze", graph.add("Cast", "mask", settings={"to": TensorProto.FLOAT}), one)
    # The sum of the tokens points where their mean does.
    total = graph.add("Squeeze", graph.add("MatMul", row, hidden), one)
    return graph.serialized(graph.add("LpNormalization", total), sizes["hidden_size"])


class _Graph:
    """An ONNX graph in the making. An input is the name of an earlier value, or a constant."""

    def __init__(self, weights: Mapping[str, NDArray[Any]], epsilon: float):
        self.weights = weights
        self.norm_settings = {"epsilon": epsilon}
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operator: str, *inputs: str | NDArray[Any], settings: Any = None) -> str:
        from onnx import helper

        names = [value if isinstance(value, str) else self._constant(value) for value in inputs]
        output = f"v{len(self.nodes)}"
        domain = _RUNTIME if operator in _OWN else ""
        node = helper.make_node(operator, names, [output], domain=domain, **(settings or {}))
        self.nodes.append(node)
        return output

    def _constant(self, array: NDArray[Any]) -> str:
        import numpy as np
        from onnx import numpy_helper

        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def layer(self, hidden: str, name: str, heads: int) -> str:
        attended = self.attention(hidden, f"{name}.attention.self", heads)
        attended = self.linear(attended, f"{name}.attention.output.dense")
        hidden = self.add("Add", hidden, attended)
        hidden = self.norm(hidden, f"{name}.attention.output.LayerNorm")
        inner = self.add("Gelu", self.linear(hidden, f"{name}.intermediate.dense"))
        hidden = self.add("Add", hidden, self.linear(inner, f"{name}.output.dense"))
        return self.norm(hidden, f"{name}.output.LayerNorm")

    def linear(self, value: str, name: str) -> str:
        product = self.add("MatMul", value, self.weights[f"{name}.weight"].T)
        return self.add("Add", product, self.weights[f"{name}.bias"])

    def norm(self, value: str, name: str) -> str:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return self.add("LayerNormalization", value, weight, bias, settings=self.norm_settings)

    def attention(self, value: str, name: str, heads: int) -> str:
        import numpy as np

        parts = [f"{name}.{part}" for part in ("query", "key", "value")]
        weight = np.concatenate([self.weights[f"{part}.weight"] for part in parts]).T
        bias = np.concatenate([self.weights[f"{part}.bias"] for part in parts])
        return self.add("Attention", value, weight, bias, "mask", settings={"num_heads": heads})

    def serialized(self, output: str, width: int) -> bytes:
        from onnx import TensorProto, helper

        value = helper.make_tensor_value_info
        words = value("words", TensorProto.FLOAT, ["texts", "tokens", width])
        mask = value("mask", TensorProto.INT32, ["texts", "tokens"])
        vector = value(output, TensorProto.FLOAT, ["texts", width])
        # Versions are named: an older ONNX Runtime refuses what the newest onnx would put.
        model = helper.make_model(
            helper.make_graph(self.nodes, "bert", [words, mask], [vector], self.constants),
            opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(_RUNTIME, 1)],
            ir_version=8,
        )
        return bytes(model.SerializeToString())


class _Quick(_Graph):
    """The same in whole numbers, where matrices are multiplied."""

    def __init__(self, weights: Mapping[str, NDArray[Any]], epsilon: float):
        super().__init__(weights, epsilon)
        self._whole: dict[str, tuple[str, str]] = {}

    def whole(self, value: str) -> tuple[str, str]:
        """A value's tokens as uint8 around 128, and by what each of them was divided."""
        import numpy as np
        from onnx import TensorProto

        if value not in self._whole:
            most = self.add(
                "ReduceMax", self.add("Abs", value), settings={"axes": [-1], "keepdims": 1}
            )
            scale = self.add("Mul", most, np.float32(1 / _MOST_INPUT))
            scale = self.add("Max", scale, np.float32(1e-9))
            # A cast cuts off: half a step more, and it rounds.
            level = self.add("Add", self.add("Div", value, scale), np.float32(_ZERO + 0.5))
            cast = self.add("Cast", level, settings={"to": TensorProto.UINT8})
            self._whole[value] = cast, scale
        return self._whole[value]

    def linear(self, value: str, name: str) -> str:
        import numpy as np

        level, scale = self.whole(value)
        weight = self.weights[f"{name}.weight"].T
        column = np.maximum(np.abs(weight).max(axis=0) / _MOST_WEIGHT, 1e-12).astype(np.float32)
        product = self.add(
            "MatMulIntegerToFloat",
            level,
            np.rint(weight / column).astype(np.int8),
            np.float32(1),
            column,
            np.uint8(_ZERO),
        )
        return self.add("Add", self.add("Mul", product, scale), self.weights[f"{name}.bias"])

    def attention(self, value: str, name: str, heads: int) -> str:
        parts = [self.linear(value, f"{name}.{part}") for part in ("query", "key", "value")]
        return self.add("MultiHeadAttention", *parts, "", "mask", settings={"num_heads": heads})
