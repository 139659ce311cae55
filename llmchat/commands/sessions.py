"""The commands for saved chats."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from llmchat.commands import options
from llmchat.commands.confirm import confirmed
from llmchat.errors import UsageError
from llmchat.models import saved_kv
from llmchat.output.formatting import counted
from llmchat.output.terminal_text import fit_for
from llmchat.settings import World
from llmchat.settings.types import Weights

if TYPE_CHECKING:
    from llmchat.history import History, Hit, Session

app = typer.Typer(help="List, search, export, import and replay saved chats.", no_args_is_help=True)

_UNITS = {"h": 3600, "d": 86400, "w": 7 * 86400}
_Id = Annotated[
    str, typer.Argument(metavar="SESSION", help="An id, its first letters, or the title.")
]
_Force = Annotated[bool, typer.Option("--force", help="Replace an existing file.")]
_Limit = Annotated[int, typer.Option("-l", "--limit", help="Number of rows.")]


@app.command("list")
def list_sessions(
    ctx: typer.Context,
    limit: _Limit = 20,
    tag: Annotated[str, typer.Option("--tag", help="Only sessions with this tag.")] = "",
    json: options.Json = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Ids only.")] = False,
) -> None:
    """List the sessions, last used first."""
    from llmchat.models.sessions import saved_history
    from llmchat.ui import tables

    world: World = ctx.obj
    with saved_history(world) as history:
        rows = history.sessions(limit, tag)
    tables.rows(
        world,
        rows,
        ("id", "title", "model", "turns", "tokens", "updated", "tags"),
        json=json,
        quiet=quiet,
    )


@app.command()
def search(
    ctx: typer.Context,
    text: Annotated[str, typer.Argument(help="Text to search for, ignoring case.")],
    meaning: Annotated[
        bool, typer.Option("--meaning", help="Find chats by what was meant, best first.")
    ] = False,
    limit: _Limit = 20,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Search the messages of every branch, newest first.

    --meaning brings an index of past chats up to date and searches it with an embedder.
    """
    from llmchat.models.sessions import saved_history
    from llmchat.ui import tables

    world: World = ctx.obj
    with saved_history(world) as history:
        find = _found_by_meaning if meaning else _found_by_text
        rows = find(world, history, text, limit, quiet=quiet)
    tables.rows(world, rows, ("session", "title", "role", "snippet"), json=json)


def _found_by_text(
    world: World, history: "History", text: str, limit: int, *, quiet: bool
) -> "list[Hit]":
    return history.search(text, limit)


def _found_by_meaning(
    world: World, history: "History", text: str, limit: int, *, quiet: bool
) -> "list[Hit]":
    from llmchat.models.past_chats import PastChats
    from llmchat.output.progress import ByteProgress, NoProgress

    def note(line: str) -> None:
        if not quiet:
            print(f"note: {line}", file=world.stderr)

    progress = NoProgress() if quiet else ByteProgress(world)
    return PastChats(world, note).chats(history, text, limit, progress)


