"""The flags that several commands share.

None means not given: then a variable, the config file or the preset decides.
"""

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from llmchat.commands.signatures import Command, with_flags
from llmchat.settings import Options, World, types
from llmchat.settings.sampling import SAMPLING_SETTINGS

MODEL, CONTEXT, SAMPLING, OUTPUT = "Model", "Context", "Sampling", "Output"
TOOLS = "Tools"
STRUCTURE = "Form of the answer"


def complete_model(ctx: typer.Context, incomplete: str) -> list[str]:
    """Model names for the Tab key, found without opening a model."""
    from llmchat.models.library import known_names

    return known_names(incomplete, ctx.obj)


def complete_role(ctx: typer.Context, incomplete: str) -> list[str]:
    """Role names for the Tab key."""
    from llmchat.roles import known_names

    return [name for name in known_names(ctx.obj.own_roles) if name.startswith(incomplete)]


def world_of(ctx: typer.Context) -> World:
    """The world of a command, in the Hub's offline mode where --offline was given."""
    world: World = ctx.obj
    return world.in_offline_mode() if ctx.params.get("offline") else world


def given(ctx: typer.Context) -> dict[str, Any]:
    """The flags of a command that are options of llmchat; None for one that was not given."""
    return {name: value for name, value in ctx.params.items() if name in Options.__struct_fields__}


