"""An answer with actions: generate, run what it triggers, write the result, continue."""

from collections.abc import Callable, Generator, Sequence

from msgspec import Struct

from llmchat.actions import Action, Watcher, watched
from llmchat.calls import Call
from llmchat.engines import Chunk
from llmchat.reply_parser import ReplyEvent
from llmchat.tools.toolbox import Result, Toolbox
from llmchat.window import Window


class ToolStarted(Struct, frozen=True):
    """A call that is about to run, or to ask for permission.

    number: among the calls of the chat; 0 for an action within an answer.
    """

    call: Call
    number: int = 0


Generated = Generator[Window | ReplyEvent]


def active_actions(actions: Sequence[Action], tools: Toolbox) -> list[Action]:
    """The actions whose tools are on. A tool that is not there yet is turned on."""
    known = {tool.name for tool in tools.tools}
    for action in actions:
        if action.tool_name not in known:
            tools.turn_on(action.tool)
    on = {tool.name for tool in tools.active}
    return [action for action in actions if action.tool_name in on]


def with_actions(
    generate: Callable[[str], Generated],
    begun: str,
    actions: Sequence[Action],
    tools: Toolbox,
    run: Callable[[Call], Result],
) -> Generator[Window | ReplyEvent | ToolStarted | Result]:
    """The events of an answer and of its actions.

    generate: continues an answer after a text. After `tools.max_rounds` actions a trigger is text.
    """
    text = begun
    parameters = {tool.name: tool.parameters for tool in tools.active}
    for number in range(1, tools.max_rounds + 1 if actions else 1):
        watcher = Watcher(actions)
        for event in watched(generate(text), watcher):
            text += event.text if isinstance(event, Chunk) else ""
            yield event
        if watcher.found is None:
            return
        call = watcher.found.call(number, parameters[watcher.found.action.tool_name])
        yield ToolStarted(call)
        result = run(call)
        yield result
        written = watcher.found.action.written(result.text)
        text += written
        yield Chunk(written)
    yield from generate(text)
