"""Commands for the last answer and the numbered code blocks: /copy, and `/save code`."""

from pathlib import Path

from llmchat.errors import UsageError
from llmchat.output.formatting import counted
from llmchat.ui import clipboard
from llmchat.ui.code_blocks import CodeBlock, answered_blocks
from llmchat.ui.slash.registry import Answer, command, number_of
from llmchat.ui.state import ReplState


@command(
    "copy",
    "[n|code]",
    "Copy the last answer, code block n or the last code block to the clipboard.",
    complete=lambda state, word: ["code", *_block_numbers(state)],
)
def copy(state: ReplState, rest: str) -> Answer:
    words = rest.removeprefix("code").split()
    if len(words) > 1:
        raise UsageError(f"/copy takes the number of one code block, not `{rest}`")
    text = block(state, words, "/copy").text if rest else _last_answer(state)
    where = clipboard.copy(text, state.world)
    state.print(f"{counted(len(text), 'character')} copied to {where}")
    return None


def save_code(state: ReplState, rest: str) -> None:
    """`/save code [N] FILE`: write code block N, or the last one, to a new file."""
    first, _, remainder = rest.partition(" ")
    has_number = first.isdecimal() and bool(remainder.strip())
    number, name = ([first], remainder.strip()) if has_number else ([], rest)
    if not name:
        raise UsageError("/save code takes a file", "`/save code 2 FILE` writes code block 2")
    found = block(state, number, "/save code")
    path = Path(name).expanduser()
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(found.text + "\n")
    except FileExistsError as error:
        raise UsageError(f"{path} exists already", "choose another name") from error
    state.print(f"{counted(found.text.count(chr(10)) + 1, 'line')} saved to {path}")


def block(state: ReplState, words: list[str], name: str) -> CodeBlock:
    """The code block with this number, or the last one."""
    blocks = _blocks(state)
    if not blocks:
        raise UsageError("this chat has no code block yet")
    number = number_of(words[0], name) if words else len(blocks)
    if not 1 <= number <= len(blocks):
        count = f"blocks 1 to {len(blocks)}" if len(blocks) > 1 else "one code block"
        raise UsageError(f"there is no code block {number}", f"this chat has {count}")
    return blocks[number - 1]


def _block_numbers(state: ReplState) -> list[str]:
    return [str(number) for number in range(1, len(_blocks(state)) + 1)]


def _blocks(state: ReplState) -> list[CodeBlock]:
    return answered_blocks(state.chat.conversation.messages)


def _last_answer(state: ReplState) -> str:
    for message in reversed(state.chat.conversation.messages):
        if message.role == "assistant":
            return message.text
    raise UsageError("there is no answer yet")
