"""The `ragbot` command: parse, call one function, print.

What was asked for goes to standard output, everything else to standard error. Exit codes: 0 done,
1 an evaluation falls short or a quote no longer stands, 2 the user can mend it (one sentence says
how), 130 interrupted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ragbot.options import (
    CheckerOption,
    CorpusOption,
    DefaultGroup,
    DocOption,
    EncoderOption,
    FailUnderOption,
    HostOption,
    IndexOption,
    JsonOption,
    JudgeOption,
    KeepAllOption,
    LanguagesOption,
    LeftOutOption,
    LimitOption,
    LlmOption,
    LogQuestionsOption,
    NoiseOption,
    OriginsOption,
    OutOption,
    PortOption,
    Question,
    RateOption,
    RayCommand,
    RayOption,
    RephraseOption,
    RerankerOption,
    ResumeOption,
    RetrievalOnlyOption,
    TopKOption,
    TypesOption,
    listed,
)

app = typer.Typer(
    name="ragbot",
    help="Answers questions about your documents, in Chinese and English, every sentence cited.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command(cls=RayCommand)
def index(
    corpus: Annotated[Optional[Path], typer.Argument(help="File or folder to index.")] = None,
    index: IndexOption = None,
    encoder: EncoderOption = None,
    keep_all: KeepAllOption = None,
    ray: RayOption = None,
    verbose: LeftOutOption = False,
) -> None:
    """Build the index, or bring it up to date."""
    from ragbot import commands

    flags = dict(corpus=corpus, index=index, encoder=encoder, keep_all=keep_all)
    commands.build(flags, verbose, ray=ray)


@app.command()
def search(
    question: Question,
    corpus: CorpusOption = None,
    index: IndexOption = None,
    encoder: EncoderOption = None,
    reranker: RerankerOption = None,
    doc: DocOption = None,
    top_k: TopKOption = None,
    json: JsonOption = False,
) -> None:
    """Show the passages that bear on a question."""
    from ragbot import commands

    settings = dict(corpus=corpus, index=index, encoder=encoder, reranker=reranker, top_k=top_k)
    commands.search(question, settings, doc or (), as_json=json)


@app.command()
def ask(
    question: Question,
    corpus: CorpusOption = None,
    index: IndexOption = None,
    encoder: EncoderOption = None,
    reranker: RerankerOption = None,
    llm: LlmOption = None,
    doc: DocOption = None,
    top_k: TopKOption = None,
    translate: Annotated[
        bool, typer.Option("--translate", help="Also quote in the question's language.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say what was searched for, and how sure it is.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Answer a question, with the sentences that prove it."""
    from ragbot import commands

    models = dict(encoder=encoder, reranker=reranker, llm=llm)
    flags = dict(corpus=corpus, index=index, top_k=top_k, **models)
    commands.ask(question, flags, doc or (), commands.Shown(json, verbose, translate))


@app.command()
def chat(
    corpus: CorpusOption = None,
    index: IndexOption = None,
    encoder: EncoderOption = None,
    reranker: RerankerOption = None,
    llm: LlmOption = None,
    doc: DocOption = None,
    top_k: TopKOption = None,
) -> None:
    """Talk about the documents, question by question."""
    from ragbot import chat

    models = dict(encoder=encoder, reranker=reranker, llm=llm)
    chat.run(dict(corpus=corpus, index=index, top_k=top_k, **models), doc or ())


@app.command()
def serve(
    host: HostOption = "127.0.0.1",
    port: PortOption = 7860,
    corpus: CorpusOption = None,
    index: IndexOption = None,
    encoder: EncoderOption = None,
    reranker: RerankerOption = None,
    llm: LlmOption = None,
    top_k: TopKOption = None,
    rate: RateOption = None,
    origins: OriginsOption = None,
    log_questions: LogQuestionsOption = False,
) -> None:
    """Open the chat page, and an API for other programs."""
    from ragbot.config import load_config
    from ragbot.web import server

    models = dict(encoder=encoder, reranker=reranker, llm=llm)
    config = load_config(dict(corpus=corpus, index=index, top_k=top_k, rate=rate, **models))
    options = server.Options(config.rate, tuple(origins or ()), log_questions)
    server.serve(config, host=host, port=port, options=options)


