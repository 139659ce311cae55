"""Commands that move the conversation: new, regen, undo, edit, continue, alt, file, exit."""

from llmchat.errors import UsageError
from llmchat.formatting import counted
from llmchat.ui import status
from llmchat.ui.slash.registry import Answer, Leave, command, number_of
from llmchat.ui.state import Talk, files_like


@command("exit", "", "Leave; the chat is saved.", aliases=("quit", "bye"))
def leave(talk: Talk, rest: str) -> Answer:
    raise Leave


@command(
    "new", "", "Begin a new chat with the same model and system text.", aliases=("clear", "reset")
)
def new(talk: Talk, rest: str) -> Answer:
    talk.chat.restart()
    talk.say("new chat")
    return None


@command(
    "regen",
    "[hint]",
    "Answer the last question again, with a hint such as `shorter`; the old answer is kept.",
    aliases=("retry", "regenerate"),
)
def regenerate(talk: Talk, rest: str) -> Answer:
    if (
        not rest
        and talk.chat.sampling.temperature == 0
        and talk.chat.answered_by == talk.chat.made_by
    ):
        talk.say("temperature 0 gives the same answer again; try /set temperature 0.7")
    return talk.chat.regenerate(rest)


@command("continue", "", "Continue the last answer where it stopped.", aliases=("more",))
def resume(talk: Talk, rest: str) -> Answer:
    return talk.chat.resume()


@command(
    "alt",
    "[n|next|prev]",
    "Show another answer to the last question, by its number; ← and → on an empty line step through them.",
    complete=lambda t, w: ["next", "prev"],
)
def alternative(talk: Talk, rest: str) -> Answer:
    number, count = talk.chat.alternative(_step(talk, rest))
    status.recount(talk.chat)
    hint = f" (hint: {talk.chat.hint})" if talk.chat.hint else ""
    talk.say(f"answer {number} of {count}{hint}:")
    talk.show(talk.chat.conversation.messages[-1].text)
    return None


def _step(talk: Talk, rest: str) -> int:
    """How many answers further on the wanted one is."""
    if rest in ("", "next", "prev"):
        return -1 if rest == "prev" else 1
    if not rest.isdecimal():
        raise UsageError(f"/alt takes a number, next or prev, not `{rest}`")
    number, count = talk.chat.alternative(0)
    if not 1 <= int(rest) <= count:
        raise UsageError(
            f"there is no answer {rest}", f"the last question has {count}; /regen makes another"
        )
    return int(rest) - number


@command("undo", "[n]", "Remove the last question and its answer, or the last n of them.")
def undo(talk: Talk, rest: str) -> Answer:
    before = talk.chat.conversation.question
    talk.chat.undo(number_of(rest or "1", "/undo"))
    status.recount(talk.chat)
    index = talk.chat.conversation.question
    if index == before:
        talk.say("the summary was removed")
        return None
    talk.say(
        f"back to: {talk.chat.conversation.messages[index].text}"
        if index >= 0
        else "back to the beginning"
    )
    return None


@command(
    "edit", "[text]", "Ask the last question again with another text, or change it in your editor."
)
def edit(talk: Talk, rest: str) -> Answer:
    index = talk.chat.conversation.question
    if index < 0:
        raise UsageError("there is no question to edit")
    question = talk.chat.conversation.messages[index]
    text = rest or talk.edit_text(question.text).strip()
    if not text or text == question.text:
        talk.say("nothing changed")
        return None
    talk.say(f"asking instead: {text}")
    talk.chat.undo()
    return talk.chat.send(text, question.input, question.files)


@command(
    "file",
    "[path|off]",
    "Attach a text file to the next message, and print its tokens.",
    complete=lambda talk, word: files_like(word),
)
def file(talk: Talk, rest: str) -> Answer:
    if rest == "off":
        talk.attached.clear()
        talk.say("nothing is attached")
    elif rest:
        tokens = talk.attach(rest)
        limit = min(
            talk.chat.preset.context.tokens or talk.chat.engine.context, talk.chat.engine.context
        )
        talk.say(
            f"{rest}: {counted(tokens, 'token')} of a window of {limit:,}; attached to your next message"
        )
        if tokens >= limit:
            talk.say("note: the file is larger than the window; /file off removes it")
    else:
        for name, text in talk.attached.items():
            talk.say(f"{name}: {counted(talk.chat.engine.count(text), 'token')}")
        if not talk.attached:
            talk.say("nothing is attached")
    return None
