"""The `ragbot` command: parse, call one function, print.

What was asked for goes to standard output, everything else to standard error. Exit codes: 0 done,
2 the user can mend it (one sentence says how), 130 interrupted.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from ragbot.errors import ConfigError, RagbotError

app = typer.Typer(
    name="ragbot",
    help="Answers questions about your documents, in Chinese and English, every sentence cited.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# typer reads annotations at run time, on 3.10 too, where only Optional[...] is safe for it.
CorpusOption = Annotated[
    Optional[Path], typer.Option("--corpus", "-c", help="File or folder to answer from.")
]
IndexOption = Annotated[Optional[Path], typer.Option("--index", help="Folder of the built index.")]
EncoderOption = Annotated[
    Optional[str], typer.Option("--encoder", help="packaged:NAME, a folder, or a hub id.")
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
    Optional[bool], typer.Option("--keep-all", help="Index web-page litter, too.")
]
Question = Annotated[str, typer.Argument(help="What you want to know.", show_default=False)]


@app.command()
def index(
    corpus: Annotated[Optional[Path], typer.Argument(help="File or folder to index.")] = None,
    index: IndexOption = None,
    encoder: EncoderOption = None,
    keep_all: KeepAllOption = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="List what is left out.")
    ] = False,
) -> None:
    """Build the index, or bring it up to date."""
    from ragbot import commands

    commands.build(dict(corpus=corpus, index=index, encoder=encoder, keep_all=keep_all), verbose)


@app.command()
def search(
    question: Question,
    corpus: CorpusOption = None,
    index: IndexOption = None,
    encoder: EncoderOption = None,
    top_k: TopKOption = None,
    json: JsonOption = False,
) -> None:
    """Show the passages that bear on a question."""
    from ragbot import commands

    commands.search(
        question, dict(corpus=corpus, index=index, encoder=encoder, top_k=top_k), as_json=json
    )


@app.command()
def ask(
    question: Question,
    corpus: CorpusOption = None,
    index: IndexOption = None,
    encoder: EncoderOption = None,
    llm: LlmOption = None,
    top_k: TopKOption = None,
    json: JsonOption = False,
) -> None:
    """Answer a question, with the sentences that prove it."""
    from ragbot import commands

    settings = dict(corpus=corpus, index=index, encoder=encoder, llm=llm, top_k=top_k)
    commands.ask(question, settings, as_json=json)


@app.command()
def chat(
    corpus: CorpusOption = None,
    index: IndexOption = None,
    encoder: EncoderOption = None,
    llm: LlmOption = None,
    top_k: TopKOption = None,
) -> None:
    """Talk about the documents, question by question."""
    from ragbot import chat

    chat.run(dict(corpus=corpus, index=index, encoder=encoder, llm=llm, top_k=top_k))


@app.command()
def eval(
    questions: Annotated[Path, typer.Argument(help="Question set, JSON Lines.")],
    corpus: CorpusOption = None,
    index: IndexOption = None,
    encoder: EncoderOption = None,
    retrieval_only: Annotated[
        bool, typer.Option("--retrieval-only", help="Measure what is found, ask nothing.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Measure how well a question set is answered over a corpus."""
    from ragbot.evaluation import run

    if not retrieval_only:
        raise ConfigError("Only retrieval can be measured so far: add --retrieval-only.")
    run.retrieval(questions, dict(corpus=corpus, index=index, encoder=encoder), as_json=json)


@app.command()
def doctor(
    corpus: CorpusOption = None,
    index: IndexOption = None,
    encoder: EncoderOption = None,
    llm: LlmOption = None,
) -> None:
    """Show versions, settings, models and the index, and how to mend what is wrong."""
    from ragbot import doctor

    doctor.run(dict(corpus=corpus, index=index, encoder=encoder, llm=llm))


def main() -> None:
    """Run the command line; a RagbotError becomes one sentence and exit code 2."""
    try:
        app()
    except RagbotError as error:
        typer.echo(f"ragbot: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:  # where typer, which turns it into the same, does not look
        sys.exit(130)
