"""The command line: flags become one call into a room. `main` is the only place where an error becomes a line and an exit code.

Imports stand inside the functions, so that `llmchat --help` loads neither torch nor a terminal library.
"""

import errno
import os
import sys
import traceback
import warnings
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmchat import flags
from llmchat.errors import LlmchatError, OutOfResources, UsageError
from llmchat.settings import Options, Settings, World, resolve

if TYPE_CHECKING:
    from llmchat.chat import Chat
    from llmchat.engines import Engine
    from llmchat.history import History
    from llmchat.presets import Preset

app = typer.Typer(
    name="llmchat",
    help="Chat in the terminal with language models on your own machine.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)
sessions = typer.Typer(help="Saved chats.", no_args_is_help=True)
config = typer.Typer(help="Settings and where they come from.", no_args_is_help=True)
app.add_typer(sessions, name="sessions")
app.add_typer(config, name="config")

_OPTIONS = Options.__struct_fields__


@app.command()
def chat(
    prompt: Annotated[str | None, typer.Argument(help="A question for one answer; `-` or nothing reads stdin when it is piped.")] = None,
    model: flags.Model = None,
    base: flags.Base = None,
    adapter: flags.Adapter = None,
    format: flags.Format = None,
    weights: flags.Weights = None,
    engine: flags.Engine = None,
    device: flags.Device = None,
    revision: flags.Revision = None,
    trust_remote_code: flags.TrustRemoteCode = None,
    system: flags.System = None,
    file: Annotated[
        list[str] | None, typer.Option("-f", "--file", help="Material for the question; may be given again.", rich_help_panel=flags.CONTEXT)
    ] = None,
    continue_: Annotated[
        bool, typer.Option("-c", "--continue", help="Go on with the last session.", rich_help_panel=flags.CONTEXT)
    ] = False,
    session: Annotated[str | None, typer.Option(help="Go on with this session.", rich_help_panel=flags.CONTEXT)] = None,
    no_log: Annotated[
        bool | None,
        typer.Option("-n", "--no-log", help="Leave no trace in the history.", show_default=False, rich_help_panel=flags.CONTEXT),
    ] = None,
    context: flags.Context = None,
    policy: flags.Policy = None,
    turns: flags.Turns = None,
    max_tokens: flags.MaxTokens = None,
    temperature: flags.Temperature = None,
    top_p: flags.TopP = None,
    top_k: flags.TopK = None,
    min_p: flags.MinP = None,
    repetition_penalty: flags.RepetitionPenalty = None,
    seed: flags.Seed = None,
    json: flags.Json = False,
    no_stream: Annotated[
        bool, typer.Option("--no-stream", help="Print the answer when it is whole.", rich_help_panel=flags.OUTPUT)
    ] = False,
    plain: Annotated[
        bool | None, typer.Option("--plain", help="No Markdown, no colour.", show_default=False, rich_help_panel=flags.OUTPUT)
    ] = None,
    quiet: flags.Quiet = False,
) -> None:
    """Chat with a model: a REPL on a terminal, one answer for a PROMPT or piped text."""
    given = {name: value for name, value in locals().items() if name in _OPTIONS}
    from llmchat import oneshot

    world = World.real()
    settings = resolve(world, given)
    question = oneshot.question(world, prompt, file or ())
    with _history(world, settings) as history:
        earlier = history.find(session) if session else history.latest() if continue_ else None
        if continue_ and not earlier:
            raise UsageError("there is no session to go on with")
        if earlier and settings.origins["model"] == "default":
            settings = resolve(world, given | {"model": earlier.model})
        talk = _open_chat(world, settings, history, earlier.id if earlier else None, quiet or json)
        if question:
            raise typer.Exit(oneshot.run(talk, world, question, json=json, stream=not no_stream, plain=settings.options.plain, quiet=quiet))
        from llmchat.ui.repl import run

        raise typer.Exit(
            run(
                talk,
                world,
                plain=settings.options.plain,
                open_preset=lambda name: _open_model(world, resolve(world, given | {"model": name}), quiet=False),
            )
        )


@app.command()
def pull(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Presets, Hub repos or .gguf files.")],
    base: flags.Base = None,
    adapter: flags.Adapter = None,
    revision: flags.Revision = None,
    offline: flags.Offline = None,
    quiet: flags.Quiet = False,
) -> None:
    """Download, check and prepare models; goes on where it stopped."""
    from llmchat.hub import Bar, Silent
    from llmchat.models import fetch
    from llmchat.ui import tables

    world = World.real()
    for name in models:
        settings = resolve(world, {"model": name, "base": base, "adapter": adapter, "revision": revision, "offline": offline})
        world = world.cut_off() if settings.options.offline else world
        preset = _choose(world, settings)
        for pulled in fetch(preset, world, Silent() if quiet else Bar(world.stderr)):
            if not quiet:
                _say(
                    world,
                    f"{pulled.checkpoint.source}: {'; '.join(pulled.notes) or 'already here'} ({tables.size(pulled.checkpoint.size)})",
                )


@app.command("ls")
def list_models(json: flags.Json = False, quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Names only.")] = False) -> None:
    """The models that are on this machine."""
    from llmchat.models import pulled_presets
    from llmchat.ui import tables

    world = World.real()
    rows = [
        {"name": preset.name, "size": sum(part.size for part in parts), "weights": preset.weights, "licence": preset.licence}
        for preset, parts in pulled_presets(world)
    ]
    tables.rows(world, rows, ("name", "size", "weights", "licence"), json=json, quiet=quiet)


@app.command()
def show(model: Annotated[str, typer.Argument(help="A preset, a Hub repo, a folder or a .gguf file.")], json: flags.Json = False) -> None:
    """What is known of a model: files, format, context, licence, notes."""
    from llmchat.models import facts
    from llmchat.ui import tables

    world = World.real()
    tables.facts(world, facts(_choose(world, resolve(world, {"model": model})), world), json=json)


@app.command("rm")
def remove_model(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Models to remove; files that another model needs stay.")],
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
) -> None:
    """Remove downloaded models from this machine."""
    from llmchat.models import discard
    from llmchat.ui import tables

    world = World.real()
    for name in models:
        preset = _choose(world, resolve(world, {"model": name}))
        if not yes and not (world.interactive and typer.confirm(f"remove the files of {preset.name}?")):
            raise UsageError("nothing was removed", "-y removes without asking")
        _say(world, f"{preset.name}: {tables.size(discard(preset, world))} freed")


@app.command()
def verify(
    models: Annotated[list[str] | None, typer.Argument(metavar="[MODEL]...", help="Without a name: all that are here.")] = None,
) -> None:
    """Read every file of a model again and compare it with its checksum."""
    from llmchat.hub import verify as verify_source
    from llmchat.models import pulled_presets, sources

    world = World.real()
    presets = (
        [_choose(world, resolve(world, {"model": name})) for name in models] if models else [preset for preset, _ in pulled_presets(world)]
    )
    for preset in presets:
        for source in sources(preset):
            checkpoint = verify_source(source, world)
            typer.echo(f"{preset.name}: {checkpoint.source} is as it was downloaded")


@app.command()
def presets(
    formats: Annotated[bool, typer.Option("--formats", help="The prompt formats instead.")] = False,
    json: flags.Json = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Names only.")] = False,
) -> None:
    """The models and prompt formats llmchat knows by name."""
    from llmchat import presets as room
    from llmchat.ui import tables

    world = World.real()
    if formats:
        rows: list[dict[str, Any]] = [{"name": name, "source": room.get_format(name).source} for name in room.formats()]
        return tables.rows(world, rows, ("name", "source"), json=json, quiet=quiet)
    found = room.names(world.own_presets).values()
    rows = [
        {
            "name": preset.name,
            "title": preset.title,
            "parameters": preset.parameters,
            "format": preset.format.name,
            "licence": preset.licence,
        }
        for preset in found
    ]
    tables.rows(world, rows, ("name", "title", "format", "licence"), json=json, quiet=quiet)


@app.command()
def prompt(
    file: Annotated[
        str, typer.Argument(metavar="[FILE|-]", help="A JSON list of messages: role, content, and input where there is material.")
    ] = "-",
    model: flags.Model = None,
    base: flags.Base = None,
    adapter: flags.Adapter = None,
    format: flags.Format = None,
    revision: flags.Revision = None,
    system: flags.System = None,
    context: flags.Context = None,
    policy: flags.Policy = None,
    turns: flags.Turns = None,
    max_tokens: flags.MaxTokens = None,
    ids: Annotated[bool, typer.Option("--ids", help="Token ids instead of text.", rich_help_panel=flags.OUTPUT)] = False,
) -> None:
    """Print exactly what a model would be given; what was dropped is said on stderr."""
    given = {name: value for name, value in locals().items() if name in _OPTIONS}
    from llmchat import inspect_prompt

    world = World.real()
    settings = resolve(world, given)
    inspect_prompt.run(world, _choose(world, settings), file, ids=ids, trim=bool(settings.options.context))


@sessions.command("list")
def list_sessions(
    limit: Annotated[int, typer.Option("-l", "--limit", help="How many.")] = 20,
    json: flags.Json = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Ids only.")] = False,
) -> None:
    """The newest sessions first."""
    import msgspec

    from llmchat.ui import tables

    world = World.real()
    with _saved_history(world) as history:
        rows = [msgspec.to_builtins(session) for session in history.sessions(limit)]
    tables.rows(world, rows, ("id", "title", "model", "turns", "updated"), json=json, quiet=quiet)


@sessions.command("show")
def show_session(session: Annotated[str, typer.Argument(help="An id, or its first letters.")], json: flags.Json = False) -> None:
    """A whole session, as text or JSON."""
    import msgspec

    world = World.real()
    with _saved_history(world) as history:
        found = history.find(session)
        records = history.messages(found.id)
    if json:
        typer.echo(msgspec.json.encode({"session": found, "messages": records}).decode())
        return
    typer.echo(f"{found.id}  {found.model}  {found.title}")
    for record in records:
        typer.echo(f"\n{record.role}{' (cancelled)' if record.state == 'cancelled' else ''}:")
        typer.echo(f"{record.input}\n\n{record.text}" if record.input else record.text)


@config.command("show")
def show_config(
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value came from.")] = False, json: flags.Json = False
) -> None:
    """Every option and its value."""
    from llmchat.ui import tables

    world = World.real()
    settings = resolve(world, {})
    values = {name: getattr(settings.options, name) for name in _OPTIONS}
    if origin:
        rows = [{"name": name, "value": value, "origin": settings.origins[name]} for name, value in values.items()]
        return tables.rows(world, rows, ("name", "value", "origin"), json=json)
    tables.facts(world, values, json=json)


@config.command("path")
def config_path() -> None:
    """Where settings, presets and history are kept."""
    world = World.real()
    for name, path in (
        ("config", world.config / "config.toml"),
        ("presets", world.own_presets),
        ("history", world.history_file),
        ("cache", world.cache),
    ):
        typer.echo(f"{name:8} {path}")


def main(argv: list[str]) -> int:
    """Run a command line and return its exit code."""
    # No telemetry, and no progress bars and warnings of libraries between ours.
    os.environ.update(HF_HUB_DISABLE_TELEMETRY="1", TQDM_DISABLE="1")
    if not os.environ.get("LLMCHAT_TRACEBACK"):
        warnings.simplefilter("ignore")
    if argv == ["--version"]:
        from llmchat import __version__

        print(f"llmchat {__version__}")  # noqa: T201
        return 0
    if not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help", "--install-completion", "--show-completion")):
        argv = ["chat", *argv]
    try:
        app(args=argv, prog_name="llmchat")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    except LlmchatError as error:
        return _report(error)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            return _report(LlmchatError(str(error)), error)
        return _report(OutOfResources("the disk is full", "free some space; nothing that was saved is lost"), error)
    except Exception as error:  # the last line of defence: a user gets a line, not a stack
        return _report(
            LlmchatError(f"unexpected {type(error).__name__}: {error}", "this is a mistake in llmchat; LLMCHAT_TRACEBACK=1 shows where"),
            error,
        )
    return 0


def _report(error: LlmchatError, cause: Exception | None = None) -> int:
    if os.environ.get("LLMCHAT_TRACEBACK"):
        traceback.print_exception(cause or error)
    print(f"error: {error.message}", file=sys.stderr)  # noqa: T201
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)  # noqa: T201
    return error.exit_code


def _choose(world: World, settings: Settings) -> "Preset":
    from llmchat.presets import choose

    return choose(settings.options, world.own_presets)


def _open_chat(world: World, settings: Settings, history: "History", session: str | None, quiet: bool) -> "Chat":
    from llmchat.chat import Chat

    preset, engine = _open_model(world, settings, quiet)
    talk = Chat(preset, engine, history, session=session)
    if settings.options.system and talk.conversation.system != settings.options.system:
        talk.instruct(settings.options.system)
    return talk


def _open_model(world: World, settings: Settings, quiet: bool) -> "tuple[Preset, Engine]":
    """A model in memory, with its preset; says on a terminal what takes the time."""
    from llmchat.models import load, locate

    model = locate(_choose(world, settings), world)
    waiting = not quiet and world.stderr.isatty()
    if waiting:
        print(f"loading {model.preset.name} …", end="", file=world.stderr, flush=True)
    try:
        return model.preset, load(model, settings.options)
    finally:
        if waiting:
            print("\r\033[K" if world.env.get("TERM") != "dumb" else "", end="", file=world.stderr, flush=True)


def _history(world: World, settings: Settings) -> "History":
    from llmchat.history import History

    return History(None if settings.options.no_log else world.history_file)


def _saved_history(world: World) -> "History":
    """The history for commands that only look at it: where there is none yet, an empty one that leaves no file."""
    from llmchat.history import History

    return History(world.history_file if world.history_file.exists() else None)


def _say(world: World, line: str) -> None:
    print(line, file=world.stderr)
