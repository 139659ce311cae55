"""The command line: the Typer app, and the only error boundary, `main`.

The commands are in `commands`; they import what they need inside functions, so that
`llmchat --help` loads neither torch nor a terminal library.
"""

import errno
import traceback
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import typer
from msgspec.structs import replace
from typer.main import get_command

from llmchat.commands import (
    batch,
    bench,
    chat,
    config,
    connect,
    convert,
    data,
    deploy,
    doctor,
    evaluate,
    finetune,
    index,
    memory,
    models,
    plot,
    plugins,
    presets,
    prompt,
    roles,
    serve,
    sessions,
)
from llmchat.commands.aliases import resolve_aliases
from llmchat.commands.plugin_commands import WithPlugins
from llmchat.errors import LlmchatError, OutOfResources
from llmchat.plugins import configure as configure_plugins
from llmchat.plugins import fault_in
from llmchat.process import startup
from llmchat.process.quick_help import import_help
from llmchat.process.streams import checked_arguments
from llmchat.settings import World

app = typer.Typer(
    name="llmchat",
    cls=WithPlugins,
    help="Chat in the terminal with language models on your own machine.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)
app.add_typer(models.app)
app.add_typer(presets.app, name="presets")
app.command()(doctor.doctor)
app.command()(batch.batch)
app.add_typer(evaluate.app)
app.command()(bench.bench)
app.command()(plot.plot)
app.command()(convert.convert)
app.add_typer(finetune.app)
app.add_typer(sessions.app, name="sessions")
app.add_typer(roles.app, name="roles")
app.add_typer(index.app, name="index")
app.add_typer(memory.app, name="memory")
app.add_typer(data.app, name="data")
app.add_typer(deploy.app, name="deploy")
app.add_typer(serve.app)
app.command()(connect.connect)
app.add_typer(config.app, name="config")
app.command()(plugins.plugins)
app.command()(chat.chat)
app.command()(prompt.prompt)


def main(argv: list[str], world: World | None = None) -> int:
    """Run a command line and return its exit code. world: by default that of this process."""
    closed = None if world else startup.open_closed_streams()
    world = replace(world or World.real(), arguments=tuple(argv))
    startup.configure_libraries(world.env)
    configure_plugins(world.env)
    try:
        if closed:
            raise closed
        # What Typer itself prints, such as --help, goes to the world's streams as well.
        with redirect_stdout(world.stdout), redirect_stderr(world.stderr):
            return _run(world)
    except LlmchatError as error:
        return _report(world, error)
    except OSError as error:
        return _report(world, _from_system(error), error)
    except Exception as error:  # the last line of defence: a user gets a line, not a stack
        return _report(world, fault_in(error) or _bug(error), error)


def _run(world: World) -> int:
    command: Any = get_command(app)
    checked = checked_arguments(list(world.arguments))
    arguments = resolve_aliases(checked, command.words(checked))
    if arguments == ["--version"]:
        return _print_version(world)
    if not {"-h", "--help"}.isdisjoint(arguments):
        import_help()
    try:
        command(args=arguments, prog_name="llmchat", obj=world)
    except SystemExit as stop:
        return _exit_code(world, stop.code)
    return 0


def _exit_code(world: World, code: object) -> int:
    """As Python ends a process: what is not a number is printed, and the code is 1."""
    if code is None or isinstance(code, int):
        return code or 0
    print(code, file=world.stderr)
    return 1


def _print_version(world: World) -> int:
    from llmchat import __version__

    print(f"llmchat {__version__}", file=world.stdout)
    return 0


def _bug(error: Exception) -> LlmchatError:
    return LlmchatError(
        f"unexpected {type(error).__name__}: {error}",
        "this is a bug in llmchat; LLMCHAT_TRACEBACK=1 shows where",
    )


def _from_system(error: OSError) -> LlmchatError:
    if error.errno != errno.ENOSPC:
        return fault_in(error) or LlmchatError(str(error))
    return OutOfResources("the disk is full", "free some space; nothing that was saved is lost")


def _report(world: World, error: LlmchatError, cause: Exception | None = None) -> int:
    from llmchat.ui import printing

    if world.env.get("LLMCHAT_TRACEBACK"):
        traceback.print_exception(cause or error, file=world.stderr)
    printing.print_error(world, error, world.columns, world.stderr)
    return error.exit_code
