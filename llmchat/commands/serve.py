"""The commands of the server: serve and its keys, ps, stop."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from llmchat.commands import options
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
keys = typer.Typer(
    help="API keys: who may use the server from other machines.", no_args_is_help=True
)
app.add_typer(serving, name="serve")
serving.add_typer(keys, name="keys")

ADDRESS, MODELS, LIMITS, LIFE = "Address", options.MODEL, "Limits", "Start and stop"
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file", help="Where the keys' hashes are kept, instead of the config folder."
    ),
]


@serving.callback()
def serve(
    ctx: typer.Context,
    models: Annotated[
        list[str] | None,
        typer.Option(
            "-m",
            "--model",
            help="Load this model at the start, and serve no others; may be given again. Without it every pulled model is loaded when it is asked for.",
            rich_help_panel=MODELS,
            autocompletion=options.complete_model,
        ),
    ] = None,
    adapters: Annotated[
        list[str] | None,
        typer.Option(
            "--adapter",
            metavar="NAME=FOLDER",
            help="A LoRA adapter to be asked for as MODEL+NAME; may be given again.",
            rich_help_panel=MODELS,
        ),
    ] = None,
    memory: Annotated[
        str,
        typer.Option(
            help="What models may take together, such as 12G; 80 % of what is free.",
            rich_help_panel=MODELS,
        ),
    ] = "",
    keep_alive: Annotated[
        str,
        typer.Option(
            "--keep-alive",
            help="How long an unused model stays: 5m (for ever where -m named it), 1h, or -1 for ever.",
            rich_help_panel=MODELS,
        ),
    ] = "",
    weights: options.Weights = None,
    device: options.Device = None,
    window: Annotated[
        int | None,
        typer.Option(
            "--context",
            help="Context window in tokens; 0 for the model's own.",
            rich_help_panel=LIMITS,
        ),
    ] = None,
    trim: Annotated[
        bool,
        typer.Option(
            "--trim",
            help="Leave out what does not fit a window, instead of refusing it.",
            rich_help_panel=LIMITS,
        ),
    ] = False,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on; any but this machine's own needs an API key.",
            rich_help_panel=ADDRESS,
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="0 takes a free one.", rich_help_panel=ADDRESS)
    ] = 8000,
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--name",
            help="Another name that this server is called by (its Host header).",
            rich_help_panel=ADDRESS,
        ),
    ] = None,
    cors: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="A web page elsewhere that may use this server, such as https://a.example.",
            rich_help_panel=ADDRESS,
        ),
    ] = None,
    key_file: KeyFile = None,
    slots: Annotated[
        int,
        typer.Option(
            min=1, max=1024, help="Answers of one model under way at once.", rich_help_panel=LIMITS
        ),
    ] = 16,
    queue: Annotated[
        int,
        typer.Option(min=0, help="Requests that may wait; more get a 429.", rich_help_panel=LIMITS),
    ] = 64,
    rate: Annotated[
        int,
        typer.Option(
            min=0,
            help="Requests a minute for each key or address; 0 is no limit.",
            rich_help_panel=LIMITS,
        ),
    ] = 0,
    timeout: Annotated[
        str, typer.Option(help="The longest an answer may take.", rich_help_panel=LIMITS)
    ] = "10m",
    max_body: Annotated[
        str, typer.Option("--max-body", help="The largest request.", rich_help_panel=LIMITS)
    ] = "4M",
    background: Annotated[
        bool,
        typer.Option(
            "--background",
            help="Start it and return; `llmchat chat` uses it from then on.",
            rich_help_panel=LIFE,
        ),
    ] = False,
    stop: Annotated[
        bool, typer.Option("--stop", help="Stop the one that runs.", rich_help_panel=LIFE)
    ] = False,
    idle: Annotated[
        str,
        typer.Option(
            help="Stop after so long without a request: 30m (the default with --background), or -1 for never.",
            rich_help_panel=LIFE,
        ),
    ] = "",
    history: Annotated[
        bool,
        typer.Option(
            "--history",
            help="Keep the web page's conversations here, for each key, instead of in the browser.",
            rich_help_panel=LIFE,
        ),
    ] = False,
    log_prompts: Annotated[
        bool,
        typer.Option(
            "--log-prompts", help="Write what is asked into the log.", rich_help_panel=LIFE
        ),
    ] = False,
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
    from llmchat.server.run import serve as run
    from llmchat.server.serve_options import ServeOptions

    options = ServeOptions(
        models=tuple(models or ()),
        adapters=dict(_adapter(text) for text in adapters or ()),
        host=host, port=port, slots=slots, queue=queue, rate=rate, key_file=key_file,
        memory=_bytes(memory) if memory else 0,
        keep_alive_s=_seconds(keep_alive) if keep_alive else None,
        timeout_s=_seconds(timeout),
        idle_s=max(0.0, _seconds(idle or "-1")),
        max_body=_bytes(max_body),
        cors=tuple(cors or ()), names=tuple(names or ()), trim=trim, log_prompts=log_prompts, history=history,
    )  # fmt: skip
    run(world, {"weights": weights, "device": device, "context": window}, options, quiet=quiet)


@keys.command("add")
def add_key(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    key_file: KeyFile = None,
) -> None:
    """Make a key. It is shown once; only its hash is kept."""
    print(_keys(ctx.obj, key_file).add(name), file=ctx.obj.stdout)


@keys.command("list")
def list_keys(ctx: typer.Context, key_file: KeyFile = None, json: options.Json = False) -> None:
    """The keys there are, by their names and last characters."""
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
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    key_file: KeyFile = None,
) -> None:
    """Take a key back; a running server refuses it from now on."""
    known = _keys(ctx.obj, key_file)
    known.remove(name)
    if not known.all():
        print(
            "note: no key is left; a running server refuses every request until there is one",
            file=ctx.obj.stderr,
        )


@app.command()
def ps(ctx: typer.Context, json: options.Json = False) -> None:
    """The models that your server has in memory."""
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
        typer.Argument(help="As `llmchat ps` shows it; without it, all that are not in use."),
    ] = None,
) -> None:
    """Unload a model from your server's memory. `llmchat serve --stop` ends the server itself."""
    from llmchat.background.client import ask

    stopped = ask(ctx.obj, "POST", "/api/stop", {"model": model})["stopped"]
    if model and not stopped:
        raise UsageError(f"`{model}` is in use, or not in memory", "`llmchat ps` shows what is")


