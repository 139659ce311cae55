"""The flags of `llmchat chat` that are no options of llmchat, or that no other command has."""

from typing import Annotated, Any

import typer
from msgspec import Struct

from llmchat.commands import options
from llmchat.structure.arguments import of_flags

Prompt = Annotated[
    str | None,
    typer.Argument(help="A question to answer once; `-` or no PROMPT reads piped stdin."),
]
File = Annotated[
    list[str] | None,
    typer.Option(
        "-f",
        "--file",
        metavar="PATH|URL",
        help="Attach a file, a folder, a pattern such as `*.md`, a PDF or a web page to the"
        " question; may be repeated. What does not fit the window is searched.",
        rich_help_panel=options.CONTEXT,
    ),
]
Continue = Annotated[
    bool,
    typer.Option(
        "-c", "--continue", help="Continue the last session.", rich_help_panel=options.CONTEXT
    ),
]
Session = Annotated[
    str | None, typer.Option(help="Continue this session.", rich_help_panel=options.CONTEXT)
]
NoLog = Annotated[
    bool | None,
    typer.Option(
        "-n",
        "--no-log",
        help="Do not save this chat.",
        show_default=False,
        rich_help_panel=options.CONTEXT,
    ),
]
Memory = Annotated[
    bool | None,
    typer.Option(
        "--memory/--no-memory",
        help="Use what is remembered of you, and let the model propose facts when the chat ends.",
        show_default=False,
        rich_help_panel=options.CONTEXT,
    ),
]
NoStream = Annotated[
    bool,
    typer.Option(
        "--no-stream", help="Print the answer when it is complete.", rich_help_panel=options.OUTPUT
    ),
]
Plain = Annotated[
    bool | None,
    typer.Option(
        "--plain",
        help="No Markdown, no colour.",
        show_default=False,
        rich_help_panel=options.OUTPUT,
    ),
]
Extract = Annotated[
    bool,
    typer.Option(
        "-x",
        "--extract",
        help="Print the first code block of the answer alone.",
        rich_help_panel=options.OUTPUT,
    ),
]
Schema = Annotated[
    str | None,
    typer.Option(
        "--schema",
        metavar="FILE|JSON|FIELDS",
        help="Answer with JSON of this JSON Schema, or of fields such as `name, age int`; `off` for"
        " free text.",
        rich_help_panel=options.STRUCTURE,
    ),
]
Regex = Annotated[
    str | None,
    typer.Option(
        metavar="RE",
        help="Answer with a text that this regular expression matches as a whole.",
        rich_help_panel=options.STRUCTURE,
    ),
]
Choice = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TEXT",
        help="Answer with one of these texts; repeat the flag.",
        rich_help_panel=options.STRUCTURE,
    ),
]
Grammar = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Answer with a text of this Lark grammar.",
        rich_help_panel=options.STRUCTURE,
    ),
]
Vi = Annotated[
    bool | None,
    typer.Option(
        "--vi/--no-vi",
        help="vi keys in the input line.",
        show_default=False,
        rich_help_panel=options.OUTPUT,
    ),
]
Web = Annotated[
    bool,
    typer.Option(
        "--web",
        help="Search the web with the question and answer from the pages found.",
        rich_help_panel=options.TOOLS,
    ),
]
Answers = Annotated[
    int,
    typer.Option(
        "--answers",
        min=1,
        max=128,
        help="Print this many answers to the question; a seed is counted up.",
        rich_help_panel=options.OUTPUT,
    ),
]
NoServer = Annotated[
    bool,
    typer.Option(
        "--no-server",
        help="Load the model here even if `serve --background` has it loaded.",
        rich_help_panel=options.MODEL,
    ),
]
Map = Annotated[
    bool,
    typer.Option(
        "--map",
        help="Read all of what is attached, of any size, in pieces, and join what they say.",
        rich_help_panel=options.CONTEXT,
    ),
]


class ChatFlags(Struct, frozen=True):
    """The flags, in the order of the help. Typer reads them from here."""

    prompt: Prompt = None
    file: File = None
    map: Map = False
    continue_: Continue = False
    session: Session = None
    no_log: NoLog = None
    memory: Memory = None
    json: options.Json = False
    no_stream: NoStream = False
    plain: Plain = None
    extract: Extract = False
    answers: Answers = 1
    vi: Vi = None
    schema: Schema = None
    regex: Regex = None
    choice: Choice = None
    grammar: Grammar = None
    web: Web = False
    no_server: NoServer = False
    quiet: options.Quiet = False
    verbose: options.Verbose = False

    @classmethod
    def of(cls, ctx: typer.Context) -> "ChatFlags":
        """The flags of a command line."""
        return cls(**{name: ctx.params[name] for name in cls.__struct_fields__})

    def as_options(self) -> dict[str, Any]:
        """What they say of the options of llmchat, beyond those of the same name."""
        return {
            "schema": of_flags(self.schema, self.regex, self.choice or (), self.grammar),
            "memory": {True: "propose", False: "off", None: None}[self.memory],
        }
