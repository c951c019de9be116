"""LlamaIndex's CitationQueryEngine, set up as its documentation shows it.

Its reader, its vector index, three nodes cited in chunks of 512 tokens; with `lean`, each line of
the corpus (a paragraph) is a node of its own, so that it reads far less. Runs in the peers' own
environment: `python -m scripts.bench.answerer.llamaindex`.
"""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from scripts.bench.answerer.protocol import Opened, Say, run


def opened(settings: dict[str, Any]) -> Opened:
    """A query engine over `corpus`: `encoder` is a folder, `url` serves the generator."""
    from llama_index.core.query_engine import CitationQueryEngine
    from llama_index.llms.openai_like import OpenAILike

    index = _index(settings)
    llm = OpenAILike(
        model="local",
        api_base=settings["url"],
        api_key="none",
        context_window=settings["context"],
        is_chat_model=True,
        max_tokens=settings["max_tokens"],
        temperature=0.0,
        timeout=600.0,
    )
    engine = CitationQueryEngine.from_args(
        index, llm=llm, similarity_top_k=3, citation_chunk_size=512, streaming=True
    )

    def answer(question: str, say: Say) -> dict[str, Any]:
        reply, text = engine.query(question), ""
        for piece in reply.response_gen:
            text += piece
            say(piece)
        sources = {str(n): one.node.get_content() for n, one in enumerate(reply.source_nodes, 1)}
        return {"text": text, "sources": sources}

    return answer, {"name": "LlamaIndex", "version": version("llama-index-core")}


def _index(settings: dict[str, Any]) -> Any:
    from llama_index.core import Document, SimpleDirectoryReader, VectorStoreIndex
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    encoder = HuggingFaceEmbedding(
        model_name=settings["encoder"],
        query_instruction="query: ",
        text_instruction="passage: ",
        device="cpu",
    )
    documents = SimpleDirectoryReader(settings["corpus"], required_exts=[".txt"]).load_data()
    if settings["lean"]:
        lines = (line for document in documents for line in document.text.splitlines())
        documents = [Document(text=line) for line in lines if line.strip()]
    return VectorStoreIndex.from_documents(documents, embed_model=encoder)


if __name__ == "__main__":
    run(opened)
