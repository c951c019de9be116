"""Haystack's question answering pipeline with references, put together as its documentation does.

Its converter and splitter (by line: a line of the corpus is a paragraph), its in-memory store and
embedding retriever, prompt builder, generator, answer builder. It has no prompt of its own; this
one asks what its first example does, with numbers to cite. The retriever's default is ten passages;
with `lean` it gives three. Runs in the peers' own environment:
`python -m scripts.bench.answerer.haystack`.
"""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from scripts.bench.answerer.protocol import Opened, Say, run

_PROMPT = """Answer the question from these documents. Cite them by their numbers, like [1].

Documents:
{% for document in documents %}[{{ loop.index }}] {{ document.content }}
{% endfor %}
Question: {{ question }}
Answer:"""
_PASSAGES, _LEAN_PASSAGES = 10, 3


def opened(settings: dict[str, Any]) -> Opened:
    """A pipeline over `corpus`: `encoder` is a folder, `url` serves the generator."""
    passages = _LEAN_PASSAGES if settings["lean"] else _PASSAGES
    pipeline = _pipeline(settings, _store(settings), passages)

    def answer(question: str, say: Say) -> dict[str, Any]:
        told = pipeline.run(
            {
                "embedder": {"text": question},
                "prompt": {"question": question},
                "generator": {"streaming_callback": lambda chunk: say(chunk.content)},
                "answers": {"query": question},
            },
            include_outputs_from={"retriever"},
        )
        found = told["retriever"]["documents"]
        sources = {str(number): document.content for number, document in enumerate(found, 1)}
        return {"text": told["answers"]["answers"][0].data, "sources": sources}

    return answer, {"name": "Haystack", "version": version("haystack-ai")}


def _store(settings: dict[str, Any]) -> Any:
    from haystack import Pipeline
    from haystack.components.converters import TextFileToDocument
    from haystack.components.preprocessors import DocumentCleaner, DocumentSplitter
    from haystack.components.writers import DocumentWriter
    from haystack.document_stores.in_memory import InMemoryDocumentStore
    from haystack_integrations.components.embedders.sentence_transformers import (
        SentenceTransformersDocumentEmbedder,
    )

    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    indexing = Pipeline()
    indexing.add_component("converter", TextFileToDocument())
    indexing.add_component("splitter", DocumentSplitter(split_by="line", split_length=1))
    indexing.add_component("cleaner", DocumentCleaner())
    indexing.add_component(
        "embedder",
        SentenceTransformersDocumentEmbedder(
            model=settings["encoder"], prefix="passage: ", progress_bar=False
        ),
    )
    indexing.add_component("writer", DocumentWriter(store))
    for one, next_one in (
        ("converter", "splitter"),
        ("splitter", "cleaner"),
        ("cleaner", "embedder"),
        ("embedder", "writer"),
    ):
        indexing.connect(one, next_one)
    indexing.run({"converter": {"sources": sorted(Path(settings["corpus"]).glob("*.txt"))}})
    return store


def _pipeline(settings: dict[str, Any], store: Any, passages: int) -> Any:
    from haystack import Pipeline
    from haystack.components.builders import AnswerBuilder, ChatPromptBuilder
    from haystack.components.generators.chat import OpenAIChatGenerator
    from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
    from haystack.dataclasses import ChatMessage
    from haystack.utils import Secret
    from haystack_integrations.components.embedders.sentence_transformers import (
        SentenceTransformersTextEmbedder,
    )

    generator = OpenAIChatGenerator(
        api_key=Secret.from_token("none"),
        api_base_url=settings["url"],
        model="local",
        generation_kwargs={"max_tokens": settings["max_tokens"], "temperature": 0.0},
        timeout=600.0,
    )
    prompt = ChatPromptBuilder([ChatMessage.from_user(_PROMPT)], required_variables="*")
    pipeline = Pipeline()
    pipeline.add_component(
        "embedder",
        SentenceTransformersTextEmbedder(
            model=settings["encoder"], prefix="query: ", progress_bar=False
        ),
    )
    pipeline.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=passages))
    pipeline.add_component("prompt", prompt)
    pipeline.add_component("generator", generator)
    pipeline.add_component("answers", AnswerBuilder(reference_pattern=r"\[(\d+)\]"))
    pipeline.connect("embedder.embedding", "retriever.query_embedding")
    pipeline.connect("retriever.documents", "prompt.documents")
    pipeline.connect("prompt.prompt", "generator.messages")
    pipeline.connect("generator.replies", "answers.replies")
    pipeline.connect("retriever.documents", "answers.documents")
    return pipeline


if __name__ == "__main__":
    run(opened)
