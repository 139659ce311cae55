"""Gives calls and results in messages the form that a chat template expects of them."""

import hashlib
import re
from typing import Any

Record = dict[str, Any]
# Mistral's templates refuse ids of another length.
_NINE = re.compile(r"length\s*(?:!=|==)\s*9\b")


def for_template(records: list[Record], template: str) -> list[Record]:
    """Messages whose results name their function, with ids and in places as the template wants."""
    records = _with_names(records)
    if _NINE.search(template):
        records = [_with_short_ids(record) for record in records]
    # Gemma 4's templates expect results as a part of the answer that called.
    return _attached(records) if "tool_responses" in template else records


def _with_names(records: list[Record]) -> list[Record]:
    """The results with the name of the function, by the id of the call or in the order of calls."""
    named, waiting = [], list[dict[str, Any]]()
    for record in records:
        waiting = list(record["tool_calls"]) if record.get("tool_calls") else waiting
        if record["role"] == "tool" and waiting:
            by_id = (one for one in waiting if one.get("id") == record.get("tool_call_id"))
            call = next(by_id, waiting[0])
            waiting.remove(call)
            record = {**record, "name": call["function"]["name"]}
        named.append(record)
    return named


def _with_short_ids(record: Record) -> Record:
    changed = dict(record)
    if "tool_call_id" in record:
        changed["tool_call_id"] = _short(record["tool_call_id"])
    if "tool_calls" in record:
        changed["tool_calls"] = [
            {**call, "id": _short(str(call.get("id", "")))} for call in record["tool_calls"]
        ]
    return changed


def _short(identifier: str) -> str:
    return hashlib.sha256(identifier.encode()).hexdigest()[:9]


def _attached(records: list[Record]) -> list[Record]:
    attached: list[Record] = []
    for record in records:
        if record["role"] == "tool" and attached and attached[-1]["role"] == "assistant":
            response = {"name": record.get("name", ""), "response": record["content"]}
            before = attached[-1].get("tool_responses", [])
            attached[-1] = {**attached[-1], "tool_responses": [*before, response]}
        else:
            attached.append(record)
    return attached
