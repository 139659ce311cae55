"""`llmchat chat`: the model of the flags, or of an earlier session, answers once or in a REPL."""

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import typer

from llmchat.commands import chat_flags, models, options
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


@options.with_sampling
@options.with_options(
    "model", "base", "adapter", "format", "weights", "kv", "engine", "url", "draft", "device",
    "revision",
    "trust_remote_code", "role", "system", before="file",
)  # fmt: skip
@options.with_options("tool", "mcp", "allow", "max_rounds", "root", before="json")
@options.with_options(
    "docs",
    "gitignore",
    "context",
    "policy",
    "turns",
    "recall",
    "max_tokens",
    "offline",
    before="json",
)
@options.with_options("searxng_url", "allow_private", before="json")
def chat(
    ctx: typer.Context,
    prompt: chat_flags.Prompt = None,
    file: chat_flags.File = None,
    map: chat_flags.Map = False,
    continue_: chat_flags.Continue = False,
    session: chat_flags.Session = None,
    no_log: chat_flags.NoLog = None,
    memory: chat_flags.Memory = None,
    json: options.Json = False,
    no_stream: chat_flags.NoStream = False,
    plain: chat_flags.Plain = None,
    theme: chat_flags.Theme = None,
    extract: chat_flags.Extract = False,
    answers: chat_flags.Answers = 1,
    vi: chat_flags.Vi = None,
    schema: chat_flags.Schema = None,
    regex: chat_flags.Regex = None,
    choice: chat_flags.Choice = None,
    grammar: chat_flags.Grammar = None,
    web: chat_flags.Web = False,
    no_server: chat_flags.NoServer = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    **shared: Any,
) -> None:
    """Chat with a model: a REPL on a terminal, one answer for a PROMPT or piped text."""
    from llmchat.beginning import begin, role_of
    from llmchat.commands import one_shot
    from llmchat.memory.facts import Facts
    from llmchat.memory.meaning import Meaning
    from llmchat.memory.of_chat import ChatMemory
    from llmchat.models.embedding import embedder_here
    from llmchat.models.open_model import open_in_background
    from llmchat.models.sessions import open_history
    from llmchat.roles import with_role
    from llmchat.ui.documents import Documents
    from llmchat.ui.given_files import read_given
    from llmchat.ui.large_material import with_material

    given = options.given(ctx) | {
        "schema": of_flags(schema, regex, choice or (), grammar),
        "memory": {True: "propose", False: "off", None: None}[memory],
    }
    settings = resolve(ctx.obj, given)
    _use_theme(ctx.obj, settings)
    world: World = ctx.obj.in_offline_mode() if settings.options.offline else ctx.obj
    if settings.options.tool == ("list",):
        return print_tools(world)
    note = one_shot.note_on(world, quiet=quiet)
    with ExitStack() as stack:
        stack.enter_context(orderly_end())
        history = stack.enter_context(open_history(world, settings))
        earlier = _earlier_session(history, session, last=continue_)
        role, sets = role_of(world, settings, earlier, note)
        if earlier:
            given |= _flags_of_session(earlier, settings, world, quiet=quiet)
        flags = with_role(sets, given)
        settings = resolve(world, flags)
        given_texts = read_given(world, file or (), settings.options, note)
        asks_in = None if role and role.once and earlier else role
        question = one_shot.question(world, prompt, given_texts, asks_in)
        turns: tuple[str, ...] = ()
        if asks_in and question:
            question, turns = asks_in.questions(question, begun=False)
        if extract and not question:
            raise _extract_needs_a_question()
        if answers > 1:
            _check_answers(question, extract=extract)
        if map:
            one_shot.check_map(question)
        web_settings = _web_settings(world, settings, question) if web else None
        asks_on = None if question is None else world.stderr
        tools = stack.enter_context(open_tools(world, settings, asks_on, quiet=quiet or json))
        documents = stack.enter_context(
            Documents(world, settings.options.docs, keep=not settings.options.no_log)
        )
        opens = dict(earlier.opens) if earlier else {}
        opened = open_in_background(world, flags, opens) if question and not no_server else None
        if opened is None:
            from llmchat.models.opener import ModelOpener

            opener = ModelOpener(world, given, earlier.id if earlier else None, opens, sets)
            opened = _open(opener, later=question is None, waiting=not (quiet or json))
        kept = flags if settings.origins["role"] == "flag" else given
        talk = begin(opened, history, earlier, settings, kept)
        talk.role = role.spec if role else ""
        meaning = Meaning(partial(embedder_here, world))
        talk.tools = tools
        talk.memory = ChatMemory(Facts.of(world), settings.options.memory, meaning)
        talk.memory.begin(len(talk.conversation.messages))
        documents.note = note
        if earlier and not given.get("docs"):
            documents.resume(earlier)
        talk.docs = documents.named
        if not quiet:
            print_notes(tools, world)
        if question:
            if web_settings:
                question = one_shot.from_web(talk, world, question, web_settings, quiet=quiet)
            plain_text = settings.options.plain
            output = one_shot.Output(
                json, not no_stream, plain_text, quiet, extract, answers, turns
            )
            if map:
                keep = not settings.options.no_log
                answer = partial(_answer, talk, world, output=output, verbose=verbose)
                raise typer.Exit(one_shot.map_all(talk, world, question, answer, quiet, keep=keep))
            known = {one.name: one.document for one in given_texts}
            question = with_material(talk, question, documents, known)
            code = _answer(talk, world, question, output, verbose=verbose)
        else:
            from llmchat.ui.repl import run

            plain_text, vi_keys = settings.options.plain, settings.options.vi
            code = run(
                talk, world, opener, plain=plain_text, vi=vi_keys, documents=documents, role=role
            )
            _keep(talk, world)
        raise typer.Exit(code)


def _use_theme(world: World, settings: Settings) -> None:
    """Draw with the theme of the options. Where nothing is drawn, a wrong one is no error."""
    from llmchat.ui import themes

    name, origin = settings.options.theme, settings.origins["theme"]
    if not world.stdout.isatty() and origin != "flag":
        return
    try:
        themes.use(world, name)
    except UsageError as error:
        if origin == "flag":
            raise
        raise UsageError(f"{origin}: {error.message}", error.hint) from error


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
