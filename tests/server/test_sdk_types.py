"""Every field that the types of the SDKs declare is obeyed, harmless, or refused by its name.

The walk goes over all fields of all types, so that a new version of an SDK fails here until
somebody decides what its new fields mean.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from anthropic.types import message_create_params
from anthropic.types.beta import message_create_params as beta_params
from openai.types.chat import completion_create_params
from openai.types.responses import response_create_params
from support.sdk_types import fields_of, refusals, values_of

from llmchat.server.api import ChatRequest
from llmchat.server.messages_api.schema import MessagesRequest
from llmchat.server.messages_api.translation import to_chat
from llmchat.server.request_messages import to_conversation
from llmchat.server.request_parsing import check_chat
from llmchat.server.responses_api.checking import check as check_response
from llmchat.server.responses_api.schema import ResponseRequest
from llmchat.server.responses_api.translation import to_chat as response_to_chat

# Blocks of Anthropic's own tools, and what is not text.
FOREIGN_BLOCKS = {
    "bash_code_execution_tool_result", "code_execution_tool_result", "container_upload",
    "document", "image", "search_result", "server_tool_use",
    "text_editor_code_execution_tool_result", "tool_search_tool_result", "web_fetch_tool_result",
    "web_search_tool_result",
}  # fmt: skip
BETA_BLOCKS = {
    "advisor_tool_result", "compaction", "mcp_tool_listing", "mcp_tool_result", "mcp_tool_use",
    "tool_addition", "tool_removal",
}  # fmt: skip
REFUSED = {
    "container", "container = x",
    "thinking.type = between_tools",
    "tools.allowed_callers", "tools.defer_loading", "tools.input_examples",
    *(f"tools.type = {name}" for name in (
        "bash", "browser_toolset", "code_execution", "computer_toolset", "memory", "text_editor",
        "tool_search_tool_bm25", "tool_search_tool_regex", "web_fetch", "web_search",
    )),
    *(f"user.content.type = {name}" for name in (
        *FOREIGN_BLOCKS, "thinking", "redacted_thinking", "tool_use",
    )),
    *(f"user.content.content.type = {name}" for name in (
        "browser_state", "document", "image", "search_result", "tool_reference",
    )),
    "user.content.toolset_name = x",
    *(f"assistant.content.type = {name}" for name in (*FOREIGN_BLOCKS, "tool_result")),
    "assistant.content.caller.type = code_execution", "assistant.content.toolset_name = x",
}  # fmt: skip
BETA_REFUSED = REFUSED | {
    "compaction.type = summarize", "mcp_servers", "output_config.task_budget.type = tokens",
    "thinking.display = updates", "thread.type = continue", "thread.type = create",
    "context_management.edits.type = clear_tool_uses", "context_management.edits.type = compact",
    "system.clear_at = next_user_message", "system.output_config",
    *(f"system.content.type = {name}" for name in ("tool_addition", "tool_removal")),
    *(f"tools.type = {name}" for name in ("advisor", "computer", "mcp_toolset")),
    *(f"user.content.type = {name}" for name in (*BETA_BLOCKS, "fallback")),
    *(f"assistant.content.type = {name}" for name in BETA_BLOCKS),
}  # fmt: skip
CHAT_REFUSED = {
    "assistant.audio", "assistant.function_call", "assistant.tool_calls.type = custom", "audio",
    "function.role = function", "function_call", "functions", "logit_bias", "modalities",
    "moderation", "store", "stream_options.include_obfuscation",
    "tool_choice.type = allowed_tools", "tool_choice.type = custom", "tools.type = custom",
    "top_logprobs", "user.content", "user.content.type = image_url",
    "user.content.type = input_audio", "verbosity = high", "verbosity = low", "web_search_options",
}  # fmt: skip
HOSTED_TOOLS = {
    "apply_patch", "code_interpreter", "computer", "computer_use_preview", "file_search",
    "image_generation", "mcp", "programmatic_tool_calling", "shell", "web_search_preview",
}  # fmt: skip
RESPONSES_REFUSED = {
    "background", "background_options", "context_management", "conversation", "conversation = x",
    "input", "input.async", "input.call_id", "moderation", "prompt",
    *(f"input.type = {name}" for name in (
        "additional_tools", "apply_patch_call", "apply_patch_call_output", "code_interpreter_call",
        "compaction", "compaction_trigger", "computer_call", "computer_call_output",
        "configuration_update", "file_search_call", "image_generation_call", "local_shell_call",
        "local_shell_call_output", "mcp_approval_request", "mcp_approval_response", "mcp_call",
        "mcp_list_tools", "program", "program_output", "shell_call", "shell_call_output",
        "tool_search_call", "tool_search_output", "web_search_call",
    )),
    *(f"reasoning.{name}" for name in (
        "context = all_turns", "context = current_turn", "generate_summary = concise",
        "generate_summary = detailed", "mode = pro", "mode = x", "summary = concise",
        "summary = detailed",
    )),
    "stream_options.include_obfuscation", "text.verbosity = high", "text.verbosity = low",
    "tool_choice.tools.type",
    *(f"tool_choice.type = {name}" for name in (*HOSTED_TOOLS, "computer_use")),
    *(f"tools{inner}.{name}" for inner in ("", ".tools") for name in (
        "allowed_callers", "async", "defer_loading",
    )),
    *(f"tools.type = {name}" for name in (
        *HOSTED_TOOLS, "local_shell", "tool_search", "web_search",
    )),
}  # fmt: skip


def anthropic_bodies(declared: Any) -> Iterator[dict[str, Any]]:
    asked = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}
    for name, kind in fields_of(declared).items():
        if name == "messages":
            yield from ({**asked, "messages": turns(one)} for [one] in values_of(kind))
        # The SDK sends betas as a header.
        elif name not in ("model", "betas"):
            yield from ({**asked, name: value} for value in values_of(kind))


def turns(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The message in a conversation whose calls have their results."""
    content = message.setdefault("content", "x")
    kinds = {part["type"] for part in content} if isinstance(content, list) else set()
    question, result = {"role": "user", "content": "x"}, {"type": "tool_result", "tool_use_id": "x"}
    if message["role"] == "user":
        call = {"type": "tool_use", "id": "x", "name": "f", "input": {}}
        calls = [question, {"role": "assistant", "content": [call]}]
        return [*(calls if "tool_result" in kinds else ()), message]
    results = [{"role": "user", "content": [result]}] if "tool_use" in kinds else []
    return [question, message, *results]


