"""What an import refuses, what it recognises, and how an imported chat goes on."""

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from llmchat.cli import main
from llmchat.conversation import Message
from llmchat.engines import Finish
from llmchat.errors import ModelNotFound, UsageError
from llmchat.history import BranchWriter, History
from llmchat.history.export import to_json, to_markdown
from llmchat.history.imports import read
from llmchat.models.sessions import options_of_session
from llmchat.settings import World


def messages(**more: Any) -> str:
    return json.dumps([{"messages": [{"role": "user", "content": "q"} | more]}])


def chatgpt(parents: dict[str, str | None]) -> str:
    said = {"author": {"role": "user"}, "content": {"parts": ["x"]}}
    mapping = {
        name: {"message": said, "parent": parent, "children": ["1"]}
        for name, parent in parents.items()
    }
    return json.dumps([{"title": "t", "current_node": "1", "mapping": mapping}])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (chatgpt({"1": "1"}), "record 1 cannot be read: the parents of node `'1'` form a loop"),
        (chatgpt({"1": "2", "2": "3", "3": "1"}), "form a loop"),
        (
            messages(created=1e18),
            "`created` is not a time between 1970 and 9999, in seconds since 1970: `1e+18`",
        ),
        (messages(created=-5), "`created` is not a time between 1970 and 9999"),
        (
            messages(created="yesterday"),
            "`created` is not a time between 1970 and 9999, in seconds since 1970: `'yesterday'`",
        ),
        (messages(created=2**70), "`created` is not a time between"),
        (messages(created=math.nan), "is not JSON"),
        (
            messages(state=["a"]),
            "record 1 cannot be read: `state` must be complete or cancelled, not `['a']`",
        ),
        (
            messages(covers=2**63),
            "`covers` is not a number from 0 to 1,000,000,000: `9223372036854775808`",
        ),
        (messages(mark="starred"), "record 1 cannot be read: Invalid enum value 'starred'"),
        (messages(input=["a"]), "record 1 cannot be read"),
        (messages(content={"a": 1}), "`content` is neither a text nor a list of parts"),
        (
            '{"title": ["a"], "messages": [{"role": "user", "content": "q"}]}',
            "`title` is not a text: `['a']`",
        ),
        (
            '{"tags": "a", "messages": [{"role": "user", "content": "q"}]}',
            "`tags` is not a list of texts",
        ),
        ("[" * 100_000, "x.json is not JSON: it is nested too deeply"),
        ('{"messages": ' * 100_000, "x.json is not JSON: it is nested too deeply"),
    ],
)  # fmt: skip
def test_a_field_that_cannot_be_right_is_named_with_its_file_and_record(
    text: str, told: str
) -> None:
    with pytest.raises(UsageError) as refused:
        read(text, "x.json")
    assert (
        refused.value.message.startswith("x.json")
        and told in refused.value.message
        and len(refused.value.message) < 250
    )


@pytest.fixture
def history() -> History:
    return History(None)


@pytest.fixture
def session(history: History) -> str:
    line = BranchWriter(history, history.begin("smollm2"))
    for message in (
        Message("system", "be kind"),
        Message("user", "q", "material", "pinned"),
        Message("assistant", "a"),
    ):
        line.append(message)
    line.append(Message("summary", "so far", covers=2))
    history.rename(line.session, "a title")
    return line.session


def exported(history: History, session: str) -> str:
    return to_json(history.find(session), history.messages(session))


def test_a_session_of_this_history_is_recognised_in_its_export(
    history: History, session: str
) -> None:
    first = exported(history, session)
    assert history.import_chat(read(first, "x")[0]) is None
    BranchWriter(history, session).append(Message("user", "later"))
    history.rename(session, "another title")
    assert history.import_chat(read(first, "x")[0]) is None, "an older export brings nothing new"
    without_id = json.loads(first)
    del without_id["id"]
    assert history.import_chat(read(json.dumps(without_id), "x")[0]) is None, (
        "exports of earlier versions have no id"
    )


def test_an_import_reads_no_other_session(history: History, session: str) -> None:
    """The time of an import must not grow with the number of sessions."""
    database, asked = history._database.connection, []
    database.set_trace_callback(asked.append)
    (chat,) = read(messages(), "x")
    history.import_chat(replace(chat, created=1e9))
    database.set_trace_callback(None)
    queries = [query for query in asked if query.startswith("SELECT") and "sessions" in query]
    plans = [
        step[-1] for query in queries for step in database.execute(f"EXPLAIN QUERY PLAN {query}")
    ]
    assert len(plans) > 2 and not [step for step in plans if step.startswith("SCAN")]


