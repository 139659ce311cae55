"""Commands for saved chats: sessions, load, save, rename, fork, export."""

from collections.abc import Iterable
from pathlib import Path

from llmchat.errors import LlmchatError, UsageError, any_of
from llmchat.history.export import export_forms, exporter
from llmchat.ui import status, transcript
from llmchat.ui.fact_proposals import offer_facts
from llmchat.ui.slash.code import save_code
from llmchat.ui.slash.registry import Answer, command
from llmchat.ui.state import ReplState, paths_starting_with


def _ids(state: ReplState, word: str) -> Iterable[tuple[str, str]]:
    now = state.world.now()
    recent = state.chat.history.sessions(20)
    return [(session.id, transcript.describe(session, now)) for session in recent]


@command("sessions", "[text]", "List the latest saved chats, or find those that contain a text.")
def sessions(state: ReplState, rest: str) -> Answer:
    if rest:
        for hit in state.chat.history.search(rest, 10):
            state.print(
                status.cut(f"{hit.session}  {' '.join(hit.snippet.split())}", state.width() - 1)
            )
        return None
    _list(state)
    return None


@command("history", "", "Print this chat from the beginning.")
def history(state: ReplState, rest: str) -> Answer:
    if not state.chat.conversation.spoken:
        raise UsageError("the chat is empty")
    transcript.print_messages(state, state.chat.conversation.messages)
    return None


def _list(state: ReplState) -> None:
    found = state.chat.history.sessions(10)
    if not found:
        raise UsageError("there are no saved chats")
    for session in found:
        mark = "*" if session.id == state.chat.session else " "
        line = f"{mark} {session.id}  {transcript.describe(session, state.world.now())}"
        state.print(status.cut(line, max(state.width() - 1, 20)))


@command(
    "load",
    "[session]",
    "Continue a saved chat with its model and settings; alone, list the latest ones.",
    aliases=("open",),
    complete=_ids,
)
def load(state: ReplState, rest: str) -> Answer:
    if not rest:
        _list(state)
        state.print(
            "`/load ID` continues one; its first letters are enough, and Tab completes them"
        )
        return None
    session = state.chat.history.find(rest)
    offer_facts(state)
    try:
        state.load(session)
    except LlmchatError as error:
        state.print(f"note: its model, {session.model}, cannot be opened: {error.message}")
        state.print(
            f"note: continuing with {state.chat.preset.name}; /model or /lora choose another"
        )
        state.open_session(session)
    status.recount(state.chat)
    transcript.print_last_exchange(state)
    return None


@command(
    "save",
    "[[code [n]] file]",
    "Save this chat or a code block to a file; alone, show where chats are stored.",
    complete=lambda state, word: paths_starting_with(word),
)
def save(state: ReplState, rest: str) -> Answer:
    if rest.split()[:1] == ["code"]:
        save_code(state, rest.removeprefix("code").strip())
        return None
    if rest:
        return export(state, rest)
    if state.chat.history.path is None:
        raise UsageError("this chat is not saved (--no-log)", "/save FILE writes it to a file")
    if state.chat.session is None:
        raise UsageError("the chat is empty")
    state.print(f"saved as {state.chat.session} in {state.chat.history.path}")
    return None


@command("rename", "title", "Change the title of this chat.")
def rename(state: ReplState, rest: str) -> Answer:
    if not rest or state.chat.session is None:
        raise UsageError(
            "/rename takes the new title" if state.chat.session else "the chat is empty"
        )
    state.chat.history.rename(state.chat.session, rest)
    state.print(f"renamed: {rest}")
    return None


@command(
    "fork", "", "Continue in a copy of this chat; the original is unchanged.", aliases=("branch",)
)
def fork(state: ReplState, rest: str) -> Answer:
    before = state.chat.session
    state.print(f"continuing in {state.chat.fork()}; {before} is unchanged")
    return None


@command(
    "export",
    "file",
    "Write this chat to a file: .md, .json, .html, or .jsonl for training.",
    complete=lambda state, word: paths_starting_with(word),
)
def export(state: ReplState, rest: str) -> Answer:
    path = Path(rest).expanduser()
    form = path.suffix.removeprefix(".")
    if form not in (known := export_forms()):
        raise UsageError("the file's name must end in " + any_of([f".{name}" for name in known]))
    if path.exists():
        raise UsageError(f"{path} exists already", "choose another name")
    if state.chat.session is None:
        raise UsageError("the chat is empty")
    session = state.chat.history.find(state.chat.session)
    text = exporter(form)(session, state.chat.history.messages(session.id))
    path.write_text(text, "utf-8")
    state.print(f"saved to {path}")
    return None
