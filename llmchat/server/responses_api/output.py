"""Turns the pieces of an answer into output items and stream events.

https://platform.openai.com/docs/api-reference/responses-streaming has the order of the events.
"""

import json
from collections.abc import Mapping
from typing import Any

from llmchat.server.responses_api.translation import CalledTool
from llmchat.server.state import new_id

Event = dict[str, Any]
_IDS = {"message": "msg", "reasoning": "rs", "function": "fc", "custom": "ctc"}
_PARTS = {"message": "output_text", "reasoning": "reasoning_text"}


class Output:
    """tools: by their names in the ChatRequest. The events have no sequence numbers yet."""

    def __init__(self, tools: Mapping[str, CalledTool]):
        self.items: list[dict[str, Any]] = []
        self._tools = tools
        self._part: dict[str, Any] | None = None

    def feed(self, delta: Mapping[str, Any], logprobs: list[dict[str, Any]]) -> list[Event]:
        """The events for a piece of an answer. delta: as in a chunk of a chat completion."""
        events: list[Event] = []
        if thinking := delta.get("reasoning_content"):
            events += self._grow("reasoning", thinking)
        if text := delta.get("content"):
            events += self._grow("message", text, logprobs)
        for call in delta.get("tool_calls", ()):
            events += [*self.close(), *self._call(call)]
        return events

    def finish(self, status: str) -> list[Event]:
        """The events for the end of the answer, which has a message even if it is empty."""
        empty = all(item["type"] == "reasoning" for item in self.items)
        opened = [*self.close(status), *self._open("message")] if empty else []
        return [*opened, *self.close(status)]

    def close(self, status: str = "completed") -> list[Event]:
        """The events for the end of the text that is written, if there is one."""
        part, self._part = self._part, None
        if part is None:
            return []
        item = self.items[-1]
        item["status"] = status
        kind, logprobs = part["type"], part.get("logprobs")
        done = {"text": part["text"]} | ({} if logprobs is None else {"logprobs": logprobs})
        return [
            self._of_part(f"{kind}.done", **done),
            self._of_part("content_part.done", part=part),
            self._of_item("output_item.done", item=item),
        ]

    def _grow(
        self, kind: str, text: str, logprobs: list[dict[str, Any]] | None = None
    ) -> list[Event]:
        same = self._part is not None and self.items[-1]["type"] == kind
        events = [] if same else [*self.close(), *self._open(kind)]
        part = self._part
        assert part is not None
        part["text"] += text
        if kind == "reasoning":
            return [*events, self._of_part("reasoning_text.delta", delta=text)]
        part["logprobs"] += logprobs or []
        delta = self._of_part("output_text.delta", delta=text, logprobs=logprobs or [])
        return [*events, delta]

    def _open(self, kind: str) -> list[Event]:
        item: dict[str, Any] = {"id": new_item_id(kind), "type": kind, "status": "in_progress"}
        part: dict[str, Any] = {"type": _PARTS[kind], "text": ""}
        if kind == "message":
            item["role"] = "assistant"
            part |= {"annotations": [], "logprobs": []}
        else:
            item["summary"] = []
        self.items.append({**item, "content": [part]})
        self._part = part
        # Copies, because the item grows before its events are encoded.
        empty = {name: [] if value == [] else value for name, value in part.items()}
        return [
            self._of_item("output_item.added", item={**item, "content": []}),
            self._of_part("content_part.added", part=empty),
        ]

    def _call(self, call: Mapping[str, Any]) -> list[Event]:
        """The events for a call, which arrives whole."""
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        tool = self._tools.get(name) or CalledTool("function", name)
        custom = tool.kind == "custom"
        field, kind = ("input", "custom_tool_call") if custom else ("arguments", "function_call")
        written = _input(arguments) if custom else arguments
        item = {"id": new_item_id(tool.kind), "type": kind, "status": "completed"}
        item |= {"call_id": call["id"], "name": tool.name, field: written}
        item |= {"namespace": tool.namespace} if tool.namespace else {}
        self.items.append(item)
        event = "custom_tool_call_input" if custom else "function_call_arguments"
        named = {} if custom else {"name": tool.name}
        return [
            self._of_item("output_item.added", item={**item, "status": "in_progress", field: ""}),
            self._of_item(f"{event}.delta", item_id=item["id"], delta=written),
            self._of_item(f"{event}.done", item_id=item["id"], **named, **{field: written}),
            self._of_item("output_item.done", item=item),
        ]

    def _of_item(self, kind: str, **fields: Any) -> Event:
        return {"type": f"response.{kind}", "output_index": len(self.items) - 1, **fields}

    def _of_part(self, kind: str, **fields: Any) -> Event:
        item_id = self.items[-1]["id"]
        return self._of_item(kind, item_id=item_id, content_index=0, **fields)


def _input(arguments: str) -> str:
    """The input of a custom tool, which the model wrote as the only argument of a function."""
    return str(json.loads(arguments).get("input", ""))


def new_item_id(kind: str) -> str:
    return new_id(_IDS.get(kind, "item")).replace("-", "_")
