"""Every field that the types of the SDKs declare is obeyed, harmless, or refused by its name.

The walk goes over all fields of all types, so that a new version of an SDK fails here until
somebody decides what its new fields mean.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from anthropic.types import message_create_params
from anthropic.types.beta import message_create_params as beta_params
from support.sdk_types import fields_of, refusals, values_of

from llmchat.server.messages_api.schema import MessagesRequest
from llmchat.server.messages_api.translation import to_chat

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
    "assistant.content.caller", "assistant.content.toolset_name = x",
}  # fmt: skip
BETA_REFUSED = REFUSED | {
    "compaction", "mcp_servers", "output_config.task_budget", "thinking.display = updates",
    "thread",
    "context_management.edits.type = clear_tool_uses", "context_management.edits.type = compact",
    "system.clear_at = next_user_message", "system.output_config",
    *(f"system.content.type = {name}" for name in ("tool_addition", "tool_removal")),
    *(f"tools.type = {name}" for name in ("advisor", "computer", "mcp_toolset")),
    *(f"user.content.type = {name}" for name in (*BETA_BLOCKS, "fallback")),
    *(f"assistant.content.type = {name}" for name in BETA_BLOCKS),
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
