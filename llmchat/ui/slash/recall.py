"""The command that brings passages of past chats in: recall."""

from llmchat.attachments.docs_question import with_hits
from llmchat.conversation import Message
from llmchat.docs_material import MOST_PASSAGES
from llmchat.errors import UsageError
from llmchat.memory.types import Hit
from llmchat.models.past_chats import PastChats
from llmchat.models.sessions import saved_history
from llmchat.output.progress import ByteProgress
from llmchat.ui.slash.registry import Answer, command
from llmchat.ui.state import ReplState


@command(
    "recall", "QUESTION", "Answer from past chats: what was said then goes beside the question."
)
def recall(state: ReplState, rest: str) -> Answer:
    if not rest:
        raise UsageError("/recall takes a question", "`/sessions TEXT` searches for a text")
    hits = _said(state, rest)
    attached = dict(state.attached)
    try:
        text, files = state.take_attached()
        question = Message("user", rest, text, files=files)
        asked = with_hits(state.chat, question, hits)
    except BaseException:
        state.attached |= attached
        raise
    if asked is question:
        state.attached |= attached
        raise UsageError(f"no past chat fits `{rest}`", "`/sessions` lists them")
    return state.chat.ask(asked)


def _said(state: ReplState, question: str) -> list[Hit]:
    """The passages of past chats for a question, without those of this one."""
    past = PastChats(state.world, lambda line: state.print_note(f"note: {line}"))
    with saved_history(state.world) as history:
        session = state.chat.session if state.chat.history.path else None
        here = {record.id for record in history.messages(session)} if session else set[int]()
        found = past.recall(history, question, MOST_PASSAGES, here, ByteProgress(state.world))
    return [Hit(one.passage, one.score) for one in found]