def is_given(ctx: typer.Context, name: str) -> bool:
    """Whether a flag is on the command line; its default does not count."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


_METAVARS = {int: "INTEGER", float: "FLOAT"}


def _checked(kind: Any, flag: str) -> dict[str, Any]:
    """A flag with the same checks and error messages as its variable and config key."""
    return {
        "parser": lambda text: types.check(text, kind, flag),
        "metavar": "|".join(types.choices(kind)) or _METAVARS.get(types.base_type(kind), "JSON"),
    }


def _sampling_flag(name: str) -> Any:
    """The flag of a sampling parameter: `--top-p FLOAT`, with its help and its range."""
    kind, flag = SAMPLING_SETTINGS[name], f"--{name.replace('_', '-')}"
    return typer.Option(
        flag, **_checked(kind, flag), help=types.description(kind), rich_help_panel=SAMPLING
    )


def with_options(*names: str, before: str = "") -> Callable[[Command], Command]:
    """Add shared flags to a command, in front of its parameter `before`, or as the last ones.

    The command's signature ends with `**shared`, and `given` reads the flags.
    """

    def decorate(command: Command) -> Command:
        return with_flags(command, {name: _SHARED[name] for name in names}, before)

    return decorate


def with_sampling(command: Command) -> Command:
    """Add to a command a flag for each sampling parameter that its signature does not name.

    The command receives them as keywords, None where a flag was not given.
    """
    named = inspect.signature(command).parameters
    flags = {
        # The parser makes the value; Typer would read a list or a table in its own way.
        name: Annotated[Any, _sampling_flag(name)]
        for name, kind in SAMPLING_SETTINGS.items()
        if name not in named
    }
    return with_flags(command, flags)


ModelArgument = Annotated[
    str,
    typer.Argument(
        help="A preset, a Hub repo, a folder or a .gguf file.", autocompletion=complete_model
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "-m",
        "--model",
        help="A preset, a Hub repo org/name, org/name-GGUF:Q4_K_M, a folder, a .gguf file,"
        " ollama:NAME or lmstudio:NAME.",
        rich_help_panel=MODEL,
        autocompletion=complete_model,
    ),
]
Base = Annotated[
    str | None, typer.Option(help="Another base for the preset.", rich_help_panel=MODEL)
]
Adapter = Annotated[
    str | None,
    typer.Option(
        "--adapter",
        help="A LoRA adapter: a folder or a Hub repo; append `:0.5` for half strength. `none` for"
        " the base alone.",
        rich_help_panel=MODEL,
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        "-t",
        "--format",
        "--template",
        help="Prompt format; `llmchat presets --formats` lists them.",
        rich_help_panel=MODEL,
    ),
]
Weights = Annotated[
    str | None,
    typer.Option("--weights", help=f"{types.in_words(types.Weights)}.", rich_help_panel=MODEL),
]
Kv = Annotated[
    str | None,
    typer.Option(
        "--kv",
        help=f"Numbers of the KV cache: {types.in_words(types.KvKind)}, which takes half the"
        " memory.",
        rich_help_panel=MODEL,
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(
        "--engine",
        help="transformers; gguf (llama.cpp, for .gguf files); openai (a server, see --url); "
        "scripted (a demo without a model); or that of a plugin.",
        rich_help_panel=MODEL,
        autocompletion=lambda incomplete: [
            name for name in types.choices(types.EngineName) if name.startswith(incomplete)
        ],
    ),
]
Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="A server with OpenAI's API (vLLM, llama-server, Ollama …); --model is then one of its"
        " models. Key: OPENAI_API_KEY.",
        rich_help_panel=MODEL,
    ),
]
Draft = Annotated[
    str | None,
    typer.Option(
        "--draft",
        metavar="MODEL",
        help="A small model of the same vocabulary that drafts for this one. No token changes, and"
        " drafts pause where they save no time; `none` for none.",
        rich_help_panel=MODEL,
        autocompletion=complete_model,
    ),
]
Device = Annotated[
    str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps.", rich_help_panel=MODEL)
]
Revision = Annotated[
    str | None, typer.Option(help="Branch, tag or commit of the base.", rich_help_panel=MODEL)
]
TrustRemoteCode = Annotated[
    bool | None,
    typer.Option(
        "--trust-remote-code",
        help="Allow a checkpoint to run its own Python code.",
        show_default=False,
        rich_help_panel=MODEL,
    ),
]
Offline = Annotated[
    bool | None,
    typer.Option(
        "--offline", help="Never use the network.", show_default=False, rich_help_panel=MODEL
    ),
]
Role = Annotated[
    str | None,
    typer.Option(
        "--role",
        metavar="NAME",
        help="A role: saved prompts and options, listed by `llmchat roles list`. 'NAME KEY=VALUE'"
        " sets a value of it; `off` for none.",
        rich_help_panel=CONTEXT,
        autocompletion=complete_role,
    ),
]
System = Annotated[
    str | None, typer.Option("-s", "--system", help="System text.", rich_help_panel=CONTEXT)
]
Context = Annotated[
    int | None,
    typer.Option(
        **_checked(types.Count, "--context"),
        help="Context window in tokens; 0 for the model's own.",
        rich_help_panel=CONTEXT,
    ),
]
Policy = Annotated[
    str | None,
    typer.Option("--policy", help=f"{types.in_words(types.Policy)}.", rich_help_panel=CONTEXT),
]
Turns = Annotated[
    int | None,
    typer.Option(
        **_checked(types.Turns, "--turns"), help="Turns that last-n keeps.", rich_help_panel=CONTEXT
    ),
]
Docs = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Search this index for each question and give the model what is found; may be"
        " repeated. `llmchat index list` lists them.",
        rich_help_panel=CONTEXT,
    ),
]
Recall = Annotated[
    bool | None,
    typer.Option(
        "--recall/--no-recall",
        help="With --policy summary, search the messages that it dropped and put what fits beside"
        " the question; on by default.",
        show_default=False,
        rich_help_panel=CONTEXT,
    ),
]
Gitignore = Annotated[
    bool | None,
    typer.Option(
        "--ignore/--no-ignore",
        help="Leave out of folders what their .gitignore files name; on by default.",
        show_default=False,
        rich_help_panel=CONTEXT,
    ),
]
SearxngUrl = Annotated[
    str | None,
    typer.Option(
        "--searxng-url",
        help="SearXNG server that searches the web; without one, the package ddgs does.",
        rich_help_panel=TOOLS,
    ),
]
AllowPrivate = Annotated[
    bool | None,
    typer.Option(
        "--allow-private",
        help="Let the web tools open addresses of this machine and its networks.",
        show_default=False,
        rich_help_panel=TOOLS,
    ),
]
MaxTokens = Annotated[int | None, _sampling_flag("max_tokens")]
Json = Annotated[
    bool, typer.Option("--json", help="One JSON object on stdout.", rich_help_panel=OUTPUT)
]
Verbose = Annotated[
    bool,
    typer.Option("-v", "--verbose", help="Tokens and times on stderr.", rich_help_panel=OUTPUT),
]
Quiet = Annotated[
    bool, typer.Option("-q", "--quiet", help="No notes on stderr.", rich_help_panel=OUTPUT)
]
NamesOnly = Annotated[bool, typer.Option("-q", "--quiet", help="Names only.")]
Yes = Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")]
PlotTo = Annotated[
    str | None,
    typer.Option(
        "--plot",
        metavar="WHERE",
        help="auto (a terminal gets a plot, as an image if it can), text, image, none, FILE.png or"
        " FILE.svg.",
        rich_help_panel=OUTPUT,
    ),
]
Tool = Annotated[
    list[str] | None,
    typer.Option(
        "-T",
        "--tool",
        metavar="NAME",
        help="Let the model call this tool or group; may be repeated. `llmchat chat -T list` lists"
        " them.",
        rich_help_panel=TOOLS,
    ),
]
Mcp = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE",
        help="Connect the MCP servers in this JSON file; may be repeated.",
        rich_help_panel=TOOLS,
    ),
]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Run this tool or group without a question; may be repeated.",
        rich_help_panel=TOOLS,
    ),
]
MaxRounds = Annotated[
    int | None,
    typer.Option(
        **_checked(types.Rounds, "--max-rounds"),
        help="How often an answer may call tools.",
        rich_help_panel=TOOLS,
    ),
]
Root = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER",
        help="The folder that the `files` tools may read; the current one by default.",
        rich_help_panel=TOOLS,
    ),
]
_SHARED = {
    "tool": Tool,
    "mcp": Mcp,
    "allow": Allow,
    "max_rounds": MaxRounds,
    "root": Root,
    "model": Model,
    "base": Base,
    "adapter": Adapter,
    "format": Format,
    "weights": Weights,
    "kv": Kv,
    "engine": Engine,
    "url": Url,
    "draft": Draft,
    "device": Device,
    "revision": Revision,
    "trust_remote_code": TrustRemoteCode,
    "offline": Offline,
    "role": Role,
    "system": System,
    "docs": Docs,
    "context": Context,
    "policy": Policy,
    "turns": Turns,
    "recall": Recall,
    "gitignore": Gitignore,
    "max_tokens": MaxTokens,
    "searxng_url": SearxngUrl,
    "allow_private": AllowPrivate,
}
