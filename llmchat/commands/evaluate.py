"""The commands that compare models: evaluate, compare."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmchat.commands import options
from llmchat.errors import LlmchatError, UsageError, did_you_mean
from llmchat.settings import World

if TYPE_CHECKING:
    from llmchat.evaluate.candidates import Candidate
    from llmchat.evaluate.run import Outcome
    from llmchat.output.plots.figures import Figure
    from llmchat.roles import Role

app = typer.Typer()

INTERRUPTED = 130
ASKED = "Tasks"

_MODEL = ("-m", "--model")
_NAMED = (
    "A model; may be repeated: NAME, NAME+ADAPTER, NAME+ADAPTER:0.5, or NAME:off without the"
    " preset's adapters."
)
Models = Annotated[
    list[str],
    typer.Option(
        *_MODEL, help=_NAMED, rich_help_panel=options.MODEL, autocompletion=options.complete_model
    ),
]
Greedy = Annotated[
    float | None,
    typer.Option("--temperature", help="0 (greedy) by default.", rich_help_panel=options.SAMPLING),
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
    typer.Option("--seed", min=0, help="For sampled answers.", rich_help_panel=options.SAMPLING),
]
Quiet = Annotated[
    bool,
    typer.Option("-q", "--quiet", help="No progress on stderr.", rich_help_panel=options.OUTPUT),
]


_Tasks = Annotated[
    list[str] | None,
    typer.Option(
        "--tasks",
        metavar="FILE",
        help="Items as JSON lines; `-` is stdin. May be repeated.",
        rich_help_panel=ASKED,
    ),
]
_Harness = Annotated[
    str | None,
    typer.Option(
        help="Tasks of lm-evaluation-harness instead, separated by commas.",
        rich_help_panel=ASKED,
    ),
]
_Kind = Annotated[
    str | None,
    typer.Option(
        help="exact, contains, choice or perplexity, for items without a kind.",
        rich_help_panel=ASKED,
    ),
]
_Fold = Annotated[
    str | None,
    typer.Option(
        help="What a match ignores: case, punctuation, articles (separated by commas), or all.",
        rich_help_panel=ASKED,
    ),
]
_Limit = Annotated[
    int,
    typer.Option(
        min=0, help="Only the first N items of each task; 0 for all.", rich_help_panel=ASKED
    ),
]
_Include = Annotated[
    str | None,
    typer.Option(metavar="FOLDER", help="Task files for --harness.", rich_help_panel=ASKED),
]
_ChatFormat = Annotated[
    bool,
    typer.Option(
        "--chat-format",
        help="Use the model's prompt format with --harness.",
        rich_help_panel=ASKED,
    ),
]
_Output = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FILE",
        help="Write each result as soon as it is known, as a JSON line.",
        rich_help_panel=options.OUTPUT,
    ),
]
_Resume = Annotated[
    bool,
    typer.Option(
        "--resume", help="Continue with the results in --output.", rich_help_panel=options.OUTPUT
    ),
]

_with_shared_options = options.with_options(
    "format", "weights", "kv", "engine", "url", "device", "trust_remote_code", "offline", "role",
    "system", "context", "policy", before="max_tokens",
)  # fmt: skip


@app.command()
@_with_shared_options
def evaluate(
    ctx: typer.Context,
    models: Models,
    tasks: _Tasks = None,
    harness: _Harness = None,
    kind: _Kind = None,
    fold: _Fold = None,
    limit: _Limit = 0,
    include: _Include = None,
    chat_format: _ChatFormat = False,
    max_tokens: MaxTokens = 256,
    temperature: Greedy = None,
    seed: Seed = 0,
    output: _Output = None,
    resume: _Resume = False,
    plot_to: options.PlotTo = None,
    json: options.Json = False,
    quiet: Quiet = False,
    **shared: Any,
) -> None:
    """Score models on the same tasks, with 95 % intervals, and compare them with the first one."""
    if bool(tasks) == bool(harness):
        raise UsageError("evaluate needs either --tasks FILE or --harness TASKS")
    from llmchat.output.plots.showing import show, wish

    world = options.world_of(ctx)
    stream = world.stderr if json else world.stdout
    wanted = wish(plot_to, world, stream, quiet=json)
    if harness:
        candidates, outcome = _run_harness(ctx, world, models, harness)
    else:
        candidates, outcome = _run_tasks(ctx, world, models, tasks or [])
    if json:
        from llmchat.evaluate.report import for_json
        from llmchat.ui.json_output import print_json

        made_by = [{"label": one.label, **one.made_by} for one in candidates]
        error = outcome.error.message if outcome.error else None
        print_json(world, for_json(made_by, outcome.results, outcome.interrupted, error))
    else:
        _print_table(world, outcome, candidates[0].label)
    show(_figure(outcome), wanted, world, stream)
    _end(outcome.interrupted, outcome.error)


def _run_tasks(
    ctx: typer.Context, world: World, models: list[str], files: list[str]
) -> tuple[list["Candidate"], "Outcome"]:
    """Ask every model the items of task files."""
    from llmchat import evaluate as room
    from llmchat.evaluate.candidates import find_candidates
    from llmchat.evaluate.roles import items_in_role, role_of_models

    flags, role = ctx.params, role_of_models(ctx.params["role"], world.own_roles)
    given = _given(ctx, role)
    ask_options = room.AskOptions(_folds(flags["fold"]), given.pop("seed"))
    items: list[Any] = []
    for file in files:
        items += room.read_tasks(
            world,
            file,
            kind=flags["kind"],
            fold=ask_options.fold,
            limit=flags["limit"],
            before=len(items),
        )
    candidates = find_candidates(models, given, world)
    output = _place(flags["output"]) if flags["output"] else None
    kept = room.ResultFile(output, resume=flags["resume"])
    asked = items_in_role(items, role)
    outcome = room.run(candidates, asked, ask_options, world, kept, quiet=flags["quiet"])
    return candidates, outcome


def _run_harness(
    ctx: typer.Context, world: World, models: list[str], tasks: str
) -> tuple[list["Candidate"], "Outcome"]:
    """Run tasks of lm-evaluation-harness, named with commas between, with every model."""
    from llmchat import evaluate as room
    from llmchat.evaluate.candidates import find_candidates

    flags = ctx.params
    if flags["output"] or flags["resume"]:
        raise UsageError(
            "--output and --resume are for --tasks", "--json prints all results of the harness"
        )
    if flags["role"]:
        raise UsageError(
            "--role is for --tasks", "the tasks of the harness have prompts of their own"
        )
    given = _given(ctx)
    del given["seed"]
    candidates = find_candidates(models, given, world)
    outcome = room.run_harness(
        candidates,
        [name.strip() for name in tasks.split(",") if name.strip()],
        world,
        limit=flags["limit"],
        include=flags["include"],
        chat=flags["chat_format"],
        offline=bool(flags["offline"]),
        quiet=flags["quiet"],
    )
    return candidates, outcome


_Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[MODEL...] [PROMPT...]",
        help="Models and one prompt, `compare A B 'Hello'`; with -m, only prompts. `-` reads"
        " one prompt a line from stdin.",
    ),
]
_Models = Annotated[
    list[str] | None,
    typer.Option(
        *_MODEL,
        help=_NAMED,
        rich_help_panel=options.MODEL,
        autocompletion=options.complete_model,
    ),
]
_File = Annotated[
    list[str] | None,
    typer.Option(
        "-f",
        "--file",
        help="One prompt a line, or JSON lines with messages; may be repeated.",
        rich_help_panel=ASKED,
    ),
]
_Html = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Write a self-contained HTML file.",
        rich_help_panel=options.OUTPUT,
    ),
]


@app.command()
@_with_shared_options
def compare(
    ctx: typer.Context,
    words: _Words = None,
    models: _Models = None,
    file: _File = None,
    max_tokens: MaxTokens = 512,
    temperature: Greedy = None,
    seed: Seed = 0,
    html: _Html = None,
    json: options.Json = False,
    quiet: Quiet = False,
    **shared: Any,
) -> None:
    """Compare the answers of several models or adapters to the same prompts."""
    from llmchat.evaluate import compare as room
    from llmchat.evaluate.candidates import find_candidates
    from llmchat.evaluate.roles import role_of_models
    from llmchat.ui.json_output import print_json

    world = options.world_of(ctx)
    role = role_of_models(ctx.params["role"], world.own_roles)
    given = _given(ctx, role)
    seed = given.pop("seed")
    named, prompts = (models, words or []) if models else _parted(words or [], bool(file))
    asked = room.read_prompts(world, prompts, file or ())
    if role:
        asked = [role.ask_last(one) for one in asked]
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


def _given(ctx: typer.Context, role: "Role | None" = None) -> dict[str, Any]:
    """The options that are the same for every model: flags, else the role's, else defaults.

    Greedy without a temperature. The seed is the run's.
    """
    from llmchat.evaluate.roles import options_of

    written = options.given(ctx)
    sets = {"temperature": 0.0} | options_of(role)
    return written | {
        name: value for name, value in sets.items() if not options.is_given(ctx, name)
    }


def _place(file: str) -> Path:
    """The path to write to. Raises UsageError before a model is loaded if it is not writable."""
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
            f"invalid value `{wrong}` for --fold",
            did_you_mean(wrong, FOLDS) or f"{', '.join(FOLDS)}, or all",
        )
    return FOLDS if "all" in named else tuple(fold for fold in FOLDS if fold in named)


def _print_table(world: World, outcome: "Outcome", first: str) -> None:
    """A row for each task and model, then how the others do against the first model."""
    from llmchat.evaluate import report
    from llmchat.ui import tables

    tables.rows(world, [report.cells(row) for row in report.rows(outcome.results)], report.COLUMNS)
    differences = report.differences(outcome.results, first)
    if differences:
        print("", *map(report.sentence, differences), sep="\n", file=world.stdout)


def _figure(outcome: "Outcome") -> "Figure":
    from llmchat.evaluate.report import rows
    from llmchat.evaluate.score_plot import score_figure

    return score_figure(rows(outcome.results))


def _end(interrupted: bool, error: LlmchatError | None) -> None:
    if error:
        raise error
    if interrupted:
        raise typer.Exit(INTERRUPTED)
