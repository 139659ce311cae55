"""Commands that move the conversation: new, regen, undo, edit, continue, alt, file, exit."""

from llmchat.errors import UsageError
from llmchat.formatting import counted
from llmchat.ui import status
from llmchat.ui.slash.registry import Answer, LeaveRepl, command, number_of
from llmchat.ui.state import ReplState, paths_starting_with


@command("exit", "", "Leave; the chat is saved.", aliases=("quit", "bye"))
def leave(state: ReplState, rest: str) -> Answer:
    raise LeaveRepl


@command(
    "new", "", "Begin a new chat with the same model and system text.", aliases=("clear", "reset")
)
def new(state: ReplState, rest: str) -> Answer:
    state.chat.restart()
    state.print("new chat")
    return None


@command(
    "regen",
    "[hint]",
    "Answer the last question again, with a hint such as `shorter`; the old answer is kept.",
    aliases=("retry", "regenerate"),
)
def regenerate(state: ReplState, rest: str) -> Answer:
    if (
        not rest
        and state.chat.sampling.temperature == 0
        and state.chat.answered_by == state.chat.made_by
    ):
        state.print("temperature 0 gives the same answer again; try /set temperature 0.7")
    return state.chat.regenerate(rest)


@command("continue", "", "Continue the last answer where it stopped.", aliases=("more",))
def resume(state: ReplState, rest: str) -> Answer:
    return state.chat.resume()


@command(
    "alt",
    "[n|next|prev]",
    "Show another answer to the last question, by its number; ← and → on an empty line step through them.",
    complete=lambda t, w: ["next", "prev"],
)
def alternative(state: ReplState, rest: str) -> Answer:
    number, count = state.chat.alternative(_step(state, rest))
    status.recount(state.chat)
    hint = f" (hint: {state.chat.hint})" if state.chat.hint else ""
    state.print(f"answer {number} of {count}{hint}:")
    state.print_answer(state.chat.conversation.messages[-1].text)
    return None


def _step(state: ReplState, rest: str) -> int:
    """How many answers further on the wanted one is."""
    if rest in ("", "next", "prev"):
        return -1 if rest == "prev" else 1
    if not rest.isdecimal():
        raise UsageError(f"/alt takes a number, next or prev, not `{rest}`")
    number, count = state.chat.alternative(0)
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
    state.print(
        f"back to: {state.chat.conversation.messages[index].text}"
        if index >= 0
        else "back to the beginning"
    )
    return None


@command(
    "edit", "[text]", "Ask the last question again with another text, or change it in your editor."
)
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
    return state.chat.send(text, question.input, question.files)


@command(
    "file",
    "[path|off]",
    "Attach a text file to the next message, and print its tokens.",
    complete=lambda state, word: paths_starting_with(word),
)
def file(state: ReplState, rest: str) -> Answer:
    if rest == "off":
        state.attached.clear()
        state.print("nothing is attached")
    elif rest:
        tokens = state.attach(rest)
        limit = min(
            state.chat.preset.context.tokens or state.chat.engine.context, state.chat.engine.context
        )
        state.print(
            f"{rest}: {counted(tokens, 'token')} of a window of {limit:,}; attached to your next message"
        )
        if tokens >= limit:
            state.print("note: the file is larger than the window; /file off removes it")
    else:
        for name, text in state.attached.items():
            state.print(f"{name}: {counted(state.chat.engine.count(text), 'token')}")
        if not state.attached:
            state.print("nothing is attached")
    return None
