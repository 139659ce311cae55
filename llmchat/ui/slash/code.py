"""Commands for the last answer and the numbered code blocks of a chat: copy, and the part of save that writes a block."""

from pathlib import Path

from llmchat.errors import UsageError
from llmchat.formatting import counted
from llmchat.ui import clipboard
from llmchat.ui.code_blocks import CodeBlock, answered_blocks
from llmchat.ui.slash.registry import Answer, command, number_of
from llmchat.ui.state import Talk


@command(
    "copy",
    "[n|code]",
    "Copy the last answer, code block n, or the last code block, to the clipboard.",
    complete=lambda talk, word: [
        "code",
        *(str(number) for number in range(1, len(_blocks(talk)) + 1)),
    ],
)
def copy(talk: Talk, rest: str) -> Answer:
    words = rest.removeprefix("code").split()
    if len(words) > 1:
        raise UsageError(f"/copy takes the number of one code block, not `{rest}`")
    text = block(talk, words, "/copy").text if rest else _last_answer(talk)
    where = clipboard.copy(text, talk.world)
    talk.say(f"{counted(len(text), 'character')} copied to {where}")
    return None


def save_code(talk: Talk, rest: str) -> None:
    """`/save code [N] FILE`: write code block N, or the last one, to a new file."""
    words = rest.split(maxsplit=1)
    number, name = (
        ([words[0]], words[1]) if len(words) == 2 and words[0].isdecimal() else ([], rest)
    )
    if not name:
        raise UsageError("/save code takes a file", "`/save code 2 FILE` writes code block 2")
    found = block(talk, number, "/save code")
    path = Path(name).expanduser()
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(found.text + "\n")
    except FileExistsError as error:
        raise UsageError(f"{path} exists already", "choose another name") from error
    talk.say(f"{counted(found.text.count(chr(10)) + 1, 'line')} saved to {path}")


def block(talk: Talk, words: list[str], name: str) -> CodeBlock:
    """The code block with this number, or the last one."""
    blocks = _blocks(talk)
    if not blocks:
        raise UsageError("this chat has no code block yet")
    number = number_of(words[0], name) if words else len(blocks)
    if not 1 <= number <= len(blocks):
        count = f"blocks 1 to {len(blocks)}" if len(blocks) > 1 else "one code block"
        raise UsageError(f"there is no code block {number}", f"this chat has {count}")
    return blocks[number - 1]


def _blocks(talk: Talk) -> list[CodeBlock]:
    return answered_blocks(talk.chat.conversation.messages)


def _last_answer(talk: Talk) -> str:
    answer = next(
        (one.text for one in reversed(talk.chat.conversation.messages) if one.role == "assistant"),
        None,
    )
    if answer is None:
        raise UsageError("there is no answer yet")
    return answer