@pytest.mark.parametrize(
    ("params", "refused"),
    [(message_create_params, REFUSED), (beta_params, BETA_REFUSED)],
    ids=["messages", "beta.messages"],
)
def test_only_these_fields_of_anthropics_types_are_refused(params: Any, refused: set[str]) -> None:
    bodies = anthropic_bodies(params.MessageCreateParamsBase)
    assert refusals(bodies, MessagesRequest, to_chat) == refused


def chat_bodies() -> Iterator[dict[str, Any]]:
    question = {"role": "user", "content": "x"}
    asked: dict[str, Any] = {"model": "m", "messages": [question]}
    function = {"name": "f", "arguments": "{}"}
    calls = {"role": "assistant", "tool_calls": [{"id": "x", "function": function}]}
    fields = fields_of(completion_create_params.CompletionCreateParamsBase)
    for [message] in values_of(fields.pop("messages")):
        for call in message.get("tool_calls") or ():
            call.update({"function": function} if "function" in call else {})
        before = [question, *([calls] if message["role"] == "tool" else ())]
        after = [{"role": "tool", "content": "x"}] if message.get("tool_calls") else []
        yield {**asked, "messages": [*before, message, *after]}
    for name, kind in fields.items():
        yield from ({**asked, name: value} for value in values_of(kind) if name != "model")


def check_chat_request(request: ChatRequest) -> None:
    """All checks but that of a file on the server."""
    check_chat(request)
    content = request.messages[-1].content
    files = [part.file for part in content if part.file] if isinstance(content, list) else []
    if not any(file.file_id for file in files):
        to_conversation(request.messages)


def test_only_these_fields_of_chat_completions_are_refused() -> None:
    assert refusals(chat_bodies(), ChatRequest, check_chat_request) == CHAT_REFUSED


def response_bodies() -> Iterator[dict[str, Any]]:
    question, output = {"role": "user", "content": "x"}, {"call_id": "x", "output": "x"}
    calls = {
        "function_call": {"type": "function_call", "call_id": "x", "name": "f"},
        "custom_tool_call": {"type": "custom_tool_call", "call_id": "x", "name": "f", "input": ""},
    }
    fields = fields_of(response_create_params.ResponseCreateParamsBase)
    for value in values_of(fields.pop("input")):
        if isinstance(value, str):
            continue
        kind = value[0].get("type") or ""
        call = calls.get(kind.removesuffix("_output")) if kind not in calls else None
        before = [call] if call else []
        after = [{**output, "type": f"{kind}_output"}] if kind in calls else []
        yield {"model": "m", "input": [question, *before, *value, *after]}
    for name, declared in fields.items():
        for value in values_of(declared):
            yield {"model": "m", "input": [question]} | ({name: value} if name != "model" else {})


def check_response_request(request: ResponseRequest) -> None:
    check_response(request)
    assert isinstance(request.input, list)
    response_to_chat(request, request.input)


def test_only_these_fields_of_responses_are_refused() -> None:
    found = refusals(response_bodies(), ResponseRequest, check_response_request)
    assert found == RESPONSES_REFUSED
