"""Commands for the conversation: new, regen, continue, alt, undo, edit, file, exit."""

from msgspec.structs import replace

from llmchat.attachments.docs_question import with_documents
from llmchat.errors import UsageError
from llmchat.found_passages import without_passages
from llmchat.output.formatting import counted
from llmchat.ui import status
from llmchat.ui.fact_proposals import offer_facts
from llmchat.ui.slash.registry import Answer, LeaveRepl, command, number_of
from llmchat.ui.state import ReplState, paths_starting_with


@command("exit", "", "Leave the chat; it is saved.", aliases=("quit", "bye"))
def leave_repl(state: ReplState, rest: str) -> Answer:
    raise LeaveRepl


@command(
    "new", "", "Start a new chat with the same model and system text.", aliases=("clear", "reset")
)
def new(state: ReplState, rest: str) -> Answer:
    offer_facts(state)
    state.chat.restart()
    state.print("new chat")
    return None


@command(
    "regen",
    "[hint]",
    "Answer the last question again, with a hint if you like; the old answer is kept.",
    aliases=("retry", "regenerate"),
)
def regenerate(state: ReplState, rest: str) -> Answer:
    chat = state.chat
    same_model = chat.answered_by == chat.made_by
    if not rest and chat.sampling.temperature == 0 and same_model:
        state.print("temperature 0 gives the same answer again; try /set temperature 0.7")
    return chat.regenerate(rest)


@command("continue", "", "Continue the last answer where it stopped.", aliases=("more",))
def resume(state: ReplState, rest: str) -> Answer:
    return state.chat.resume()


@command(
    "alt",
    "[n|next|prev]",
    "Show another answer to the last question; ← and → on an empty line do the same.",
    complete=lambda state, word: ["next", "prev"],
)
def alternative(state: ReplState, rest: str) -> Answer:
    number, count = state.chat.show_alternative(_step(state, rest))
    status.recount(state.chat)
    hint = f" (hint: {state.chat.last_hint})" if state.chat.last_hint else ""
    state.print(f"answer {number} of {count}{hint}:")
    state.print_answer(state.chat.conversation.messages[-1].text)
    return None


def _step(state: ReplState, rest: str) -> int:
    """Steps from the current answer to the one that is asked for."""
    if rest in ("", "next", "prev"):
        return -1 if rest == "prev" else 1
    if not rest.isdecimal():
        raise UsageError(f"/alt takes a number, next or prev, not `{rest}`")
    number, count = state.chat.show_alternative(0)
    if not 1 <= int(rest) <= count:
        raise UsageError(
            f"there is no answer {rest}", f"the last question has {count}; /regen makes another"
        )
    return int(rest) - number


@command("undo", "[n]", "Remove the last question and its answer, or the last n of them.")
def undo(state: ReplState, rest: str) -> Answer:
    before = state.chat.conversation.question
    state.chat.undo(number_of(rest or "1", "/undo"))
    status.recount(state.chat)
    index = state.chat.conversation.question
    if index == before:
        state.print("the summary was removed")
        return None
    if index < 0:
        state.print("back to the beginning")
    else:
        state.print(f"back to: {state.chat.conversation.messages[index].text}")
    return None


@command("edit", "[text]", "Change the last question, here or in your editor, and ask it again.")
def edit(state: ReplState, rest: str) -> Answer:
    index = state.chat.conversation.question
    if index < 0:
        raise UsageError("there is no question to edit")
    question = state.chat.conversation.messages[index]
    text = rest or state.edit_text(question.text).strip()
    if not text or text == question.text:
        state.print("nothing changed")
        return None
    state.print(f"asking instead: {text}")
    state.chat.undo()
    asked = replace(without_passages(question), text=text)
    return state.chat.ask(with_documents(state.chat, asked, state.documents))


@command(
    "file",
    "[path|URL|off]",
    "Attach a file, a folder, a pattern or a web page to the next message; `off` removes what is"
    " attached.",
    complete=lambda state, word: paths_starting_with(word),
)
def file(state: ReplState, rest: str) -> Answer:
    if rest == "off":
        state.attached.clear()
        state.given.clear()
    elif rest:
        _attach(state, rest)
        return None
    for name, text in state.attached.items():
        state.print(f"{name}: {counted(state.chat.engine.count(text), 'token')}")
    if not state.attached:
        state.print("nothing is attached")
    return None


def _attach(state: ReplState, name: str) -> None:
    tokens = state.attach(name)
    context = state.chat.engine.context
    limit = min(state.chat.preset.context.tokens or context, context)
    size = f"{counted(tokens, 'token')} of a window of {limit:,}"
    state.print(f"{name}: {size}; attached to your next message")
    if tokens >= limit:
        state.print(
            "note: it is larger than the window, so it is searched for your questions; /file off"
            " removes it"
        )
