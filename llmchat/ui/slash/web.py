"""The command for answers from the web."""

from llmchat.conversation import Message
from llmchat.errors import UsageError
from llmchat.tools.web.settings import WebSettings
from llmchat.ui.slash.registry import Answer, command
from llmchat.ui.state import ReplState
from llmchat.ui.web_question import with_web


@command("web", "QUESTION", "Search the web and answer from the pages found, with sources.")
def web(state: ReplState, rest: str) -> Answer:
    if not rest:
        raise UsageError("/web takes a question")
    settings = WebSettings.of(state.world, state.opener.options())
    settings.access()
    state.print_note("searching the web …")
    attached = dict(state.attached)
    try:
        text, files = state.take_attached()
        question = Message("user", rest, text, files=files)
        question = with_web(state.chat, question, settings)
    except BaseException:
        state.attached |= attached
        raise
    return state.chat.ask(question)
