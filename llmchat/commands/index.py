"""`llmchat index`: documents to search, by words and by meaning."""

from pathlib import Path
from typing import Annotated

import typer

from llmchat.commands import options
from llmchat.commands.confirm import confirmed
from llmchat.errors import UsageError
from llmchat.memory.places import existing_index, index_names, index_path
from llmchat.output.formatting import counted
from llmchat.output.terminal_text import fit_for
from llmchat.settings import World, resolve

app = typer.Typer(
    help="Index documents, and search them by words and by meaning.", no_args_is_help=True
)

_Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the index.")]
_EmbedderFlag = Annotated[
    str,
    typer.Option(
        "--embedder",
        metavar="MODEL",
        help="Embedder for a search by meaning; `none` for words alone.",
    ),
]


@app.command()
def add(
    ctx: typer.Context,
    name: _Name,
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PATH|URL]...", help="Files, folders and addresses of pages."),
    ] = None,
    sessions: Annotated[bool, typer.Option("--sessions", help="Add the saved chats.")] = False,
    embedder: _EmbedderFlag = "",
    gitignore: options.Gitignore = None,
    allow_private: options.AllowPrivate = None,
    quiet: options.Quiet = False,
) -> None:
    """Add documents to an index; the first ones make it."""
    from llmchat.commands import index_work
    from llmchat.memory.index import Index
    from llmchat.models.index_sources import CHATS

    world: World = ctx.obj
    if not sources and not sessions:
        raise UsageError("nothing to add", "name files, folders or addresses, or use --sessions")
    path = index_path(world, name)
    inputs = index_work.inputs(world, sources or [], sessions, allow_private)
    model = index_work.embedder_for(world, path, embedder, quiet=quiet)
    with Index.open(path, create=True) as index:
        index_work.choose(index, embedder)
        for address in (*inputs.addresses, *((CHATS,) if sessions else ())):
            index.remember(address)
        progress = index_work.progress(world, quiet)
        ignoring = resolve(world, {"gitignore": gitignore}).options.gitignore
        added = index.add(inputs.sources, model, progress, gitignore=ignoring)
        added.skipped += inputs.skipped
        index_work.report(world, name, index, added, quiet)
    if added.skipped and not added.read + added.unchanged:
        raise UsageError(f"nothing could be added to `{name}`")


@app.command()
def update(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Indexes; all by default.")
    ] = None,
    embedder: _EmbedderFlag = "",
    allow_private: options.AllowPrivate = None,
    quiet: options.Quiet = False,
) -> None:
    """Read what has changed, and drop what was deleted.

    With another --embedder, all vectors are computed again.
    """
    from llmchat.commands import index_work
    from llmchat.memory.index import Index

    world: World = ctx.obj
    for name in names or index_names(world):
        path = existing_index(world, name)
        model = index_work.embedder_for(world, path, embedder, quiet=quiet, replaces=True)
        with Index.open(path) as index:
            index_work.choose(index, embedder, model)
            added = index_work.updated(world, index, model, allow_private, quiet)
            index_work.report(world, name, index, added, quiet)


@app.command("list")
def list_indexes(
    ctx: typer.Context,
    json: options.Json = False,
    quiet: options.NamesOnly = False,
) -> None:
    """List the indexes."""
    from llmchat.commands import index_work
    from llmchat.ui import tables

    world: World = ctx.obj
    rows = [index_work.listed(world, name) for name in index_names(world)]
    columns = ("name", "documents", "passages", "embedder", "size", "updated")
    tables.rows(world, rows, columns, json=json, quiet=quiet)


@app.command()
def show(
    ctx: typer.Context,
    name: _Name,
    source: Annotated[
        str, typer.Argument(metavar="[SOURCE]", help="Show the passages of this document.")
    ] = "",
    json: options.Json = False,
) -> None:
    """Show the documents of an index, or the passages of one."""
    from llmchat.commands import index_work

    existing_index(ctx.obj, name)
    index_work.show_index(ctx.obj, name, source, json=json)


@app.command()
def search(
    ctx: typer.Context,
    name: _Name,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What to search for.")],
    limit: Annotated[int, typer.Option("-l", "--limit", min=1, help="Number of passages.")] = 10,
    mode: Annotated[
        str, typer.Option("--mode", metavar="MODE", help="hybrid, words or meaning.")
    ] = "hybrid",
    rerank: Annotated[
        str, typer.Option("--rerank", metavar="MODEL", help="Order the passages by a reranker.")
    ] = "",
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Find the passages that fit a question best."""
    from llmchat.commands import index_work
    from llmchat.commands.index_search import found, print_found
    from llmchat.commands.outputs import IndexHit
    from llmchat.memory.index import Index
    from llmchat.ui.json_output import print_json

    world: World = ctx.obj
    path = existing_index(world, name)
    chosen = index_work.checked_mode(mode)
    with Index.open(path) as index:
        hits = found(world, index, query, chosen, limit, rerank, quiet)
    if json:
        print_json(world, list(map(IndexHit.of, hits)))
    elif hits:
        print_found(world, hits)
    else:
        print(f"no passage in `{name}` fits", file=world.stderr)


@app.command()
def rm(
    ctx: typer.Context,
    name: _Name,
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SOURCE]...", help="Documents or folders; all by default."),
    ] = None,
    yes: options.Yes = False,
) -> None:
    """Remove documents from an index, or the whole index. The files themselves stay."""
    from llmchat.memory.index import Index
    from llmchat.memory.places import delete_index

    world: World = ctx.obj
    path = existing_index(world, name)
    if not sources:
        if not yes and not (world.interactive and confirmed(world, f"delete the index {name}?")):
            raise UsageError("nothing was deleted", "-y deletes without asking")
        delete_index(path)
        print(f"index {name} deleted", file=world.stderr)
        return
    with Index.open(path) as index:
        known = {*index.roots(), *(one.source for one in index.documents())}
        count = sum(index.remove(_stored_name(one, known)) for one in sources)
    line = f"{counted(count, 'document')} removed from {name}"
    print(fit_for(world.stderr, line), file=world.stderr)


def _stored_name(source: str, known: set[str]) -> str:
    """A source as the index calls it: files by their absolute paths."""
    return source if source in known else str(Path(source).expanduser().resolve())
