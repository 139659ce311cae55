"""The flags of `llmchat serve` that no other command has."""

from pathlib import Path
from typing import Annotated

import typer

from llmchat.commands import options

ADDRESS, MODELS, LIMITS, LIFE = "Address", options.MODEL, "Limits", "Start and stop"
KeyFile = Annotated[
    Path | None,
    typer.Option("--key-file", help="File of the keys' hashes, instead of the config folder's."),
]


Models = Annotated[
    list[str] | None,
    typer.Option(
        "-m",
        "--model",
        help="Load this model at the start, and serve no others; may be repeated. By default"
        " every pulled model is loaded on request.",
        rich_help_panel=MODELS,
        autocompletion=options.complete_model,
    ),
]
Adapters = Annotated[
    list[str] | None,
    typer.Option(
        "--adapter",
        metavar="NAME=FOLDER",
        help="A LoRA adapter, requested as MODEL+NAME; may be repeated.",
        rich_help_panel=MODELS,
    ),
]
Draft = Annotated[
    str | None,
    typer.Option(
        "--draft",
        metavar="MODEL",
        help="A small model that drafts for the models of -m, which need its vocabulary; used while"
        " one answer is written at a time.",
        rich_help_panel=MODELS,
        autocompletion=options.complete_model,
    ),
]
Memory = Annotated[
    str,
    typer.Option(
        help="Memory for all models, such as 12G; by default 80 % of the free memory.",
        rich_help_panel=MODELS,
    ),
]
KeepAlive = Annotated[
    str,
    typer.Option(
        "--keep-alive",
        help="How long an unused model stays loaded: 5m (the default; for ever with -m), 1h, or"
        " -1 for ever.",
        rich_help_panel=MODELS,
    ),
]
Window = Annotated[
    int | None,
    typer.Option(
        "--context",
        help="Context window in tokens; 0 for the model's own.",
        rich_help_panel=LIMITS,
    ),
]
Trim = Annotated[
    bool,
    typer.Option(
        "--trim",
        help="Drop messages that do not fit the context window, instead of refusing the request.",
        rich_help_panel=LIMITS,
    ),
]
Host = Annotated[
    str,
    typer.Option(
        help="Address to listen on; any other than loopback requires an API key.",
        rich_help_panel=ADDRESS,
    ),
]
Port = Annotated[
    int, typer.Option(min=0, max=65535, help="0 for any free port.", rich_help_panel=ADDRESS)
]
Names = Annotated[
    list[str] | None,
    typer.Option(
        "--name",
        help="Another host name of this server (in the Host header).",
        rich_help_panel=ADDRESS,
    ),
]
Cors = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ORIGIN",
        help="Allow a web page of another origin, such as https://a.example.",
        rich_help_panel=ADDRESS,
    ),
]
Slots = Annotated[
    int,
    typer.Option(
        min=1, max=1024, help="Answers of one model at the same time.", rich_help_panel=LIMITS
    ),
]
Queue = Annotated[
    int,
    typer.Option(
        min=0, help="Requests that may wait; further ones get status 429.", rich_help_panel=LIMITS
    ),
]
Rate = Annotated[
    int,
    typer.Option(
        min=0,
        help="Requests a minute for each key or address; 0 for no limit.",
        rich_help_panel=LIMITS,
    ),
]
Timeout = Annotated[str, typer.Option(help="Time limit of an answer.", rich_help_panel=LIMITS)]
MaxBody = Annotated[
    str, typer.Option("--max-body", help="Size limit of a request.", rich_help_panel=LIMITS)
]
Background = Annotated[
    bool,
    typer.Option(
        "--background",
        help="Run in the background; `llmchat chat` uses the server then.",
        rich_help_panel=LIFE,
    ),
]
Stop = Annotated[
    bool, typer.Option("--stop", help="Stop the background server.", rich_help_panel=LIFE)
]
Idle = Annotated[
    str,
    typer.Option(
        help="Stop after this time without a request: 30m (the default with --background), or -1"
        " for never.",
        rich_help_panel=LIFE,
    ),
]
History = Annotated[
    bool,
    typer.Option(
        "--history",
        help="Store the web page's conversations on the server, not in the browser.",
        rich_help_panel=LIFE,
    ),
]
Tools = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Let clients run this tool or group here; may be repeated. The web page asks its user"
        " before each call.",
        rich_help_panel=options.TOOLS,
    ),
]
Docs = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Let requests and the web page search this index (`llmchat index list`); may be"
        " repeated. Every client can read its passages.",
        rich_help_panel=options.TOOLS,
    ),
]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="With --host: let other machines run this tool, though it may change something.",
        rich_help_panel=options.TOOLS,
    ),
]
Roles = Annotated[
    list[str] | None,
    typer.Option(
        "--role",
        metavar="NAME",
        help="Serve this role as the model `role:NAME`; may be repeated. 'NAME KEY=VALUE' sets a"
        " value of it.",
        rich_help_panel=MODELS,
        autocompletion=options.complete_role,
    ),
]
LogPrompts = Annotated[
    bool,
    typer.Option("--log-prompts", help="Write prompts to the log.", rich_help_panel=LIFE),
]
