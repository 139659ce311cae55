"""Commands for saved chats: sessions, load, save, rename, fork, export."""

from collections.abc import Iterable
from pathlib import Path

from llmchat.errors import LlmchatError, UsageError, any_of
from llmchat.history.export import EXPORTS
from llmchat.ui import recap, status
from llmchat.ui.slash.code import save_code
from llmchat.ui.slash.registry import Answer, command
from llmchat.ui.state import Talk, files_like


def _ids(talk: Talk, word: str) -> Iterable[tuple[str, str]]:
    return [
        (session.id, recap.about(session, talk.world.now()))
        for session in talk.chat.history.sessions(20)
    ]


@command("sessions", "[text]", "List the last saved chats, or find those that contain a text.")
def sessions(talk: Talk, rest: str) -> Answer:
    if rest:
        for hit in talk.chat.history.search(rest, 10):
            talk.say(
                status.cut(f"{hit.session}  {' '.join(hit.snippet.split())}", talk.width() - 1)
            )
        return None
    _list(talk)
    return None


@command("history", "", "Print this chat from its beginning.")
def history(talk: Talk, rest: str) -> Answer:
    if not talk.chat.conversation.spoken:
        raise UsageError("the chat is empty")
    recap.show(talk, talk.chat.conversation.messages)
    return None


def _list(talk: Talk) -> None:
    found = talk.chat.history.sessions(10)
    if not found:
        raise UsageError("there are no saved chats")
    for session in found:
        here = "*" if session.id == talk.chat.session else " "
        talk.say(
            status.cut(
                f"{here} {session.id}  {recap.about(session, talk.world.now())}",
                max(talk.width() - 1, 20),
            )
        )


@command(
    "load",
    "[session]",
    "Continue a saved chat with its model and settings; without a name, list the last chats.",
    aliases=("open",),
    complete=_ids,
)
def load(talk: Talk, rest: str) -> Answer:
    if not rest:
        _list(talk)
        talk.say("`/load ID` continues one; its first letters are enough, and Tab completes them")
        return None
    session = talk.chat.history.find(rest)
    try:
        talk.load(session)
    except LlmchatError as error:
        talk.say(f"note: its model, {session.model}, cannot be opened: {error.message}")
        talk.say(f"note: continuing with {talk.chat.preset.name}; /model or /lora choose another")
        talk.chat.open(session.id, session.settings)
    status.recount(talk.chat)
    recap.last_exchange(talk)
    return None


@command(
    "save",
    "[[code [n]] file]",
    "Write this chat, as /export does, or code block n, or the last one, to a file; alone, show where chats are saved.",
    complete=lambda talk, word: files_like(word),
)
def save(talk: Talk, rest: str) -> Answer:
    if rest.split()[:1] == ["code"]:
        save_code(talk, rest.removeprefix("code").strip())
        return None
    if rest:
        return export(talk, rest)
    if talk.chat.history.path is None:
        raise UsageError("this chat is not saved (--no-log)", "/save FILE writes it to a file")
    if talk.chat.session is None:
        raise UsageError("the chat is empty")
    talk.say(f"saved as {talk.chat.session} in {talk.chat.history.path}")
    return None


@command("rename", "title", "Give this chat another title.")
def rename(talk: Talk, rest: str) -> Answer:
    if not rest or talk.chat.session is None:
        raise UsageError(
            "/rename takes the new title" if talk.chat.session else "the chat is empty"
        )
    talk.chat.history.rename(talk.chat.session, rest)
    talk.say(f"renamed: {rest}")
    return None


@command(
    "fork", "", "Continue in a copy of this chat; the original stays as it is.", aliases=("branch",)
)
def fork(talk: Talk, rest: str) -> Answer:
    before = talk.chat.session
    talk.say(f"continuing in {talk.chat.fork()}; {before} stays as it is")
    return None


@command(
    "export",
    "file",
    "Write this chat to a file: .md, .json, .html, or .jsonl for training.",
    complete=lambda talk, word: files_like(word),
)
def export(talk: Talk, rest: str) -> Answer:
    path = Path(rest).expanduser()
    form = path.suffix.removeprefix(".")
    if form not in EXPORTS:
        raise UsageError("the file's name must end in " + any_of([f".{name}" for name in EXPORTS]))
    if path.exists():
        raise UsageError(f"{path} exists already", "choose another name")
    if talk.chat.session is None:
        raise UsageError("the chat is empty")
    session = talk.chat.history.find(talk.chat.session)
    path.write_text(EXPORTS[form](session, talk.chat.history.messages(session.id)), "utf-8")
    talk.say(f"saved to {path}")
    return None