@app.command("show")
def show_session(
    ctx: typer.Context,
    session: _Id,
    tree: Annotated[
        bool, typer.Option("--tree", help="Show every branch, one line a message.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Show a session."""
    from llmchat.history import SessionMessages
    from llmchat.history.export import to_markdown
    from llmchat.models.sessions import saved_history
    from llmchat.ui.branches import branches
    from llmchat.ui.json_output import print_json

    world: World = ctx.obj
    with saved_history(world) as history:
        found = history.find(session)
        records = history.messages(found.id)
        everything = history.tree(found.id) if tree else records
    if json:
        print_json(world, SessionMessages(found, everything))
    elif tree:
        lines = "\n".join(branches(everything, records[-1].id if records else None))
        print(fit_for(world.stdout, lines), file=world.stdout)
    else:
        print(fit_for(world.stdout, to_markdown(found, records)), end="", file=world.stdout)


@app.command()
def rename(
    ctx: typer.Context, session: _Id, title: Annotated[str, typer.Argument(help="The new title.")]
) -> None:
    """Change the title of a session."""
    from llmchat.models.sessions import saved_history

    if not title.strip():
        raise UsageError("the title is empty")
    with saved_history(ctx.obj) as history:
        history.rename(history.find(session).id, title)


@app.command()
def tag(
    ctx: typer.Context,
    session: _Id,
    tags: Annotated[
        list[str],
        typer.Argument(metavar="TAG...", help="Tags to add; -TAG removes a tag."),
    ],
) -> None:
    """Add or remove tags of a session: `tag SESSION work -- -draft`."""
    from llmchat.models.sessions import saved_history

    with saved_history(ctx.obj) as history:
        found = history.find(session)
        away = {name[1:] for name in tags if name.startswith("-")}
        history.tag(
            found.id,
            [
                name
                for name in (*found.tags, *(name for name in tags if name[0] != "-"))
                if name not in away
            ],
        )


@app.command()
def delete(
    ctx: typer.Context,
    sessions: Annotated[list[str], typer.Argument(metavar="SESSION...", help="Ids or titles.")],
    yes: options.Yes = False,
) -> None:
    """Delete sessions, and the messages that no other session shares."""
    from llmchat.models.sessions import saved_history

    world: World = ctx.obj
    with saved_history(world) as history:
        found = [history.find(session) for session in sessions]
        _confirm(world, yes, f"delete {', '.join(f'`{one.title}`' for one in found)}?")
        count = history.delete(*(one.id for one in found))
        _forget(world, found)
        history.shrink()
    print(
        f"{counted(len(found), 'session')}, {counted(count, 'message')} deleted", file=world.stderr
    )


@app.command()
def purge(
    ctx: typer.Context,
    older_than: Annotated[
        str, typer.Option("--older-than", help="Time since the last use: 30d, 12h, 4w.")
    ],
    yes: options.Yes = False,
) -> None:
    """Delete every session that was not used for some time."""
    from llmchat.models.sessions import saved_history

    world: World = ctx.obj
    match = re.fullmatch(r"(\d+)([hdw])", older_than)
    if not match:
        raise UsageError(f"invalid age `{older_than}`", "use a number and h, d or w: 30d")
    with saved_history(world) as history:
        found = history.unused_since(world.now() - int(match[1]) * _UNITS[match[2]])
        if found:
            _confirm(world, yes, f"delete {counted(len(found), 'session')}?")
        count = history.delete(*(one.id for one in found))
        _forget(world, found)
        if found:
            history.shrink()
    print(
        f"{counted(len(found), 'session')}, {counted(count, 'message')} deleted", file=world.stderr
    )


@app.command()
def backup(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(help="File of the copy.")],
    force: _Force = False,
) -> None:
    """Copy the whole history to one file, safely while chats are running."""
    from llmchat.models.sessions import saved_history

    world: World = ctx.obj
    path = _free(file, force)
    path.unlink(missing_ok=True)
    with saved_history(world) as history:
        history.backup(path)
    print(f"saved to {path}", file=world.stderr)


@app.command("path")
def history_path(ctx: typer.Context) -> None:
    """Print the path of the history file."""
    print(ctx.obj.history_file, file=ctx.obj.stdout)


@app.command("export")
def export_sessions(
    ctx: typer.Context,
    sessions: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SESSION]...", help="Ids or titles; by default all."),
    ] = None,
    format: Annotated[
        str,
        typer.Option(
            "--format", "-f", help="md, json, html, jsonl for training, or that of a plugin."
        ),
    ] = "md",
    output: Annotated[str, typer.Option("--output", "-o", help="A file instead of stdout.")] = "",
    force: _Force = False,
) -> None:
    """Export sessions as Markdown, JSON (OpenAI messages), HTML, or training JSONL."""
    from llmchat.history.export import exporter, join_exports
    from llmchat.models.sessions import saved_history

    world: World = ctx.obj
    export = exporter(format)
    path = _free(output, force) if output else None
    with saved_history(world) as history:
        found = [history.find(session) for session in sessions] if sessions else history.sessions()
        text = join_exports(format, [export(one, history.messages(one.id)) for one in found])
    if path:
        path.write_text(text, "utf-8")
        print(f"{counted(len(found), 'session')} saved to {path}", file=world.stderr)
    else:
        print(fit_for(world.stdout, text), end="", file=world.stdout)


