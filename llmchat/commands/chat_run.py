"""Open the model of a chat, then answer its question or run the REPL."""

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from llmchat.attachments.documents import Documents
from llmchat.attachments.large_material import with_material
from llmchat.beginning import begin
from llmchat.chat import Chat
from llmchat.commands import models, one_shot
from llmchat.commands.chat_start import Asked, Start
from llmchat.commands.open_tools import open_tools, print_notes
from llmchat.conversation import Message
from llmchat.errors import ModelNotFound, NotPulled
from llmchat.memory.facts import Facts
from llmchat.memory.meaning import Meaning
from llmchat.memory.of_chat import ChatMemory
from llmchat.models import saved_kv
from llmchat.models.embedding import embedder_here
from llmchat.models.open_model import OpenModel, open_in_background
from llmchat.models.opener import ModelOpener
from llmchat.tools.toolbox import Toolbox

if TYPE_CHECKING:
    from llmchat.history import History


def run(start: Start, asked: Asked | None, history: "History", stack: ExitStack) -> int:
    """Answer the question, or open the REPL; returns the exit code."""
    world, flags, options = start.world, start.flags, start.settings.options
    asks_on = world.stderr if asked else None
    silent = flags.quiet or flags.json
    tools = stack.enter_context(open_tools(world, start.settings, asks_on, quiet=silent))
    documents = stack.enter_context(Documents(world, options.docs, keep=not options.no_log))
    opener = ModelOpener(
        world, start.given, start.earlier.id if start.earlier else None, start.opens, start.sets
    )
    talk = _begun(start, _opened(start, asked, opener), history, tools, documents)
    if not flags.quiet:
        print_notes(tools, world)
    if asked:
        return _answer_once(start, talk, asked, documents)
    from llmchat.ui.repl import run as run_repl

    code = run_repl(
        talk,
        world,
        opener,
        plain=options.plain,
        vi=options.vi,
        documents=documents,
        role=start.role,
    )
    _keep(start, talk)
    return code


def _opened(start: Start, asked: Asked | None, opener: ModelOpener) -> OpenModel:
    """The model: in the background server if it is loaded there, or by `opener`."""
    flags = start.flags
    if asked and not flags.no_server:
        served = open_in_background(start.world, start.options, start.opens)
        if served is not None:
            return served
    return _open(opener, later=asked is None, waiting=not (flags.quiet or flags.json))


def _begun(
    start: Start, opened: OpenModel, history: "History", tools: Toolbox, documents: Documents
) -> Chat:
    """The chat of the model, with the tools, memory and documents of its options."""
    world, options = start.world, start.settings.options
    talk = begin(opened, history, start.earlier, start.settings, start.kept)
    talk.role = start.role.spec if start.role else ""
    talk.tools = tools
    meaning = Meaning(partial(embedder_here, world))
    talk.memory = ChatMemory(Facts.of(world), options.memory, meaning)
    talk.memory.begin(len(talk.conversation.messages))
    documents.note = one_shot.note_on(world, quiet=start.flags.quiet)
    if start.earlier and not start.given.get("docs"):
        documents.resume(start.earlier)
    talk.docs = documents.named
    return talk


def _answer_once(start: Start, talk: Chat, asked: Asked, documents: Documents) -> int:
    world, flags, options = start.world, start.flags, start.settings.options
    question = asked.question
    if asked.web:
        question = one_shot.from_web(talk, world, question, asked.web, quiet=flags.quiet)
    output = one_shot.Output(
        flags.json,
        not flags.no_stream,
        options.plain,
        flags.quiet,
        flags.extract,
        flags.answers,
        asked.turns,
    )
    answer = partial(_answer, start, talk, output=output)
    if flags.map:
        keep = not options.no_log
        return one_shot.map_all(talk, world, question, answer, flags.quiet, keep=keep)
    known = {one.name: one.document for one in asked.files}
    return answer(with_material(talk, question, documents, known))


def _open(opener: ModelOpener, *, later: bool, waiting: bool) -> OpenModel:
    """Open the model; where it is not pulled, offer to pull it first."""
    while True:
        try:
            return opener.open_later() if later else opener.open_when_asked(waiting=waiting)
        except NotPulled as error:
            if not models.offer(opener.world, opener.options()):
                raise _with_way_out(error, opener) from error
        except ModelNotFound as error:
            raise _with_way_out(error, opener) from error


def _with_way_out(error: ModelNotFound, opener: ModelOpener) -> ModelNotFound:
    """The error, with a hint for a session whose model is gone."""
    if error.hint or not opener.continues:
        return error
    return type(error)(error.message, "`-m MODEL` continues the session with another model")


def _answer(start: Start, talk: Chat, question: Message, *, output: one_shot.Output) -> int:
    """Answer one question; returns the exit code. What the model has read is kept either way."""
    try:
        code = one_shot.run(talk, start.world, question, output)
    except one_shot.NoCode:
        _keep(start, talk)
        raise
    _keep(start, talk)
    if start.flags.verbose:
        from llmchat.ui.status import statistics

        print("\n".join(statistics(talk)), file=start.world.stderr)
    return code


def _keep(start: Start, talk: Chat) -> None:
    """Keep the KV cache for `--continue`, unless the chat is to leave no trace."""
    if talk.history.path is not None:
        saved_kv.keep(talk.engine, talk.session, talk.made_by, start.world)
