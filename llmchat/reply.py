"""The path of one message, up to the engine and back.

user text → Conversation → Window → Prompt → Engine → Chunks
"""

from collections.abc import Generator
from contextlib import closing, suppress

from msgspec.structs import replace

from llmchat import thinking, tool_syntax
from llmchat.calls import ToolRequest
from llmchat.conversation import Conversation
from llmchat.engines import Counter, Engine, Sampling
from llmchat.engines.capabilities import (
    FollowsGrammars,
    InBackground,
    SendsMessages,
    SendsTools,
    unwrap,
)
from llmchat.errors import ContextOverflow, LlmchatError, UsageError
from llmchat.presets import Preset
from llmchat.reply_parser import GenerationRequest, ReplyEvent, ReplyParser
from llmchat.window import Window, fit


def reply(
    conversation: Conversation,
    preset: Preset,
    engine: Engine,
    sampling: Sampling,
    tools: ToolRequest | None = None,
) -> Generator[Window | ReplyEvent]:
    """Yield the window that is sent, then thinking, the answer in chunks and tool calls, then one
    Finish.
    """
    request = _request_for(conversation, preset, engine, sampling, tools)
    yield request.window
    parser = ReplyParser(preset, request)
    with closing(engine.stream(request.prompt, request.sampling)) as events:
        for event in events:
            yield from parser.feed(event)


def build_request(
    conversation: Conversation,
    preset: Preset,
    engine: Counter,
    context: int,
    sampling: Sampling,
    *,
    reserve: bool = True,
    tools: ToolRequest | None = None,
) -> GenerationRequest:
    """The path up to the engine, which holds `context` tokens.

    If the conversation ends with an answer, the model continues it. reserve: keep room for
    max_tokens; otherwise any room is enough. tools: what the prompt offers; the answer is then
    bound to calls that fit their schemas, or to the sampling's own structure.
    """
    preset, sampling, conversation, tools = _prepared(conversation, preset, engine, sampling, tools)
    most = sampling.max_tokens if reserve else 1
    window, prompt = fit(conversation, preset, engine, context, most)
    resumed = conversation.spoken[-1].role == "assistant"
    if resumed:
        prompt = preset.format.extend(window.messages)
    prompt = replace(prompt, tools=tools)
    # The answer may use what the window leaves, even if the model itself could hold more.
    room = window.limit - window.tokens
    max_tokens = min(sampling.max_tokens or room, room)
    return GenerationRequest(window, prompt, replace(sampling, max_tokens=max_tokens), resumed)


def can_resume(
    conversation: Conversation, preset: Preset, engine: Engine, sampling: Sampling
) -> bool:
    """Whether the last message is an answer that the engine can continue within the window."""
    spoken = conversation.spoken
    if not spoken or spoken[-1].role != "assistant" or not engine.resumes:
        return False
    try:
        build_request(conversation, preset, engine, engine.context, sampling)
    except ContextOverflow:
        return False
    return True


def window_of(
    conversation: Conversation,
    preset: Preset,
    engine: Engine,
    sampling: Sampling,
    tools: ToolRequest | None = None,
) -> Window:
    """The window of a conversation as `build_request` would send it."""
    preset, sampling, conversation, _ = _prepared(conversation, preset, engine, sampling, tools)
    return fit(conversation, preset, engine, engine.context, sampling.max_tokens)[0]


def _prepared(
    conversation: Conversation,
    preset: Preset,
    engine: Counter,
    sampling: Sampling,
    tools: ToolRequest | None,
) -> tuple[Preset, Sampling, Conversation, ToolRequest | None]:
    """What thinking and tools make of a request."""
    preset, sampling, conversation = with_thinking(preset, sampling, conversation, engine)
    if tools is not None:
        tools = replace(tools, structured=sampling.structure is not None)
        preset, sampling = _with_tools(preset, engine, sampling, tools)
    return preset, sampling, conversation, tools


def with_thinking(
    preset: Preset, sampling: Sampling, conversation: Conversation, engine: Counter
) -> tuple[Preset, Sampling, Conversation]:
    """The three as the model's template understands `sampling.think`.

    Unchanged for a server that renders the messages itself: the engine tells it.
    """
    worker = unwrap(engine)
    if isinstance(worker, SendsMessages) and worker.sends_messages:
        return preset, sampling, conversation
    return thinking.applied(preset, sampling, conversation)


def _with_tools(
    preset: Preset, engine: Counter, sampling: Sampling, tools: ToolRequest
) -> tuple[Preset, Sampling]:
    """The preset and the sampling for a request with tools, as far as the engine enforces it."""
    worker = unwrap(engine)
    if isinstance(worker, SendsTools) and worker.sends_tools:
        return preset, sampling
    prepared, structure = tool_syntax.prepare(preset, tools, sampling.structure)
    if isinstance(worker, FollowsGrammars) and worker.follows_grammars:
        return prepared, replace(sampling, structure=structure)
    if tools.choice == "required" or tools.name:
        raise UsageError(
            "this engine cannot make a model call a tool",
            "leave the choice to the model, or use --engine transformers",
        )
    if structure is not None and sampling.structure is not None and prepared is not preset:
        raise UsageError(
            "this engine cannot bind an answer that may also call a tool",
            "ask for the structure without tools, or use --engine transformers",
        )
    return prepared, sampling


def _request_for(
    conversation: Conversation,
    preset: Preset,
    engine: Engine,
    sampling: Sampling,
    tools: ToolRequest | None,
) -> GenerationRequest:
    """Build the request, in the background server if the model is loaded there.

    Not with tools: the server builds prompts of the conversation alone.
    """
    worker = unwrap(engine)
    if isinstance(worker, InBackground) and tools is None:
        # After an error the request is built here, which succeeds or raises the same error.
        with suppress(LlmchatError):
            return worker.ask(conversation, sampling, GenerationRequest)
    return build_request(conversation, preset, engine, engine.context, sampling, tools=tools)