@app.command("import")
def import_sessions(
    ctx: typer.Context,
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="JSON or JSON lines; - for stdin.")
    ],
) -> None:
    """Import chats: ChatGPT's export, OpenAI messages, ShareGPT, Alpaca, or llmchat's JSON.

    A chat that is here already is skipped.
    """
    from llmchat.history import History
    from llmchat.history.imports import read

    world: World = ctx.obj
    chats = [chat for name in files for chat in read(world.read_text(name), name)]
    with History(world.history_file, world.now) as history:
        taken = [session for chat in chats if (session := history.import_chat(chat))]
    known = len(chats) - len(taken)
    already = f", {known:,} already here" if known else ""
    print(f"{counted(len(taken), 'chat')} imported{already}", file=world.stderr)


@app.command("replay")
def replay_session(
    ctx: typer.Context, session: _Id, device: options.Device = None, json: options.Json = False
) -> None:
    """Ask a session's questions again with the same model and seed, and compare the answers."""
    from llmchat.evaluate.replay import Replay, ReplayedAnswer, differences, replay
    from llmchat.models.opener import ModelOpener
    from llmchat.models.sessions import options_of_session, saved_history
    from llmchat.ui.json_output import print_json

    world: World = ctx.obj
    with saved_history(world) as history:
        found = history.find(session)
        records = history.messages(found.id)
    made: dict[str, Any] = next(
        (
            record.details["made_by"]
            for record in reversed(records)
            if record.details.get("made_by")
        ),
        {},
    )
    opens = options_of_session(found, world)
    if opens is None:
        raise UsageError(
            f"session {found.id} was imported, so it is unknown how its answers were generated",
            "only chats of llmchat can be replayed",
        )
    choices = {name: made[name] for name in ("weights", "kv", "engine") if made.get(name)}
    if choices.get("weights") not in get_args(Weights):
        # The kind of a file that keeps its numbers, which the default does.
        choices.pop("weights", None)
    opened = ModelOpener(world, {"device": device} | choices, opens=opens).open(waiting=True)
    changed = differences(made, opened.made_by)
    outcomes: list[ReplayedAnswer] = []
    for outcome in replay(records, opened.preset, opened.engine):
        outcomes.append(outcome)
        if not json:
            verdict = (
                "the same"
                if outcome.same
                else outcome.why
                or f"differs from character {outcome.at + 1} on: {outcome.now[outcome.at :][:60]!r}"
            )
            print(
                fit_for(world.stdout, f"answer {outcome.number}: {verdict}"),
                file=world.stdout,
                flush=True,
            )
    if json:
        print_json(world, Replay(changed, outcomes))
    for change in changed:
        print(fit_for(world.stderr, f"note: {change}"), file=world.stderr)
    raise typer.Exit(0 if all(outcome.same is not False for outcome in outcomes) else 1)


def _forget(world: World, sessions: "Sequence[Session]") -> None:
    """Remove what is kept of sessions outside of the history: KV caches and indexes."""
    from llmchat.models import past_chats

    for one in sessions:
        saved_kv.forget(one.id, world)
    past_chats.forget([one.id for one in sessions], world)


def _confirm(world: World, yes: bool, question: str) -> None:
    if not yes and not (world.interactive and confirmed(world, question)):
        raise UsageError("nothing was deleted", "-y deletes without asking")


def _free(name: str, force: bool) -> Path:
    path = Path(name).expanduser()
    if path.exists() and not force:
        raise UsageError(f"{path} exists", "--force replaces it")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}")
    return path
