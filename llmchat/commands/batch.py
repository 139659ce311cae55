"""The command that answers many prompts from a file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmchat.commands import chat_flags, options
from llmchat.errors import UsageError
from llmchat.settings import World, resolve
from llmchat.structure.arguments import of_flags

if TYPE_CHECKING:
    from llmchat.batches import Outcome, Work
    from llmchat.batches.results import Sink
    from llmchat.roles import Role

INTERRUPTED, HAS_ERRORS = 130, 1
BATCH = "Batch"

_In = Annotated[
    str,
    typer.Argument(
        metavar="IN",
        help="JSON lines with `prompt`, `messages` or `instruction`, or requests of OpenAI's batch"
        " API; a .csv or .tsv file; a .txt file with a prompt per line; `-` is stdin.",
    ),
]
_Out = Annotated[
    str,
    typer.Option(
        "-o",
        "--output",
        metavar="FILE",
        help="File for the answers, one JSON object per line; an existing file is continued."
        " `-` is stdout.",
        rich_help_panel=BATCH,
    ),
]
_Template = Annotated[
    str | None,
    typer.Option(
        "--template",
        metavar="TEXT",
        help="Make the prompt from fields or columns of a line: `Summarise: {text}`.",
        rich_help_panel=BATCH,
    ),
]
_AsDone = Annotated[
    bool,
    typer.Option(
        "--as-done",
        help="Keep the answers in the order in which they finish.",
        rich_help_panel=BATCH,
    ),
]
_N = Annotated[
    int, typer.Option("--n", min=1, max=128, help="Answers per line.", rich_help_panel=BATCH)
]
_Parallel = Annotated[
    int,
    typer.Option(min=1, max=1024, help="Answers generated at once.", rich_help_panel=BATCH),
]
_Format = Annotated[
    str | None,
    typer.Option(
        "-t",
        "--format",
        help="Prompt format; `llmchat presets --formats` lists them.",
        rich_help_panel=options.MODEL,
    ),
]


@options.with_sampling
@options.with_options(
    "model", "base", "adapter", "weights", "engine", "url", "device", "revision",
    "trust_remote_code", "offline", "role", "system", "context", "policy", "turns",
    before="schema",
)  # fmt: skip
def batch(
    ctx: typer.Context,
    source: _In,
    output: _Out = "-",
    template: _Template = None,
    as_done: _AsDone = False,
    n: _N = 1,
    parallel: _Parallel = 16,
    schema: chat_flags.Schema = None,
    regex: chat_flags.Regex = None,
    choice: chat_flags.Choice = None,
    grammar: chat_flags.Grammar = None,
    format: _Format = None,
    quiet: options.Quiet = False,
    **shared: Any,
) -> None:
    """Answer many prompts from a file, several at once; continue a run that was stopped."""
    from llmchat.batches import lines_of, run
    from llmchat.batches.reading import as_they_come, count_lines, is_pipe
    from llmchat.batches.run import summary
    from llmchat.batches.template import Template

    world = options.world_of(ctx)
    filled = Template(template) if template is not None else None
    _check(source, output)
    work = _work(ctx, world, _role(ctx, world), of_flags(schema, regex, choice or (), grammar))
    sink = _sink(world, output, work, as_done=as_done)
    try:
        lines = lines_of(world, source, filled, work.role)
        coming = as_they_come(lines) if is_pipe(source) else lines
        outcome = run(work, coming, sink, world, total=count_lines(source), quiet=quiet)
    finally:
        sink.close()
        work.opened.engine.unload()
    if not quiet:
        print(summary(outcome), file=world.stderr)
    _end(world, outcome, quiet=quiet)


def _check(source: str, output: str) -> None:
    """Raise UsageError before a model is loaded."""
    path = Path(source).expanduser()
    if source != "-" and (not path.exists() or path.is_dir()):
        raise UsageError(f"there is no file {source}")
    if "-" not in (source, output) and path.resolve() == Path(output).expanduser().resolve():
        raise UsageError("the answers cannot go into the file of the questions")


def _role(ctx: typer.Context, world: World) -> "Role | None":
    from llmchat.batches.roles import role_of_batch

    return role_of_batch(resolve(world, options.given(ctx)).options.role, world.own_roles)


def _work(ctx: typer.Context, world: World, role: "Role | None", structure: str | None) -> "Work":
    from llmchat.batches import Work
    from llmchat.models.opener import ModelOpener

    flags = options.given(ctx) | {"schema": structure}
    given, sets = ctx.params, role.options() if role else {}
    opened = ModelOpener(world, flags, role=sets).open(waiting=not given["quiet"])
    sampling = opened.preset.sampling
    return Work(
        opened, sampling, given["n"], given["parallel"], sampling.seed or 0,
        given["template"] or "", role,
    )  # fmt: skip


def _sink(world: World, output: str, work: "Work", *, as_done: bool) -> "Sink":
    from llmchat.batches.results import Results, StdoutResults

    if output == "-":
        return StdoutResults(world, as_done=as_done)
    return Results(Path(output).expanduser(), work.fingerprint, as_done=as_done)


def _end(world: World, outcome: "Outcome", *, quiet: bool) -> None:
    if outcome.interrupted:
        if not quiet:
            print("note: stopped; the same command continues from here", file=world.stderr)
        raise typer.Exit(INTERRUPTED)
    if outcome.errors:
        raise typer.Exit(HAS_ERRORS)
