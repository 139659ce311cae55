"""The commands of the server: serve, serve keys, ps, stop."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from llmchat.commands import options, serve_flags
from llmchat.errors import UsageError
from llmchat.settings import World

if TYPE_CHECKING:
    from llmchat.server.keys import Keys

app = typer.Typer()
serving = typer.Typer(
    help="Serve models to many users at once: an OpenAI-compatible API, and a web page.",
    invoke_without_command=True,
    no_args_is_help=False,
)
keys = typer.Typer(help="Manage the API keys for other machines.", no_args_is_help=True)
app.add_typer(serving, name="serve")
serving.add_typer(keys, name="keys")


@serving.callback()
def serve(
    ctx: typer.Context,
    models: serve_flags.Models = None,
    adapters: serve_flags.Adapters = None,
    memory: serve_flags.Memory = "",
    keep_alive: serve_flags.KeepAlive = "",
    weights: options.Weights = None,
    kv: options.Kv = None,
    device: options.Device = None,
    draft: serve_flags.Draft = None,
    roles: serve_flags.Roles = None,
    window: serve_flags.Window = None,
    trim: serve_flags.Trim = False,
    host: serve_flags.Host = "127.0.0.1",
    port: serve_flags.Port = 8000,
    names: serve_flags.Names = None,
    cors: serve_flags.Cors = None,
    key_file: serve_flags.KeyFile = None,
    slots: serve_flags.Slots = 16,
    queue: serve_flags.Queue = 64,
    rate: serve_flags.Rate = 0,
    timeout: serve_flags.Timeout = "10m",
    max_body: serve_flags.MaxBody = "4M",
    background: serve_flags.Background = False,
    stop: serve_flags.Stop = False,
    idle: serve_flags.Idle = "",
    history: serve_flags.History = False,
    log_prompts: serve_flags.LogPrompts = False,
    tools: serve_flags.Tools = None,
    mcp: options.Mcp = None,
    allow: serve_flags.Allow = None,
    root: options.Root = None,
    allow_private: options.AllowPrivate = None,
    searxng_url: options.SearxngUrl = None,
    docs: serve_flags.Docs = None,
    quiet: options.Quiet = False,
) -> None:
    """Serve models to many users at once: an OpenAI-compatible API at /v1, and a web page at /."""
    if ctx.invoked_subcommand:
        return
    from llmchat.background import process as detached

    world: World = ctx.obj
    if stop:
        return detached.stop(world)
    if background:
        arguments = [argument for argument in world.arguments if argument != "--background"]
        return detached.start(world, [*arguments, *([] if idle else ["--idle", "30m"])])
    _need_libraries()
    from llmchat.server.roles import served_roles
    from llmchat.server.run import serve as run
    from llmchat.server.serve_options import ServeOptions, tool_settings

    tool_flags = {"root": root, "allow_private": allow_private, "searxng_url": searxng_url}
    options = ServeOptions(
        models=tuple(models or ()),
        adapters=dict(_adapter(text) for text in adapters or ()),
        host=host, port=port, slots=slots, queue=queue, rate=rate, key_file=key_file,
        memory=_bytes(memory) if memory else 0,
        keep_alive_s=_seconds(keep_alive) if keep_alive else None,
        timeout_s=_seconds(timeout),
        idle_s=max(0.0, _seconds(idle or "-1")),
        max_body=_bytes(max_body),
        cors=tuple(cors or ()), names=tuple(names or ()), trim=trim,
        log_prompts=log_prompts, history=history,
        tools=tool_settings(world, tools or (), mcp or (), allow or (), tool_flags),
        docs=tuple(docs or ()),
        roles=served_roles(world, roles or (), docs or ()),
    )  # fmt: skip
    if draft and not models:
        raise UsageError("--draft requires -m: other models may have another vocabulary")
    flags = {"weights": weights, "kv": kv, "device": device, "context": window, "draft": draft}
    run(world, flags, options, quiet=quiet)


@keys.command("add")
def add_key(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the key's owner.")],
    key_file: serve_flags.KeyFile = None,
) -> None:
    """Create a key. It is shown once; only its hash is stored."""
    print(_keys(ctx.obj, key_file).add(name), file=ctx.obj.stdout)


@keys.command("list")
def list_keys(
    ctx: typer.Context, key_file: serve_flags.KeyFile = None, json: options.Json = False
) -> None:
    """List the keys by name and last characters."""
    from datetime import date

    from llmchat.commands.outputs import ListedKey
    from llmchat.ui import tables

    rows = [
        ListedKey(key.name, f"…{key.end}", date.fromtimestamp(key.created).isoformat())
        for key in _keys(ctx.obj, key_file).all()
    ]
    tables.rows(ctx.obj, rows, ("name", "key", "created"), json=json)


@keys.command("remove")
def remove_key(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the key's owner.")],
    key_file: serve_flags.KeyFile = None,
) -> None:
    """Remove a key; a running server refuses it immediately."""
    known = _keys(ctx.obj, key_file)
    known.remove(name)
    if not known.all():
        print(
            "note: no key is left; a running server refuses every request until one is added",
            file=ctx.obj.stderr,
        )


@app.command()
def ps(ctx: typer.Context, json: options.Json = False) -> None:
    """List the models that the background server has in memory."""
    from llmchat.background.client import ask
    from llmchat.commands.outputs import LoadedModel
    from llmchat.ui import tables

    world: World = ctx.obj
    loaded = msgspec.convert(ask(world, "GET", "/api/ps")["models"], list[LoadedModel])
    columns = ("name", "size", "adapters", "running", "waiting", "until")
    tables.rows(world, loaded, columns, json=json)


@app.command()
def stop(
    ctx: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(help="A model, as `llmchat ps` lists it; by default all idle models."),
    ] = None,
) -> None:
    """Unload a model from the background server. `llmchat serve --stop` stops the server."""
    from llmchat.background.client import ask

    stopped = ask(ctx.obj, "POST", "/api/stop", {"model": model})["stopped"]
    if model and not stopped:
        raise UsageError(f"`{model}` is in use, or not in memory", "`llmchat ps` lists the models")


def _need_libraries() -> None:
    from importlib.util import find_spec

    missing = [
        name for name in ("fastapi", "uvicorn", "prometheus_client") if find_spec(name) is None
    ]
    if missing:
        raise UsageError(
            f"the server needs {', '.join(missing)}",
            "`pip install 'llmchat[serve]'` installs it",
        )


def _keys(world: World, file: Path | None) -> "Keys":
    from llmchat.server.keys import Keys

    return Keys(file or world.config / "keys.json", world.now)


def _adapter(text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    path = Path(folder).expanduser()
    if not name or "+" in name or not (path / "adapter_config.json").is_file():
        raise UsageError(
            f"invalid value `{text}` for --adapter",
            "use NAME=FOLDER, with an adapter in the folder",
        )
    return name, path.resolve()


_UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4}
_TIMES = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def _bytes(text: str) -> int:
    return int(_number(text, text.upper().removesuffix("B"), _UNITS, "4M or 12G"))


def _seconds(text: str) -> float:
    """Seconds; -1 for ever."""
    return _number(text, text, _TIMES, "30s, 5m, 1h or -1")


def _number(text: str, plain: str, units: dict[str, int], examples: str) -> float:
    number, unit = (plain[:-1], plain[-1]) if plain[-1:] in units and plain[-1:] else (plain, "")
    try:
        return -1.0 if plain == "-1" else float(number) * units[unit]
    except ValueError:
        raise UsageError(f"invalid size or duration `{text}`", f"use {examples}") from None