@app.command()
def verify(
    answers: Annotated[
        Path,
        typer.Argument(
            metavar="ANSWER.json",
            help="What `ask --json` printed, one or many; - is standard input.",
            show_default=False,
        ),
    ],
    corpus: CorpusOption = None,
    keep_all: KeepAllOption = None,
    json: JsonOption = False,
) -> None:
    """Confirm that the quotes of saved answers stand where they say. Needs no model."""
    from ragbot import commands

    if not commands.verify(answers, dict(corpus=corpus, keep_all=keep_all), as_json=json):
        raise typer.Exit(1)


evaluation = typer.Typer(cls=DefaultGroup)
app.add_typer(
    evaluation, name="eval", help="Measure how well a question set is answered; compare two runs."
)


@evaluation.command()
def run(
    questions: Annotated[
        str, typer.Argument(help="Question set: JSON Lines, CSV, bare .txt, rated .sqlite or URL.")
    ],
    corpus: CorpusOption = None,
    index: IndexOption = None,
    encoder: EncoderOption = None,
    reranker: RerankerOption = None,
    llm: LlmOption = None,
    top_k: TopKOption = None,
    out: OutOption = None,
    resume: ResumeOption = False,
    retrieval_only: RetrievalOnlyOption = False,
    rephrase: RephraseOption = False,
    limit: LimitOption = None,
    seed: Annotated[int, typer.Option("--seed", help="For what is drawn.")] = 0,
    types: TypesOption = None,
    langs: LanguagesOption = None,
    noise: NoiseOption = 0,
    remove_gold: Annotated[
        bool, typer.Option("--remove-gold", help="Hide the gold paragraphs: refusing is right.")
    ] = False,
    also_removed: Annotated[
        bool, typer.Option("--also-removed", help="Ask each once more with its gold hidden.")
    ] = False,
    checker: CheckerOption = None,
    judge: JudgeOption = "",
    fail_under: FailUnderOption = None,
    json: JsonOption = False,
) -> None:
    """Measure how well a question set is answered over a corpus.

    `ragbot eval compare A B` says what differs between two runs.
    """
    from ragbot.evaluation import command

    selection = command.Selection(listed(types), listed(langs), limit, seed)
    conditions = command.Conditions(noise, remove_gold, also_removed)
    plan = command.Plan(
        questions,
        selection,
        conditions,
        retrieval_only,
        rephrase,
        checker=command.CHECKER if checker is None else checker,
        judge=judge,
    )
    models = dict(encoder=encoder, reranker=reranker, llm=llm)
    flags = dict(corpus=corpus, index=index, top_k=top_k, **models)
    output = command.Output(out, resume, tuple(fail_under or ()), json)
    if not command.evaluate(plan, flags, output):
        raise typer.Exit(1)


@evaluation.command()
def compare(
    a: Annotated[Path, typer.Argument(help="Folder of a run.")],
    b: Annotated[Path, typer.Argument(help="Folder of another.")],
    html: Annotated[Optional[Path], typer.Option("--html", help="Also as a page.")] = None,
    json: JsonOption = False,
) -> None:
    """Say what differs between two runs, and whether it is more than luck."""
    from ragbot.evaluation import command

    command.show_comparison(a, b, html, as_json=json)


@app.command()
def doctor(
    corpus: CorpusOption = None,
    index: IndexOption = None,
    encoder: EncoderOption = None,
    reranker: RerankerOption = None,
    llm: LlmOption = None,
) -> None:
    """Show versions, settings, models and the index, and how to mend what is wrong."""
    from ragbot import doctor

    doctor.run(dict(corpus=corpus, index=index, encoder=encoder, reranker=reranker, llm=llm))
