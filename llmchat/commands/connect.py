"""The command that configures another program for `llmchat serve`."""

from typing import TYPE_CHECKING, Annotated

import typer

from llmchat.commands import options
from llmchat.errors import UsageError
from llmchat.settings import World

if TYPE_CHECKING:
    from llmchat.commands.outputs import ClientSettings
    from llmchat.connect.prepare import Prepared

ADDRESS = "http://127.0.0.1:8000"


def _complete_client(incomplete: str) -> list[str]:
    from llmchat.connect import client_names

    return [name for name in client_names() if name.startswith(incomplete)]


def connect(
    ctx: typer.Context,
    client: Annotated[
        str | None,
        typer.Argument(
            metavar="[CLIENT]",
            help="The program; without it, all are listed.",
            autocompletion=_complete_client,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "-m",
            "--model",
            help="A model of the server; needed only if it serves several.",
            autocompletion=options.complete_model,
        ),
    ] = None,
    url: Annotated[str, typer.Option(help="Address of the server.")] = ADDRESS,
    write: Annotated[
        bool,
        typer.Option(
            "--write",
            help="Merge the settings into the client's files. An existing file is copied first.",
        ),
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Continue even if the model lacks tools or window."),
    ] = False,
    json: options.Json = False,
) -> None:
    """Print or write the settings of a client for `llmchat serve`: llm, aider, opencode, …

    It first checks the window and the tools of the model, and whether a server answers.
    """
    world: World = ctx.obj
    if client is None:
        return _list(world, json=json)
    from llmchat.connect import find_client
    from llmchat.connect.prepare import prepare
    from llmchat.ui.json_output import print_json

    key = world.env.get("LLMCHAT_API_KEY", "")
    prepared = prepare(world, find_client(client), model, url, key, force=force)
    if write:
        _write(world, prepared, secret=bool(key))
    elif json:
        print_json(world, _as_json(prepared))
    else:
        _print(world, prepared)


def _list(world: World, *, json: bool) -> None:
    from llmchat.commands.outputs import ListedClient
    from llmchat.connect import all_clients
    from llmchat.ui import tables

    rows = [
        ListedClient(
            one.name, one.title, one.protocol, one.window, one.tools, one.source, one.tested
        )
        for one in all_clients()
    ]
    tables.rows(world, rows, ("name", "title", "window"), json=json)


def _print(world: World, prepared: "Prepared") -> None:
    """The settings on stdout; where they belong, and what to know, on stderr."""
    from llmchat.output.terminal_text import fit_for

    for part in prepared.parts:
        if part.path:
            _note(world, f"for {part.path}:")
        print(fit_for(world.stdout, part.text.rstrip("\n")), file=world.stdout, flush=True)
    _print_notes(world, prepared)


def _write(world: World, prepared: "Prepared", *, secret: bool) -> None:
    from llmchat.connect.writing import write

    if not any(part.path for part in prepared.parts):
        name = prepared.client.name
        raise UsageError(
            f"{name} has no configuration file that --write could change",
            f"`llmchat connect {name}` prints the settings",
        )
    for change in write(prepared.parts, secret=secret):
        copy = f"; the previous file is {change.copy}" if change.copy else ""
        done = f"wrote {change.path}{copy}" if change.changed else f"{change.path} is up to date"
        _note(world, done)
    _print_notes(world, prepared)


def _print_notes(world: World, prepared: "Prepared") -> None:
    for text in prepared.notes:
        _note(world, f"note: {text}")
    if prepared.run:
        _note(world, f"then: {prepared.run}")


def _note(world: World, text: str) -> None:
    from llmchat.ui import printing

    printing.print_note(world, text, world.columns, world.stderr)


def _as_json(prepared: "Prepared") -> "ClientSettings":
    from llmchat.commands.outputs import ClientFile, ClientSettings

    files = [ClientFile(str(part.path or ""), part.file.kind, part.text) for part in prepared.parts]
    return ClientSettings(
        client=prepared.client.name,
        model=prepared.model.name,
        url=prepared.url,
        window=prepared.model.window,
        running=prepared.model.running,
        files=files,
        run=prepared.run,
        notes=prepared.notes,
    )