def _need_libraries() -> None:
    from importlib.util import find_spec

    missing = [
        name for name in ("fastapi", "uvicorn", "prometheus_client") if find_spec(name) is None
    ]
    if missing:
        raise UsageError(
            f"the server needs {', '.join(missing)}",
            "`pip install 'llmchat[serve]'` brings what it needs",
        )


def _keys(world: World, file: Path | None) -> "Keys":
    from llmchat.server.keys import Keys

    return Keys(file or world.config / "keys.json", world.now)


def _adapter(text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    path = Path(folder).expanduser()
    if not name or "+" in name or not (path / "adapter_config.json").is_file():
        raise UsageError(f"`--adapter {text}` is not NAME=FOLDER with an adapter in the folder")
    return name, path.resolve()


_UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4}
_TIMES = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def _bytes(text: str) -> int:
    return int(_number(text, text.upper().removesuffix("B"), _UNITS, "4M, 12G"))


def _seconds(text: str) -> float:
    """Seconds; -1 for ever."""
    return _number(text, text, _TIMES, "30s, 5m, 1h or -1")


def _number(text: str, plain: str, units: dict[str, int], examples: str) -> float:
    number, unit = (plain[:-1], plain[-1]) if plain[-1:] in units and plain[-1:] else (plain, "")
    try:
        return -1.0 if plain == "-1" else float(number) * units[unit]
    except ValueError:
        raise UsageError(f"`{text}` is no amount", f"{examples} are") from None