def test_an_export_imports_whole_elsewhere_under_its_own_id(history: History, session: str) -> None:
    first, other = exported(history, session), History(None)
    assert other.import_chat(read(first, "x")[0]) == session and exported(other, session) == first
    assert other.import_chat(read(first, "x")[0]) is None


def test_an_export_with_something_new_becomes_a_session_of_its_own(
    history: History, session: str
) -> None:
    first, other = exported(history, session), History(None)
    other.import_chat(read(first, "x")[0])
    BranchWriter(other, session).append(Message("user", "said elsewhere"))
    taken = history.import_chat(read(exported(other, session), "x")[0])
    assert (
        taken
        and taken != session
        and history.conversation(taken).messages[-1].text == "said elsewhere"
    )


@pytest.mark.parametrize("name", ["../../x", "x" * 9, "K3F9abcd", "a b c d!"])
def test_an_id_that_no_session_can_have_is_not_taken_over(history: History, name: str) -> None:
    (chat,) = read(messages(), "x")
    taken = history.import_chat(replace(chat, id=name))
    assert taken and taken != name and len(taken) == 8


def test_times_that_a_file_holds_already_do_not_poison_lists_and_exports(
    history: History, session: str
) -> None:
    for value in (1e18, -1e18, math.inf, "soon"):
        with history.transaction():
            history._database.execute("UPDATE messages SET created = ?", (value,))
            history._database.execute(
                "UPDATE sessions SET created = ?, updated = ?", (value, value)
            )
        assert history.sessions()[0].updated == 0.0
        assert to_markdown(history.find(session), history.messages(session)) and exported(
            history, session
        )


def test_a_value_that_sqlite_refuses_is_not_taken_for_a_damaged_file(
    history: History, session: str
) -> None:
    from llmchat.errors import IntegrityError, LlmchatError

    with pytest.raises(LlmchatError) as refused:
        BranchWriter(history, session).append(Message("user", ["a"]))  # type: ignore[arg-type]
    assert (
        not isinstance(refused.value, IntegrityError) and "move it away" not in refused.value.hint
    )


def test_an_imported_chat_opens_with_a_preset_it_names_and_with_no_other_model(
    world: World,
) -> None:
    with History(None) as history:
        for model, opens in (
            ("smollm2", {"model": "smollm2"}),
            ("gpt-4o", None),
            ("./folder", None),
            ("org/name", None),
        ):
            (chat,) = read(
                json.dumps({"model": model, "messages": [{"role": "user", "content": model}]}), "x"
            )
            found = history.find(history.import_chat(chat) or "")
            assert found.imported and options_of_session(found, world) == opens
        own = history.find(history.begin("org/name"))
        assert not own.imported and options_of_session(own, world) == {"model": "org/name"}


def test_a_branch_is_exported_with_what_was_stopped(history: History) -> None:
    line = BranchWriter(history, history.begin("m"))
    line.append(Message("user", "q"))
    line.append(Message("assistant", "half"), Finish("cancelled"))
    (chat,) = read(exported(history, line.session), "x")
    assert [one.state for one in chat.messages] == ["complete", "cancelled"]


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A session imported from another program into a home without models."""
    for name in ("CONFIG", "DATA", "STATE", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with History(tmp_path / "data" / "llmchat" / "history.db") as history:
        return history.import_chat(read(chatgpt({"1": None}), "x")[0]) or ""


def test_continuing_an_imported_chat_takes_the_default_model_and_says_so(
    imported: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["chat", "-c", "hello"]) == ModelNotFound.exit_code
    told = capsys.readouterr().err
    note = "the chat was imported and names no model of this machine; it continues with smollm2"
    assert f"note: {note}\n" in told
    assert "`smollm2` is not pulled" in told and "no model is called" not in told


def test_an_imported_chat_cannot_be_replayed_and_says_why(
    imported: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sessions", "replay", imported]) == UsageError.exit_code
    assert (
        f"session {imported} was imported, so it is unknown how its answers were generated"
        in capsys.readouterr().err
    )
