"""The floors of the house: imports go down only, and heavy ones wait inside functions."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ragbot

FLOORS = [
    {"types", "errors", "options", "layers", "address"},
    {"config", "database", "e5", "naming", "store", "vectors", "records", "tracing"},
    {"text", "fence", "packaged", "hub"},
    {"words"},
    {"evidence"},
    {
        "readers",
        "litter",
        "models",
        "lexical",
        "dense",
        "encoder",
        "reranker",
        "chunking",
        "prompts",
        "phrases",
        "disagreement",
        "enumeration",
        "abstention",
        "citations",
        "engines",
    },
    {"cluster", "corpus", "index", "retelling", "streaming", "looks"},
    {"part"},
    {"faiss_index", "milvus"},
    {"stores", "oneoffs"},
    {"generator", "retriever", "workspace", "verify"},
    {"inquiry"},
    {"bot"},
    {"console"},
    {"waiting"},
    {"commands", "chat", "doctor", "evaluation"},
    {"web"},
    {"cli"},
    {"__init__", "__main__"},
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
HEAVY = [
    "torch",
    "transformers",
    "sentence_transformers",
    "faiss",
    "gradio",
    "jieba",
    "onnxruntime",
    "openai",
    "fastapi",
    "pymilvus",
    "uvicorn",
    "ray",
    "opentelemetry",
    "sqlalchemy",
]
PACKAGE = Path(ragbot.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))


def home(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """Modules of ours that are imported, by first part, and whether at the top of the file."""
    top = set(ast.iter_child_nodes(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "ragbot":
            yield from ((alias.name, node in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ragbot."):
            yield str(node.module).split(".")[1], node in top


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path: Path) -> None:
    here = home(path)
    if here == "__init__":
        return
    for name, at_top in imported(ast.parse(path.read_text(encoding="utf-8"))):
        if name == here:
            continue
        assert FLOOR[name] < FLOOR[here], f"{here} imports {name}"
        # The command line alone may wait: `--help` must not load what it does not need.
        assert at_top or here in ("cli", "engines", "__main__"), (
            f"{here} hides its import of {name}"
        )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_file_says_what_it_is_for_and_stays_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), "the file does not say what it is for"
    # Examples in prompts stand a line each, as the model is shown them.
    assert len(text.splitlines()) <= (400 if home(path) == "prompts" else 300)


def loaded(code: str) -> set[str]:
    listing = f"{code}\nimport sys; print(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", listing], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import ragbot",
        "from ragbot import RagBot",
        "import ragbot.cli, ragbot.commands, ragbot.chat, ragbot.doctor",
        "import ragbot.encoder, ragbot.reranker, ragbot.engines.http, ragbot.engines.hf, ragbot.engines.llamacpp",
    ],
)
def test_importing_is_light(code: str) -> None:
    assert loaded(code).isdisjoint(HEAVY)


def test_only_what_is_public_is_promised() -> None:
    assert all(getattr(ragbot, name) is not None for name in ragbot.__all__)
    with pytest.raises(AttributeError):
        _ = ragbot.nonsense
