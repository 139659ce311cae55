"""`llmchat chat`: the model of the flags, or of an earlier session, answers once or in a REPL."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmchat.commands import models, options
from llmchat.commands.open_tools import open_tools, print_notes, print_tools
from llmchat.errors import ModelNotFound, NotPulled, UsageError
from llmchat.process.signals import orderly_end
from llmchat.settings import Settings, World, resolve
from llmchat.structure.arguments import of_flags

if TYPE_CHECKING:
    from llmchat.chat import Chat
    from llmchat.commands.one_shot import Output
    from llmchat.conversation import Message
    from llmchat.history import History, Session
    from llmchat.models.open_model import OpenModel
    from llmchat.models.opener import ModelOpener
    from llmchat.tools.web.settings import WebSettings

_Prompt = Annotated[
    str | None,
    typer.Argument(help="A question to answer once; `-` or no PROMPT reads piped stdin."),
]
_File = Annotated[
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
_Continue = Annotated[
    bool,
    typer.Option(
        "-c", "--continue", help="Continue the last session.", rich_help_panel=options.CONTEXT
    ),
]
_Session = Annotated[
    str | None, typer.Option(help="Continue this session.", rich_help_panel=options.CONTEXT)
]
_NoLog = Annotated[
    bool | None,
    typer.Option(
        "-n",
        "--no-log",
        help="Do not save this chat.",
        show_default=False,
        rich_help_panel=options.CONTEXT,
    ),
]
_Memory = Annotated[
    bool | None,
    typer.Option(
        "--memory/--no-memory",
        help="Use what is remembered of you, and let the model propose facts when the chat ends.",
        show_default=False,
        rich_help_panel=options.CONTEXT,
    ),
]
_NoStream = Annotated[
    bool,
    typer.Option(
        "--no-stream", help="Print the answer when it is complete.", rich_help_panel=options.OUTPUT
    ),
]
_Plain = Annotated[
    bool | None,
    typer.Option(
        "--plain",
        help="No Markdown, no colour.",
        show_default=False,
        rich_help_panel=options.OUTPUT,
    ),
]
_Extract = Annotated[
    bool,
    typer.Option(
        "-x",
        "--extract",
        help="Print the first code block of the answer alone.",
        rich_help_panel=options.OUTPUT,
    ),
]
_Schema = Annotated[
    str | None,
    typer.Option(
        "--schema",
        metavar="FILE|JSON|FIELDS",
        help="Answer with JSON of this JSON Schema, or of fields such as `name, age int`; `off` for"
        " free text.",
        rich_help_panel=options.STRUCTURE,
    ),
]
_Regex = Annotated[
    str | None,
    typer.Option(
        metavar="RE",
        help="Answer with a text that this regular expression matches as a whole.",
        rich_help_panel=options.STRUCTURE,
    ),
]
_Choice = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TEXT",
        help="Answer with one of these texts; repeat the flag.",
        rich_help_panel=options.STRUCTURE,
    ),
]
_Grammar = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Answer with a text of this Lark grammar.",
        rich_help_panel=options.STRUCTURE,
    ),
]
_Vi = Annotated[
    bool | None,
    typer.Option(
        "--vi/--no-vi",
        help="vi keys in the input line.",
        show_default=False,
        rich_help_panel=options.OUTPUT,
    ),
]
_Web = Annotated[
    bool,
    typer.Option(
        "--web",
        help="Search the web with the question and answer from the pages found.",
        rich_help_panel=options.TOOLS,
    ),
]
_Answers = Annotated[
    int,
    typer.Option(
        "--answers",
        min=1,
        max=128,
        help="Print this many answers to the question; a seed is counted up.",
        rich_help_panel=options.OUTPUT,
    ),
]
_NoServer = Annotated[
    bool,
    typer.Option(
        "--no-server",
        help="Load the model here even if `serve --background` has it loaded.",
        rich_help_panel=options.MODEL,
    ),
]


@options.with_sampling
@options.with_options(
    "model", "base", "adapter", "format", "weights", "engine", "url", "device", "revision",
    "trust_remote_code", "system", before="file",
)  # fmt: skip
@options.with_options("tool", "mcp", "allow", "max_rounds", "root", before="json")
@options.with_options("docs", "context", "policy", "turns", "max_tokens", "offline", before="json")
@options.with_options("searxng_url", "allow_private", before="json")
def chat(
    ctx: typer.Context,
    prompt: _Prompt = None,
    file: _File = None,
    continue_: _Continue = False,
    session: _Session = None,
    no_log: _NoLog = None,
    memory: _Memory = None,
    json: options.Json = False,
    no_stream: _NoStream = False,
    plain: _Plain = None,
    extract: _Extract = False,
    answers: _Answers = 1,
    vi: _Vi = None,
    schema: _Schema = None,
    regex: _Regex = None,
    choice: _Choice = None,
    grammar: _Grammar = None,
    web: _Web = False,
    no_server: _NoServer = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    **shared: Any,
) -> None:
    """Chat with a model: a REPL on a terminal, one answer for a PROMPT or piped text."""
    from llmchat.commands import one_shot
    from llmchat.memory.facts import Facts
    from llmchat.memory.of_chat import ChatMemory
    from llmchat.models.open_model import open_in_background
    from llmchat.models.sessions import open_history
    from llmchat.ui.documents import Documents
    from llmchat.ui.given_files import read_given
    from llmchat.ui.large_material import with_material

    given = options.given(ctx) | {
        "schema": of_flags(schema, regex, choice or (), grammar),
        "memory": {True: "propose", False: "off", None: None}[memory],
    }
    settings = resolve(ctx.obj, given)
    world: World = ctx.obj.in_offline_mode() if settings.options.offline else ctx.obj
    if settings.options.tool == ("list",):
        return print_tools(world)
    note = one_shot.note_on(world, quiet=quiet)
    given_texts = read_given(world, file or (), settings.options, note)
    question = one_shot.question(world, prompt, given_texts)
    if extract and not question:
        raise _extract_needs_a_question()
    if answers > 1:
        _check_answers(question, extract=extract)
    web_settings = _web_settings(world, settings, question) if web else None
    asks_on = None if question is None else world.stderr
    with (
        orderly_end(),
        open_history(world, settings) as history,
        open_tools(world, settings, asks_on, quiet=quiet or json) as tools,
        Documents(world, settings.options.docs, keep=not settings.options.no_log) as documents,
    ):
        earlier = _earlier_session(history, session, last=continue_)
        if earlier:
            given |= _flags_of_session(earlier, settings, world, quiet=quiet)
        opens = dict(earlier.opens) if earlier else {}
        opened = open_in_background(world, given, opens) if question and not no_server else None
        if opened is None:
            from llmchat.models.opener import ModelOpener

            opener = ModelOpener(world, given, earlier.id if earlier else None, opens)
            opened = _open(opener, later=question is None, waiting=not (quiet or json))
        talk = _begin(opened, history, earlier, settings, given)
        talk.tools, talk.memory = tools, ChatMemory(Facts.of(world), settings.options.memory)
        talk.memory.begin(len(talk.conversation.messages))
        if not quiet:
            print_notes(tools, world)
        if question:
            if web_settings:
                question = one_shot.from_web(talk, world, question, web_settings, quiet=quiet)
            documents.note = note
            known = {one.name: one.document for one in given_texts}
            question = with_material(talk, question, documents, known)
            plain_text = settings.options.plain
            output = one_shot.Output(json, not no_stream, plain_text, quiet, extract, answers)
            code = _answer(talk, world, question, output, verbose=verbose)
        else:
            from llmchat.ui.repl import run

            plain_text, vi_keys = settings.options.plain, settings.options.vi
            code = run(talk, world, opener, plain=plain_text, vi=vi_keys, documents=documents)
            _keep(talk, world)
        raise typer.Exit(code)


def _check_answers(question: "Message | None", *, extract: bool) -> None:
    if question is None:
        raise UsageError(
            "--answers takes a PROMPT or piped text", "`/regen` answers again in a chat"
        )
    if extract:
        raise UsageError("--answers and --extract exclude each other", "--json gives all answers")


def _extract_needs_a_question() -> UsageError:
    return UsageError(
        "--extract takes a PROMPT or piped text",
        "in a chat, /copy and /save code take a code block by its number",
    )


def _web_settings(world: World, settings: Settings, question: "Message | None") -> "WebSettings":
    """What --web may do. Raises an error before a model is loaded for it."""
    from llmchat.tools.web.settings import WebSettings

    if question is None:
        raise UsageError("--web takes a PROMPT or piped text", "in a chat, use /web QUESTION")
    found = WebSettings.of(world, settings.options)
    found.access()
    return found


def _earlier_session(history: "History", name: str | None, *, last: bool) -> "Session | None":
    """The session that --session names, or the last one for --continue."""
    if name:
        return history.find(name)
    if not last:
        return None
    if earlier := history.latest():
        return earlier
    raise UsageError("there is no session to continue")


def _flags_of_session(
    earlier: "Session", settings: Settings, world: World, *, quiet: bool
) -> dict[str, Any]:
    """The flags that open the model of an imported session, or of one from an early version.

    Empty if the user names a model, or if the session's model is unknown here, which is noted.
    """
    from llmchat.models.sessions import options_of_session, unknown_model_note

    if earlier.opens or settings.origins["model"] != "default":
        return {}
    known = options_of_session(earlier, world)
    if known is None and not quiet:
        print(f"note: {unknown_model_note(settings.options.model)}", file=world.stderr)
    return known or {}


def _open(opener: "ModelOpener", *, later: bool, waiting: bool) -> "OpenModel":
    """Open the model; where it is not pulled, offer to pull it first."""
    while True:
        try:
            return opener.open_later() if later else opener.open_when_asked(waiting=waiting)
        except NotPulled as error:
            if not models.offer(opener.world, opener.options()):
                raise _with_way_out(error, opener) from error
        except ModelNotFound as error:
            raise _with_way_out(error, opener) from error


def _with_way_out(error: ModelNotFound, opener: "ModelOpener") -> ModelNotFound:
    """The error, with a hint for a session whose model is gone."""
    if error.hint or not opener.continues:
        return error
    return type(error)(error.message, "`-m MODEL` continues the session with another model")


def _begin(
    opened: "OpenModel",
    history: "History",
    earlier: "Session | None",
    settings: Settings,
    given: Mapping[str, Any],
) -> "Chat":
    """The chat of a command line: new, or an earlier session with its settings.

    A flag goes before a setting of the session; another model takes none of its settings.
    """
    from llmchat.chat import Chat

    talk = Chat(
        opened.preset,
        opened.engine,
        history,
        session=earlier.id if earlier else None,
        made_by=opened.made_by,
        opens=opened.opens,
    )
    if earlier and (earlier.opens == talk.opens or not given.get("model")):
        talk.restore_settings(
            {name: value for name, value in earlier.settings.items() if given.get(name) is None}
        )
    system = settings.options.system
    if system and talk.conversation.system != system:
        talk.instruct(system)
    return talk


def _answer(
    talk: "Chat", world: World, question: "Message", output: "Output", *, verbose: bool
) -> int:
    """Answer one question; returns the exit code. What the model has read is kept either way."""
    from llmchat.commands import one_shot

    try:
        code = one_shot.run(talk, world, question, output)
    except one_shot.NoCode:
        _keep(talk, world)
        raise
    _keep(talk, world)
    if verbose:
        from llmchat.ui.status import statistics

        print("\n".join(statistics(talk)), file=world.stderr)
    return code


def _keep(talk: "Chat", world: World) -> None:
    """Keep the KV cache for `--continue`, unless the chat is to leave no trace."""
    if talk.history.path is not None:
        from llmchat.models import saved_kv

        saved_kv.keep(talk.engine, talk.session, talk.made_by, world)
