"""The flags that several commands share, for typer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

# typer reads annotations at run time, on 3.10 too, where only Optional[...] is safe for it.
CorpusOption = Annotated[
    Optional[Path], typer.Option("--corpus", "-c", help="File or folder to answer from.")
]
IndexOption = Annotated[Optional[Path], typer.Option("--index", help="Folder of the built index.")]
EncoderOption = Annotated[
    Optional[str], typer.Option("--encoder", help="packaged:NAME, a folder, or a hub id.")
]
RerankerOption = Annotated[
    Optional[str],
    typer.Option("--reranker", help="Cross-encoder that orders passages anew: folder or hub id."),
]
LlmOption = Annotated[
    Optional[str],
    typer.Option(
        "--llm", help="packaged:NAME, a .gguf file, a folder, a hub id, or a server's model."
    ),
]
TopKOption = Annotated[Optional[int], typer.Option("--top-k", "-k", help="Passages to retrieve.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
KeepAllOption = Annotated[
    Optional[bool], typer.Option("--keep-all", help="Keep web-page litter, too.")
]
Question = Annotated[str, typer.Argument(help="What you want to know.", show_default=False)]
