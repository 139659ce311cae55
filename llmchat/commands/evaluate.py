"""The commands that put models beside each other: evaluate, compare."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmchat.commands import options
from llmchat.errors import LlmchatError, UsageError, did_you_mean
from llmchat.settings import World

if TYPE_CHECKING:
    from llmchat.evaluate.run import Outcome

app = typer.Typer()

INTERRUPTED = 130
ASKED = "What is asked"

_MODEL = ("-m", "--model")
_NAMED = "A model, once for each: NAME, NAME+ADAPTER, NAME+ADAPTER:0.5, or NAME:off without the preset's adapters."
Models = Annotated[
    list[str],
    typer.Option(
        *_MODEL, help=_NAMED, rich_help_panel=options.MODEL, autocompletion=options.complete_model
    ),
]
Greedy = Annotated[
    float | None,
    typer.Option(
        "--temperature", help="0, greedy, unless given.", rich_help_panel=options.SAMPLING
    ),
]
MaxTokens = Annotated[
    int,
    typer.Option(
        "--max-tokens",
        min=0,
        help="Most tokens of an answer; 0 for all the window leaves.",
        rich_help_panel=options.SAMPLING,
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        "--seed", min=0, help="For answers that are drawn.", rich_help_panel=options.SAMPLING
    ),
]
Quiet = Annotated[
    bool,
    typer.Option("-q", "--quiet", help="No progress on stderr.", rich_help_panel=options.OUTPUT),
]


@app.command()
def evaluate(
    ctx: typer.Context,
    models: Models,
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            "--tasks",
            metavar="FILE",
            help="Items as JSON lines; `-` is stdin. May be given again.",
            rich_help_panel=ASKED,
        ),
    ] = None,
    harness: Annotated[
        str | None,
        typer.Option(
            help="Tasks of lm-evaluation-harness instead, with commas between.",
            rich_help_panel=ASKED,
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            help="exact, contains, choice or perplexity, for items that do not say.",
            rich_help_panel=ASKED,
        ),
    ] = None,
    fold: Annotated[
        str | None,
        typer.Option(
            help="What does not count in a match: case, punctuation, articles, with commas between; or all.",
            rich_help_panel=ASKED,
        ),
    ] = None,
    limit: Annotated[
        int,
        typer.Option(
            min=0, help="The first so many items of each task; 0 for all.", rich_help_panel=ASKED
        ),
    ] = 0,
    include: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Task files for --harness.", rich_help_panel=ASKED),
    ] = None,
    chat_format: Annotated[
        bool,
        typer.Option(
            "--chat-format",
            help="Let --harness ask in the model's own prompt format.",
            rich_help_panel=ASKED,
        ),
    ] = False,
    format: options.Format = None,
    weights: options.Weights = None,
    engine: options.Engine = None,
    url: options.Url = None,
    device: options.Device = None,
    trust_remote_code: options.TrustRemoteCode = None,
    offline: options.Offline = None,
    system: options.System = None,
    context: options.Context = None,
    policy: options.Policy = None,
    max_tokens: MaxTokens = 256,
    temperature: Greedy = None,
    seed: Seed = 0,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Write each result as it comes, a JSON line each.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with the results of --output.", rich_help_panel=options.OUTPUT
        ),
    ] = False,
    json: options.Json = False,
    quiet: Quiet = False,
) -> None:
    """Did it help? Scores of models on the same tasks, with 95 % intervals, and whether one is really better than another."""
    from llmchat import evaluate as room
    from llmchat.evaluate.candidates import find_candidates
    from llmchat.evaluate.report import for_json
    from llmchat.ui.json_output import print_json

    given = _given(ctx)
    if bool(tasks) == bool(harness):
        raise UsageError("either --tasks FILE or --harness TASKS says what is asked")
    world = options.world_of(ctx)
    if harness:
        if output or resume:
            raise UsageError(
                "--output and --resume are for --tasks", "--json prints all results of the harness"
            )
        names = [name.strip() for name in harness.split(",") if name.strip()]
        candidates = find_candidates(models, given, world)
        outcome = room.run_harness(
            candidates,
            names,
            world,
            limit=limit,
            include=include,
            chat=chat_format,
            offline=bool(offline),
            quiet=quiet,
        )
    else:
        ask_options = room.AskOptions(_folds(fold), seed)
        items: list[Any] = []
        for file in tasks or ():
            items += room.read_tasks(
                world, file, kind=kind, fold=ask_options.fold, limit=limit, before=len(items)
            )
        candidates = find_candidates(models, given, world)
        kept = room.ResultFile(_place(output) if output else None, resume=resume)
        outcome = room.run(candidates, items, ask_options, world, kept, quiet=quiet)
    if json:
        made_by = [{"label": one.label, **one.made_by} for one in candidates]
        error = outcome.error.message if outcome.error else None
        print_json(world, for_json(made_by, outcome.results, outcome.interrupted, error))
    else:
        _print_table(world, outcome, candidates[0].label)
    _end(outcome.interrupted, outcome.error)


@app.command()
def compare(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL...] [PROMPT...]",
            help="Models and one prompt, `compare A B 'Hello'`; with -m, prompts alone. `-` reads prompts from stdin, one a line.",
        ),
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option(
            *_MODEL,
            help=_NAMED,
            rich_help_panel=options.MODEL,
            autocompletion=options.complete_model,
        ),
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option(
            "-f",
            "--file",
            help="One prompt a line, or JSON lines with messages; may be given again.",
            rich_help_panel=ASKED,
        ),
    ] = None,
    format: options.Format = None,
    weights: options.Weights = None,
    engine: options.Engine = None,
    url: options.Url = None,
    device: options.Device = None,
    trust_remote_code: options.TrustRemoteCode = None,
    offline: options.Offline = None,
    system: options.System = None,
    context: options.Context = None,
    policy: options.Policy = None,
    max_tokens: MaxTokens = 512,
    temperature: Greedy = None,
    seed: Seed = 0,
    html: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write one HTML file that needs nothing else.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    json: options.Json = False,
    quiet: Quiet = False,
) -> None:
    """The same prompts to several models or adapters, side by side."""
    from llmchat.evaluate import compare as room
    from llmchat.evaluate.candidates import find_candidates
    from llmchat.ui.json_output import print_json

    given = _given(ctx)
    world = options.world_of(ctx)
    named, prompts = (models, words or []) if models else _parted(words or [], bool(file))
    asked = room.read_prompts(world, prompts, file or ())
    candidates = find_candidates(named, given, world)
    page = _place(html) if html else None
    result = room.compare(candidates, asked, world, seed=seed, quiet=quiet)
    if page:
        page.write_text(room.as_html(result), "utf-8")
        if not quiet:
            print(f"written to {html}", file=world.stderr)
    if json:
        print_json(world, room.for_json(result))
    elif not page:
        room.show(result, world)
    _end(result.interrupted, result.error)


def _parted(words: list[str], file: bool) -> tuple[list[str], list[str]]:
    """Models and prompts of `compare A B "prompt"`; with -f every word is a model."""
    named, prompts = (words, []) if file else (words[:-1], words[-1:])
    if not named:
        raise UsageError(
            "there is no model to compare",
            '`llmchat compare A B "prompt"`, or `-m A -m B` before several prompts',
        )
    return named, prompts


def _given(ctx: typer.Context) -> dict[str, Any]:
    """The options that are the same for every model; greedy unless a temperature was given."""
    # The seed is the run's: it is passed on with each question.
    shared = {name: value for name, value in options.given(ctx).items() if name != "seed"}
    return shared | {"temperature": shared["temperature"] or 0.0}


def _place(file: str) -> Path:
    """Where to write; that it can be written is known before a model is loaded."""
    path = Path(file).expanduser()
    try:
        path.touch()
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}") from error
    return path


def _folds(words: str | None) -> tuple[Any, ...]:
    from llmchat.evaluate.matching import FOLDS

    named = [word.strip() for word in (words or "").split(",") if word.strip()]
    wrong = next((word for word in named if word not in (*FOLDS, "all")), None)
    if wrong:
        raise UsageError(
            f"--fold cannot be {wrong}", did_you_mean(wrong, FOLDS) or f"{', '.join(FOLDS)}, or all"
        )
    return FOLDS if "all" in named else tuple(fold for fold in FOLDS if fold in named)


def _print_table(world: World, outcome: "Outcome", first: str) -> None:
    """A row for each task and model, then how the others do against the first model."""
    from llmchat.evaluate import report
    from llmchat.ui import tables

    tables.rows(world, [report.cells(row) for row in report.rows(outcome.results)], report.COLUMNS)
    told = report.differences(outcome.results, first)
    if told:
        print("", *map(report.sentence, told), sep="\n", file=world.stdout)


def _end(interrupted: bool, error: LlmchatError | None) -> None:
    if error:
        raise error
    if interrupted:
        raise typer.Exit(INTERRUPTED)
