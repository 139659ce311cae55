"""The command line: flags become one call into a room. `main` is the only place where an error becomes a line and an exit code.

Imports stand inside the functions, so that `llmchat --help` loads neither torch nor a terminal library.
"""

import errno
import os
import shutil
import sys
import traceback
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.main import get_command

from llmchat.commands import (
    bench,
    data,
    deploy,
    evaluate,
    finetune,
    models,
    options,
    presets,
    serve,
    sessions,
)
from llmchat.commands.aliases import meant
from llmchat.errors import LlmchatError, ModelNotFound, NotPulled, OutOfResources, UsageError
from llmchat.process import streams
from llmchat.process.signals import orderly_end
from llmchat.settings import Options, World, resolve

if TYPE_CHECKING:
    from llmchat.chat import Chat
    from llmchat.models.opener import Opener
    from llmchat.models.warm import Opened

app = typer.Typer(
    name="llmchat",
    help="Chat in the terminal with language models on your own machine.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)
config = typer.Typer(help="Show and change settings.", no_args_is_help=True)
app.add_typer(models.app)
app.add_typer(presets.app, name="presets")
app.command()(presets.doctor)
app.add_typer(evaluate.app)
app.command()(bench.bench)
app.add_typer(finetune.app)
app.add_typer(sessions.app, name="sessions")
app.add_typer(data.app, name="data")
app.add_typer(deploy.app, name="deploy")
app.add_typer(serve.app)
app.add_typer(config, name="config")

_OPTIONS = Options.__struct_fields__


@app.command()
@options.with_sampling
def chat(
    prompt: Annotated[
        str | None,
        typer.Argument(help="A question to answer once; `-` or no PROMPT reads piped stdin."),
    ] = None,
    model: options.Model = None,
    base: options.Base = None,
    adapter: options.Adapter = None,
    format: options.Format = None,
    weights: options.Weights = None,
    engine: options.Engine = None,
    url: options.Url = None,
    device: options.Device = None,
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = None,
    system: options.System = None,
    file: Annotated[
        list[str] | None,
        typer.Option(
            "-f",
            "--file",
            help="Attach a text file to the question; may be repeated.",
            rich_help_panel=options.CONTEXT,
        ),
    ] = None,
    continue_: Annotated[
        bool,
        typer.Option(
            "-c", "--continue", help="Continue the last session.", rich_help_panel=options.CONTEXT
        ),
    ] = False,
    session: Annotated[
        str | None, typer.Option(help="Continue this session.", rich_help_panel=options.CONTEXT)
    ] = None,
    no_log: Annotated[
        bool | None,
        typer.Option(
            "-n",
            "--no-log",
            help="Do not save this chat.",
            show_default=False,
            rich_help_panel=options.CONTEXT,
        ),
    ] = None,
    context: options.Context = None,
    policy: options.Policy = None,
    turns: options.Turns = None,
    max_tokens: options.MaxTokens = None,
    offline: options.Offline = None,
    json: options.Json = False,
    no_stream: Annotated[
        bool,
        typer.Option(
            "--no-stream",
            help="Print the answer when it is complete.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False,
    plain: Annotated[
        bool | None,
        typer.Option(
            "--plain",
            help="No Markdown, no colour.",
            show_default=False,
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    extract: Annotated[
        bool,
        typer.Option(
            "-x",
            "--extract",
            help="Print the first code block of the answer alone.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False,
    vi: Annotated[
        bool | None,
        typer.Option(
            "--vi/--no-vi",
            help="vi keys in the input line.",
            show_default=False,
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    no_server: Annotated[
        bool,
        typer.Option(
            "--no-server",
            help="Load the model here even if `serve --background` has it loaded.",
            rich_help_panel=options.MODEL,
        ),
    ] = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    **sampling: Any,
) -> None:
    """Chat with a model: a REPL on a terminal, one answer for a PROMPT or piped text."""
    given = {name: value for name, value in locals().items() if name in _OPTIONS} | sampling
    from llmchat.chat import Chat
    from llmchat.commands import one_shot
    from llmchat.models.warm import not_here, open_history, open_warm, opening_of_session

    world = World.real()
    settings = resolve(world, given)
    world = world.cut_off() if settings.options.offline else world
    question = one_shot.question(world, prompt, file or ())
    with orderly_end(), open_history(world, settings) as history:
        earlier = history.find(session) if session else history.latest() if continue_ else None
        if continue_ and not earlier:
            raise UsageError("there is no session to continue")
        opens = dict(earlier.opens) if earlier else {}
        if earlier and not opens and settings.origins["model"] == "default":
            known = opening_of_session(earlier, world)
            given |= known or {}
            if known is None and not quiet:
                print(f"note: {not_here(earlier, settings.options.model)}", file=world.stderr)
        opened = open_warm(world, given, opens) if question and not no_server else None
        if opened is None:
            from llmchat.models.opener import Opener

            opener = Opener(world, given, earlier.id if earlier else None, opens)
            try:
                opened = _open(
                    opener, world, given, later=question is None, waiting=not (quiet or json)
                )
            except ModelNotFound as error:
                if not opens:
                    raise
                raise ModelNotFound(
                    error.message,
                    error.hint or "`-m MODEL` continues the session with another model",
                ) from error
        talk = Chat(
            opened.preset,
            opened.engine,
            history,
            session=earlier.id if earlier else None,
            made_by=opened.made_by,
            opens=opened.opens,
        )
        if earlier:
            kept = earlier.settings if earlier.opens == talk.opens or not given.get("model") else {}
            talk.take_settings(
                {name: value for name, value in kept.items() if given.get(name) is None}
            )
        if settings.options.system and talk.conversation.system != settings.options.system:
            talk.instruct(settings.options.system)
        if extract and not question:
            raise UsageError(
                "--extract takes a PROMPT or piped text",
                "in a chat, /copy and /save code take a code block by its number",
            )
        if question:
            try:
                code = one_shot.run(
                    talk,
                    world,
                    question,
                    json=json,
                    stream=not no_stream,
                    plain=settings.options.plain,
                    quiet=quiet,
                    extract=extract,
                )
            except one_shot.NoCode:
                _keep(talk, world)
                raise
            _keep(talk, world)
            if verbose:
                from llmchat.ui.status import statistics

                print("\n".join(statistics(talk)), file=world.stderr)
            raise typer.Exit(code)
        from llmchat.ui.repl import run

        code = run(talk, world, opener, plain=settings.options.plain, vi=settings.options.vi)
        _keep(talk, world)
        raise typer.Exit(code)


def _open(
    opener: "Opener", world: World, given: Mapping[str, Any], *, later: bool, waiting: bool
) -> "Opened":
    """Open the model; where it is not pulled, offer to pull it first."""
    while True:
        try:
            return opener.open_later() if later else opener.open_when_asked(waiting=waiting)
        except NotPulled:
            if not models.offer(world, resolve(world, given).options):
                raise


def _keep(talk: "Chat", world: World) -> None:
    """Leave to `--continue` what the model has read, unless the chat is to leave no trace."""
    if talk.history.path is not None and not hasattr(talk.engine, "served"):
        from llmchat.models import saved_kv

        saved_kv.keep(talk.engine, talk.session, talk.made_by, world)


@app.command()
def prompt(
    file: Annotated[
        str,
        typer.Argument(
            metavar="[FILE|-]",
            help="A JSON list of messages: role, content, and input where there is material.",
        ),
    ] = "-",
    model: options.Model = None,
    base: options.Base = None,
    adapter: options.Adapter = None,
    format: options.Format = None,
    revision: options.Revision = None,
    system: options.System = None,
    context: options.Context = None,
    policy: options.Policy = None,
    turns: options.Turns = None,
    max_tokens: options.MaxTokens = None,
    ids: Annotated[
        bool,
        typer.Option("--ids", help="Token ids instead of text.", rich_help_panel=options.OUTPUT),
    ] = False,
) -> None:
    """Print exactly what a model would be given; what was dropped is said on stderr."""
    given = {name: value for name, value in locals().items() if name in _OPTIONS}
    from llmchat.commands import prompt
    from llmchat.presets import choose

    world = World.real()
    settings = resolve(world, given)
    prompt.run(
        world,
        choose(settings.options, world.own_presets),
        file,
        ids=ids,
        trim=bool(settings.options.context),
    )


@config.command("show")
def show_config(
    origin: Annotated[
        bool, typer.Option("--origin", help="Show where each value came from.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Every option and its value."""
    from llmchat.ui import tables

    world = World.real()
    settings = resolve(world, {})
    values = {name: getattr(settings.options, name) for name in _OPTIONS}
    if origin:
        rows = [
            {"name": name, "value": value, "origin": settings.origins[name]}
            for name, value in values.items()
        ]
        return tables.rows(world, rows, ("name", "value", "origin"), json=json)
    tables.facts(world, values, json=json)


def _complete_option(incomplete: str) -> list[str]:
    return [name for name in _OPTIONS if name.startswith(incomplete)]


_Key = Annotated[
    str,
    typer.Argument(
        metavar="KEY",
        help="An option, as `config show` lists them.",
        autocompletion=_complete_option,
    ),
]


@config.command("set", context_settings={"ignore_unknown_options": True})
def set_config(
    key: _Key, value: Annotated[str, typer.Argument(metavar="VALUE", help="Its value.")]
) -> None:
    """Set an option in config.toml; the rest of the file stays as it is."""
    from llmchat.settings import config_file

    world = World.real()
    name, checked = config_file.set_key(world, key, value)
    print(f"{name} = {checked} in {world.config / 'config.toml'}", file=world.stderr)


@config.command("unset")
def unset_config(key: _Key) -> None:
    """Remove an option from config.toml."""
    from llmchat.settings import config_file

    world = World.real()
    found = config_file.unset_key(world, key)
    path = world.config / "config.toml"
    print(
        f"{key} removed from {path}" if found else f"{key} is not set in {path}", file=world.stderr
    )


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
    # OpenMP's threads wait for each other in a loop. On a machine where another program works too they would wait for most of the time:
    # measured, one answer took half a minute instead of three seconds (docs/log.md). 5,000 rounds cost little where it is alone.
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    if not os.environ.get("LLMCHAT_TRACEBACK"):
        warnings.simplefilter("ignore")
    try:
        streams.open_closed()
        command: Any = get_command(app)
        argv = meant(streams.checked_arguments(argv), command.commands)
        if argv == ["--version"]:
            return _print_version()
        command(args=argv, prog_name="llmchat")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    except LlmchatError as error:
        return _report(error)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            return _report(LlmchatError(str(error)), error)
        return _report(
            OutOfResources("the disk is full", "free some space; nothing that was saved is lost"),
            error,
        )
    except Exception as error:  # the last line of defence: a user gets a line, not a stack
        return _report(
            LlmchatError(
                f"unexpected {type(error).__name__}: {error}",
                "this is a bug in llmchat; LLMCHAT_TRACEBACK=1 shows where",
            ),
            error,
        )
    return 0


def _print_version() -> int:
    from llmchat import __version__

    print(f"llmchat {__version__}")  # noqa: T201
    return 0


def _report(error: LlmchatError, cause: Exception | None = None) -> int:
    from llmchat.ui import notes

    if os.environ.get("LLMCHAT_TRACEBACK"):
        traceback.print_exception(cause or error)
    notes.tell(World.real(), error, shutil.get_terminal_size().columns, sys.stderr)
    return error.exit_code
