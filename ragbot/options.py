"""The flags that several commands share, those that take long to describe, and those that typer
reads in a way of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from typer.core import TyperCommand, TyperGroup

# typer reads annotations at run time, on 3.10 too, where only Optional[...] is safe for it.
CorpusOption = Annotated[
    Optional[Path], typer.Option("--corpus", "-c", help="File or folder to answer from.")
]
IndexOption = Annotated[
    Optional[str],  # a path would lose a slash of milvus://
    typer.Option("--index", help="Built index: a folder, or milvus://HOST:PORT/COLLECTION."),
]
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
DocOption = Annotated[
    Optional[list[str]],
    typer.Option(
        "--doc", "-d", metavar="NAME", help="Only this document, folder or '*.md'. Repeatable."
    ),
]
TopKOption = Annotated[Optional[int], typer.Option("--top-k", "-k", help="Passages to retrieve.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
KeepAllOption = Annotated[
    Optional[bool], typer.Option("--keep-all", help="Keep web-page litter, too.")
]
RayOption = Annotated[
    Optional[str],
    typer.Option(
        "--ray",
        metavar="[ADDRESS]",
        help="Read and encode by a Ray cluster: host:port, auto, or one made here.",
    ),
]
LeftOutOption = Annotated[bool, typer.Option("--verbose", "-v", help="List what is left out.")]
Question = Annotated[str, typer.Argument(help="What you want to know.", show_default=False)]

# `ragbot serve`
HostOption = Annotated[
    str, typer.Option("--host", help="Address to listen on; 0.0.0.0 opens it to the network.")
]
PortOption = Annotated[
    int, typer.Option("--port", "-p", help="Port to listen on; 0 takes a free one.")
]
RateOption = Annotated[
    Optional[int],
    typer.Option("--rate", help="Questions a minute of one client of the API; 0: any."),
]
OriginsOption = Annotated[
    Optional[list[str]],
    typer.Option(
        "--origin", help="Other site that may use it, https://chat.example.org. Repeatable."
    ),
]
LogQuestionsOption = Annotated[
    bool, typer.Option("--log-questions", help="Write the questions into the log, too.")
]

# `ragbot eval`
NoiseOption = Annotated[
    int, typer.Option("--noise", min=0, max=46, help="Useless passages added to each prompt.")
]
OutOption = Annotated[
    Optional[Path], typer.Option("--out", "-o", help="Folder for record, summary and report.")
]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Go on with the interrupted run in --out.")
]
RetrievalOnlyOption = Annotated[
    bool, typer.Option("--retrieval-only", help="Measure what is found, ask nothing.")
]
RephraseOption = Annotated[
    bool,
    typer.Option("--rephrase", help="With --retrieval-only: translate questions as for an answer."),
]
LimitOption = Annotated[
    Optional[int], typer.Option("--limit", "-n", min=1, help="Draw so many questions.")
]
TypesOption = Annotated[
    Optional[list[str]], typer.Option("--types", help="Of these types only: a,b.")
]
LanguagesOption = Annotated[
    Optional[list[str]], typer.Option("--langs", help="In these languages only: en,zh-Hant.")
]
CheckerOption = Annotated[
    Optional[str], typer.Option("--checker", help="Model that judges support; '' for none.")
]
JudgeOption = Annotated[
    str, typer.Option("--judge", help="Model for opinions: packaged:NAME, MODEL@URL.")
]
FailUnderOption = Annotated[
    Optional[list[str]],
    typer.Option("--fail-under", help="METRIC=VALUE; exit code 1 below it. Repeatable."),
]


def listed(values: Optional[list[str]]) -> tuple[str, ...]:
    """What a repeatable flag was given, each time one or several with commas between."""
    return tuple(part.strip() for part in ",".join(values or ()).split(",") if part.strip())


class DefaultGroup(TyperGroup):
    """A group that takes what does not begin with a command's name for its command `run`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in self.commands:
            args = ["run", *args]
        return list(super().parse_args(ctx, args))


class RayCommand(TyperCommand):
    """A command whose `--ray` needs no address: what follows is one only if it looks like one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--ray" in args:
            at = args.index("--ray") + 1
            word = "".join(args[at : at + 1])
            if word.startswith("-") or (":" not in word and word not in ("auto", "local")):
                args = [*args[:at], "local", *args[at:]]
        return list(super().parse_args(ctx, args))
