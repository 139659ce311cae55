"""Stored responses: continued, read, listed and deleted by the user who asked for them."""

import sqlite3
from pathlib import Path
from typing import Any

import openai
import pytest
from support.responses import sent
from support.serving import HERMES, Running, model_spec, serving

from llmchat.engines.scripted import ScriptedEngine
from llmchat.errors import LlmchatError
from llmchat.server import local_peer
from llmchat.server.keys import Keys
from llmchat.server.responses_api.store import ResponseStore, StoredResponse


def stored(id: str, text: str = "x") -> StoredResponse:
    item = {"id": f"msg_{id}", "type": "message", "role": "user", "content": text}
    return StoredResponse({"id": id}, [item], 0, 1)


def client_of(run: Running, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{run.url}/v1", api_key=key, max_retries=0, timeout=30)


def test_a_response_is_continued_by_its_id(run: Running) -> None:
    client = run.openai
    first = client.responses.create(model="plain", input="One?", instructions="Be short.")
    second = client.responses.create(model="plain", input="Two?", previous_response_id=first.id)
    third = client.responses.create(
        model="echo", input="Three?", previous_response_id=second.id, instructions="Be long."
    )
    assert (second.previous_response_id, third.previous_response_id) == (first.id, second.id)
    said = "Well, **yes**.\n\nAnd no."
    assert sent(run, "echo") == (
        "<|im_start|>system\nBe long.<|im_end|>\n"
        f"<|im_start|>user\nOne?<|im_end|>\n<|im_start|>assistant\n{said}<|im_end|>\n"
        f"<|im_start|>user\nTwo?<|im_end|>\n<|im_start|>assistant\n{said}<|im_end|>\n"
        "<|im_start|>user\nThree?<|im_end|>\n<|im_start|>assistant\n"
    )
    client.responses.delete(first.id)
    again = client.responses.create(model="plain", input="Two?", previous_response_id=second.id)
    assert again.status == "completed" and sent(run, "plain").count("<|im_start|>user") == 3


def test_a_round_of_a_tool_is_continued_by_its_output_alone(run: Running) -> None:
    tool: Any = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
    first = run.openai.responses.create(model="caller", input="Weather?", tools=[tool])
    call = first.output[-1]
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    second = run.openai.responses.create(
        model="caller", input=[output], tools=[tool], previous_response_id=first.id
    )
    assert second.output_text == "It is sunny."
    with pytest.raises(openai.BadRequestError, match=r"the call `call_\w+` has no output"):
        run.openai.responses.create(model="plain", input="So?", previous_response_id=first.id)


def test_a_response_is_retrieved_as_it_was_and_deleted(run: Running) -> None:
    made = run.openai.responses.create(model="thinker", input="2 + 2?", stream=True)
    final = list(made)[-1].response
    assert run.openai.responses.retrieve(final.id) == final
    run.openai.responses.delete(final.id)
    for request in (run.openai.responses.retrieve, run.openai.responses.delete):
        with pytest.raises(openai.NotFoundError):
            request(final.id)


def test_the_items_of_the_input_are_listed_by_pages(run: Running) -> None:
    client = run.openai
    first = client.responses.create(model="plain", input="One?")
    second = client.responses.create(model="plain", input="Two?", previous_response_id=first.id)
    items = list(client.responses.input_items.list(second.id, order="asc", limit=1))
    assert [item.role for item in items] == ["user", "assistant", "user"]
    assert items[0].content[0].text == "One?" and items[1] == first.output[0]
    latest = client.responses.input_items.list(second.id, limit=1)
    assert latest.data[0].content[0].text == "Two?" and latest.has_more


def test_a_reference_stands_for_a_stored_item(run: Running) -> None:
    first = run.openai.responses.create(model="plain", input="One?")
    reference: Any = {"type": "item_reference", "id": first.output[0].id}
    asked: Any = [{"role": "user", "content": "One?"}, reference, {"role": "user", "content": "2?"}]
    run.openai.responses.create(model="echo", input=asked, store=False)
    assert "<|im_start|>assistant\nWell, **yes**.\n\nAnd no.<|im_end|>" in sent(run, "echo")


def test_what_must_not_be_stored_cannot_be_continued(run: Running) -> None:
    made = run.openai.responses.create(model="plain", input="One?", store=False)
    assert made.model_dump()["store"] is False
    with pytest.raises(openai.NotFoundError):
        run.openai.responses.retrieve(made.id)
    with pytest.raises(openai.BadRequestError) as refused:
        run.openai.responses.create(model="plain", input="2?", previous_response_id=made.id)
    assert refused.value.code == "previous_response_not_found"


def test_no_other_key_can_use_a_response(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    secrets = [keys.add("ann"), keys.add("bob")]
    with serving({"m": model_spec(ScriptedEngine)}, tmp_path) as run:
        ann, bob = (client_of(run, secret) for secret in secrets)
        made = ann.responses.create(model="m", input="A secret.")
        assert ann.responses.retrieve(made.id).id == made.id
        reference: Any = [{"type": "item_reference", "id": made.output[0].id}]
        for refused in (
            lambda: bob.responses.retrieve(made.id),
            lambda: bob.responses.delete(made.id),
            lambda: bob.responses.input_items.list(made.id),
            lambda: bob.responses.create(model="m", input="?", previous_response_id=made.id),
            lambda: bob.responses.create(model="m", input=reference),
        ):
            with pytest.raises((openai.NotFoundError, openai.BadRequestError)):
                refused()
        assert ann.responses.retrieve(made.id).id == made.id


def test_a_client_of_an_unknown_user_is_answered_but_not_stored(
    run: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = run.openai.responses.create(model="plain", input="One?")
    # As on systems that do not tell the users of connections.
    monkeypatch.setattr(local_peer, "SUPPORTED", False)
    made = run.openai.responses.create(model="plain", input="One?")
    assert made.status == "completed" and made.model_dump()["store"] is False
    for refused in (
        lambda: run.openai.responses.retrieve(mine.id),
        lambda: run.openai.responses.create(model="plain", input="?", store=True),
        lambda: run.openai.responses.create(model="plain", input="?", previous_response_id=mine.id),
    ):
        with pytest.raises(openai.PermissionDeniedError):
            refused()


def test_a_restarted_server_with_history_continues_a_response(tmp_path: Path) -> None:
    models = {"m": model_spec(lambda: ScriptedEngine(["Yes."]), HERMES, key="m")}
    with serving(models, tmp_path, history=True) as run:
        first = run.openai.responses.create(model="m", input="One?")
    assert (tmp_path / "responses.db").stat().st_mode & 0o077 == 0
    with serving(models, tmp_path, history=True) as run:
        run.openai.responses.create(model="m", input="Two?", previous_response_id=first.id)
        assert "One?" in sent(run, "m") and "Yes." in sent(run, "m")


def test_the_oldest_responses_of_a_user_make_room() -> None:
    store = ResponseStore(max_responses=3, max_bytes=1000)
    for number in range(5):
        assert store.put("ann", stored(f"r{number}"))
    assert [bool(store.get("ann", f"r{number}")) for number in range(5)] == [0, 0, 1, 1, 1]
    assert store.put("bob", stored("b")) and store.get("ann", "r2")
    assert store.put("ann", stored("large", "x" * 800))
    assert not store.get("ann", "r3") and store.get("ann", "r4") and store.get("ann", "large")
    assert not store.put("ann", stored("huge", "x" * 2000)) and store.get("ann", "large")


def test_items_are_found_until_their_response_is_removed() -> None:
    store = ResponseStore()
    store.put("ann", stored("r", "text"))
    assert store.items("ann", ["msg_r", "msg_x"])["msg_r"]["content"] == "text"
    assert store.items("bob", ["msg_r"]) == {}
    assert store.remove("ann", "r") and not store.remove("ann", "r")
    assert store.items("ann", ["msg_r"]) == {} and store.get("ann", "r") is None


def test_what_was_removed_is_not_left_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "responses.db"
    store = ResponseStore(path)
    store.put("ann", stored("r", "a very private text"))
    store.remove("ann", "r")
    store.close()
    assert b"a very private text" not in path.read_bytes()


def test_a_damaged_file_is_an_error_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "responses.db"
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(LlmchatError, match="is not a readable store of responses"):
        ResponseStore(path)


def test_an_answer_is_sent_though_it_cannot_be_stored(tmp_path: Path) -> None:
    with serving({"m": model_spec(ScriptedEngine)}, tmp_path, history=True) as run:
        blocker = sqlite3.connect(tmp_path / "responses.db")
        blocker.execute("DROP TABLE responses")
        blocker.close()
        made = run.openai.responses.create(model="m", input="One?")
    assert made.output_text.startswith("You wrote") and made.model_dump()["store"] is False
