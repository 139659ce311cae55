"""The commands for models: pull, ls, show, rm, verify."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from msgspec.structs import replace

from llmchat.commands import options
from llmchat.commands.confirm import confirmed
from llmchat.errors import UsageError
from llmchat.output.formatting import byte_count
from llmchat.output.terminal_text import fit_for
from llmchat.settings import Options, World, resolve

if TYPE_CHECKING:
    from llmchat.hub import Plan

app = typer.Typer()


_Models = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL...",
        help="Presets, Hub repos (org/name, org/name-GGUF:Q4_K_M) or .gguf files.",
        autocompletion=options.complete_model,
    ),
]
_DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be downloaded; download no weights.")
]
_Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Pull even if it does not fit or match; read every file again.",
    ),
]
_Prepare = Annotated[
    bool,
    typer.Option(
        "--prepare/--no-prepare",
        help="Write the quantised copy that makes chats start faster.",
    ),
]
_Json = Annotated[bool, typer.Option("--json", help="The plan as one JSON object on stdout.")]
_Yes = Annotated[
    bool,
    typer.Option("-y", "--yes", help="Take the proposed file of a GGUF repo without asking."),
]


@app.command()
@options.with_options(
    "base", "adapter", "revision", "weights", "kv", "context", "trust_remote_code", "offline",
    before="dry_run",
)  # fmt: skip
def pull(
    ctx: typer.Context,
    models: _Models,
    dry_run: _DryRun = False,
    force: _Force = False,
    prepare: _Prepare = True,
    json: _Json = False,
    yes: _Yes = False,
    quiet: options.Quiet = False,
    **shared: Any,
) -> None:
    """Download, check and prepare models; resumes interrupted downloads."""
    given = options.given(ctx)
    how = _Pull(dry_run=dry_run, force=force, prepare=prepare, json=json, yes=yes, quiet=quiet)
    for name in models:
        _pull(ctx.obj, resolve(ctx.obj, given | {"model": name}).options, how)


class _Pull(msgspec.Struct, frozen=True):
    """How a pull is done, as the flags of `llmchat pull` say."""

    dry_run: bool = False
    force: bool = False
    prepare: bool = True
    json: bool = False
    yes: bool = False
    quiet: bool = False


def _pull(world: World, options: Options, how: _Pull) -> None:
    """Plan the pull of one model, print the plan, and do it unless it is a dry run."""
    from llmchat.models import pulling
    from llmchat.output.progress import ByteProgress, NoProgress
    from llmchat.presets import preset_for

    world = world.in_offline_mode() if options.offline else world
    planned = pulling.plan_pull(
        preset_for(options, world.own_presets),
        world,
        device=options.device,
        code=options.trust_remote_code,
        thorough=how.force,
    )
    plan = planned.plan
    _print_plan(plan, world, how, proposed=planned.proposed)
    downloads = not all(part.here for part in plan.parts)
    plan.enforce(force=how.force, memory=how.dry_run or downloads)
    if how.dry_run:
        return
    if planned.proposed and not how.yes and not _accepted(plan, world):
        raise UsageError("nothing was pulled", f"name a file: {_other_names(plan)}")
    progress = NoProgress() if how.quiet else ByteProgress(world)
    parts = pulling.pull(planned, world, progress, force=how.force)
    lines = [
        f"{part.checkpoint.source}: {'; '.join(part.notes) or 'already here'}"
        f" ({byte_count(part.checkpoint.size, decimals=0)})"
        for part in parts
    ]
    _note(lines, world, how)
    if how.prepare and parts:
        files, code = [part.checkpoint for part in parts], options.trust_remote_code
        _note(pulling.prepare_copy(planned.preset, files, world, progress, code=code), world, how)
    if parts and pulling.is_model(parts[0].checkpoint):
        chosen = replace(options, model=planned.preset.name) if planned.proposed else options
        _note([f"ready: {pulling.use_of(planned.preset, chosen)}"], world, how)


def _accepted(plan: "Plan", world: World) -> bool:
    """Whether the person at the terminal takes the proposed file; in a pipe it is taken."""
    if not (world.stdin.isatty() and world.stderr.isatty()):
        return True
    return confirmed(
        world, f"pull {plan.model} ({byte_count(plan.download, decimals=0)})?", world.stderr
    )


def _other_names(plan: "Plan") -> str:
    """The other files of a GGUF repo, as MODEL arguments."""
    repo = plan.model.partition(":")[0]
    return ", ".join(f"{repo}:{choice.name}" for choice in plan.choices if not choice.chosen)


def _print_plan(plan: "Plan", world: World, how: _Pull, *, proposed: bool) -> None:
    from llmchat.hub import report
    from llmchat.ui.json_output import print_json

    if how.json:
        print_json(world, plan)
    elif how.dry_run:
        lines = [*report.choices(plan), *report.lines(plan)]
        print(fit_for(world.stdout, "\n".join(lines)), file=world.stdout)
    else:
        _note([*(report.choices(plan) if proposed else ()), *report.short(plan)], world, how)


def _note(lines: Iterable[str], world: World, how: _Pull) -> None:
    """Print lines on stderr, unless --quiet was given."""
    if not how.quiet:
        for line in lines:
            print(fit_for(world.stderr, line), file=world.stderr)


def offer(world: World, options: Options) -> bool:
    """Ask at the terminal whether to pull a model; returns whether it was pulled."""
    from llmchat.presets import preset_for

    if not (world.stdin.isatty() and world.stderr.isatty()):
        return False
    preset = preset_for(options, world.own_presets)
    archive = preset.base.archive
    known = [byte_count(archive.size, decimals=0)] if archive else []
    facts = ", ".join([*known, preset.licence])
    question = f"{preset.name} is not on this machine. Download it now ({facts})?"
    if not confirmed(world, question, world.stderr):
        return False
    _pull(world, options, _Pull())
    return True


@app.command("ls")
def list_models(
    ctx: typer.Context,
    elsewhere: Annotated[
        bool,
        typer.Option(
            "--elsewhere",
            help="The GGUF models of ollama, LM Studio and the Hub's cache, where they are.",
        ),
    ] = False,
    json: options.Json = False,
    quiet: options.NamesOnly = False,
) -> None:
    """List the models on this machine: presets, repos, and your own files."""
    if elsewhere:
        return _list_elsewhere(ctx.obj, json=json, quiet=quiet)
    from llmchat.history.export import when
    from llmchat.models import library
    from llmchat.presets import broken
    from llmchat.ui import tables
    from llmchat.ui.json_output import print_json

    world: World = ctx.obj
    models = library.list_models(world)
    if json:
        print_json(world, models)
    else:
        columns = ("name", "size", "prepared", "weights", "used", "licence")
        rows = [
            msgspec.structs.asdict(model)
            | {
                "prepared": byte_count(model.prepared, decimals=0) if model.prepared else "",
                "used": when(model.used) if model.used else "never used",
            }
            for model in models
        ]
        tables.rows(world, rows, columns, quiet=quiet)
    if not quiet:
        tables.notes(world, broken(world.own_presets))


def _list_elsewhere(world: World, *, json: bool, quiet: bool) -> None:
    """Print the models of other programs, and how each runs here."""
    from llmchat.models.elsewhere import list_elsewhere
    from llmchat.ui import tables

    models = list_elsewhere(world)
    columns = ("name", "size", "architecture", "quantisation", "runs", "note")
    tables.rows(world, models, columns, json=json, quiet=quiet)
    if not (models or quiet or json):
        print("no GGUF models of ollama, LM Studio or other Hub tools here", file=world.stderr)


@app.command()
def show(
    ctx: typer.Context,
    model: options.ModelArgument,
    json: options.Json = False,
) -> None:
    """Show what is known about a model: files, format, context window, licence, notes."""
    from llmchat.models.facts import model_facts
    from llmchat.models.opener import preset_of
    from llmchat.ui import tables
    from llmchat.ui.json_output import print_json

    world: World = ctx.obj
    known = model_facts(preset_of(world, model=model), world)
    if json:
        return print_json(world, known)
    tables.model_facts(world, known)


@app.command("rm")
def remove_model(
    ctx: typer.Context,
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Models to remove; files that another model needs are kept.",
            autocompletion=options.complete_model,
        ),
    ],
    yes: options.Yes = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be freed; remove nothing.")
    ] = False,
) -> None:
    """Remove models and interrupted downloads from this machine."""
    from llmchat.models.library import remove
    from llmchat.models.opener import preset_of

    world: World = ctx.obj
    for name in models:
        preset = preset_of(world, model=name)
        if dry_run:
            print(
                f"{preset.name}: {byte_count(remove(preset, world, dry_run=True), decimals=0)}"
                " would be freed",
                file=world.stderr,
            )
            continue
        if not yes and not (
            world.interactive and confirmed(world, f"remove the files of {preset.name}?")
        ):
            raise UsageError("nothing was removed", "-y removes without asking")
        print(
            f"{preset.name}: {byte_count(remove(preset, world), decimals=0)} freed",
            file=world.stderr,
        )


@app.command()
def verify(
    ctx: typer.Context,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...",
            help="By default all models on this machine.",
            autocompletion=options.complete_model,
        ),
    ] = None,
) -> None:
    """Compare every file of a model with its published checksum; `pull` repairs damaged files."""
    from llmchat.models.library import verify as read_again
    from llmchat.models.opener import preset_of

    world: World = ctx.obj
    read_again(
        world,
        [preset_of(world, model=name) for name in models or ()],
        lambda line: print(line, file=world.stdout),
    )
