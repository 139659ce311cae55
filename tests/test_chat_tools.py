"""Tools in a chat: calls run with leave, and calls and results are messages of the conversation."""

from collections.abc import Sequence

import pytest
from msgspec.structs import replace
from support.tools import SmallTool

from llmchat.acting import ToolStarted
from llmchat.calls import Call
from llmchat.chat import Chat, Event
from llmchat.engines import Chunk, Finish, Sampling
from llmchat.engines.scripted import ScriptedEngine
from llmchat.evaluate.replay import replay
from llmchat.history import History
from llmchat.presets import Preset, find, get_format
from llmchat.tools import Tool
from llmchat.tools.permission import Permissions, Reply
from llmchat.tools.toolbox import Result, Toolbox

PRESET: Preset = replace(find("smollm2"), format=get_format("chatml"), sampling=Sampling())
CALL = '<tool_call>\n{"name": "echo", "arguments": {"text": "hi"}}\n</tool_call>'


def chat(
    replies: Sequence[str], *tools: SmallTool, allow: Sequence[str] = ("echo",), rounds: int = 8
) -> Chat:
    box = Toolbox(tools or (SmallTool(),), Permissions(None, allow), max_rounds=rounds)
    return Chat(PRESET, ScriptedEngine(replies, context=4096), History(None), tools=box)


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Chunk))


def roles(talk: Chat) -> list[str]:
    return [message.role for message in talk.conversation.messages]


def test_a_call_runs_and_the_model_answers_with_its_result():
    tool = SmallTool()
    talk = chat(["Let me see. " + CALL, "It said hi."], tool)
    events = list(talk.send("say hi"))
    assert tool.calls == [{"text": "hi"}]
    assert text_of(events) == "Let me see.It said hi."
    assert roles(talk) == ["user", "assistant", "tool", "assistant"]
    assert talk.conversation.messages[2].text == "hi"
    # What the model was given for its second answer.
    assert "<tool_response>\nhi" in talk.engine.prompts[1].text


def test_the_model_is_given_the_definitions():
    talk = chat(["Hello."])
    list(talk.send("hello"))
    assert '"name": "echo"' in talk.engine.prompts[0].text


def test_a_call_is_announced_before_it_runs():
    tool = SmallTool()
    talk = chat([CALL, "done"], tool)
    for event in talk.send("say hi"):
        if isinstance(event, ToolStarted):
            assert (event.number, tool.calls) == (1, [])
            break
    else:
        pytest.fail("no call was announced")


def test_a_call_without_leave_does_not_run_and_the_chat_goes_on():
    tool = SmallTool()
    talk = chat([CALL, "I may not."], tool, allow=())
    events = list(talk.send("say hi"))
    assert tool.calls == []
    (result,) = (event for event in events if isinstance(event, Result))
    assert not result.allowed
    assert talk.conversation.messages[-1].text == "I may not."


def test_several_calls_of_one_answer_run_in_order():
    second = CALL.replace("hi", "ho")
    tool = SmallTool()
    talk = chat([CALL + "\n" + second, "done"], tool)
    list(talk.send("both"))
    assert tool.calls == [{"text": "hi"}, {"text": "ho"}]
    assert roles(talk) == ["user", "assistant", "tool", "tool", "assistant"]
    ids = [message.call_id for message in talk.conversation.messages if message.role == "tool"]
    assert len(set(ids)) == 2


def test_a_repeated_call_gets_its_result_again_and_the_model_must_answer():
    tool = SmallTool()
    talk = chat([CALL, CALL, "It said hi."], tool)
    events = list(talk.send("say hi"))
    assert tool.calls == [{"text": "hi"}]
    results = [event.text for event in events if isinstance(event, Result)]
    assert results == ["hi", "You have the result already: hi\nAnswer the user now."]
    assert '"name": "echo"' not in talk.engine.prompts[2].text.partition("<tool_call>")[0]
    assert talk.conversation.messages[-1].text == "It said hi."


def test_the_same_call_in_a_later_turn_runs_again():
    tool = SmallTool()
    talk = chat([CALL, "one", CALL, "two"], tool)
    list(talk.send("say hi"))
    list(talk.send("say it again"))
    assert len(tool.calls) == 2


def test_rounds_are_bounded_and_the_last_answer_is_without_tools():
    tool = SmallTool()
    other = CALL.replace("hi", "ho")
    talk = chat([CALL, other, CALL], tool, rounds=2)
    events = list(talk.send("forever"))
    assert len(tool.calls) == 2
    assert isinstance(events[-1], Finish)
    assert roles(talk) == ["user", "assistant", "tool", "assistant", "tool", "assistant"]
    assert not talk.conversation.messages[-1].calls


def test_an_interrupted_tool_gets_a_result_and_the_chat_goes_on():
    def interrupt(call: Call, tool: Tool) -> Reply:
        raise KeyboardInterrupt

    talk = chat([CALL, "Yes."], allow=())
    talk.tools = Toolbox([SmallTool()], Permissions(None, ask=interrupt))
    with pytest.raises(KeyboardInterrupt):
        list(talk.send("say hi"))
    assert talk.conversation.messages[-1].text == "error: the user stopped this call"


def test_closing_an_answer_before_its_calls_ran_leaves_no_call_open():
    talk = chat([CALL, "done"])
    events = talk.send("say hi")
    for event in events:
        if isinstance(event, ToolStarted):
            break
    events.close()
    assert roles(talk) == ["user", "assistant", "tool"]


def test_a_call_of_an_answer_that_was_cut_off_does_not_run():
    tool = SmallTool()
    talk = chat([CALL + " and so on " * 50], tool)
    talk.set({"max_tokens": 30})
    list(talk.send("say hi"))
    assert talk.finish and talk.finish.reason == "length"
    assert tool.calls == []


def test_the_answer_can_be_undone_and_asked_again_with_its_calls():
    tool = SmallTool()
    talk = chat([CALL, "one", CALL, "two"], tool)
    list(talk.send("say hi"))
    list(talk.regenerate())
    assert talk.conversation.messages[-1].text == "two"
    assert len(tool.calls) == 2
    talk.undo()
    assert not talk.conversation.messages


def test_the_whole_output_of_a_long_result_can_be_read_later():
    tool = SmallTool(work=lambda arguments: "word " * 5000)
    talk = chat([CALL, "long"], tool)
    list(talk.send("say hi"))
    assert "left out" in talk.conversation.messages[2].text
    assert talk.tool_output(1).count("word") == 5000


def test_the_next_window_counts_the_definitions():
    talk = chat(["Hello."])
    list(talk.send("hello"))
    assert talk.window
    sent = {entry.role: entry.tokens for entry in talk.window.ledger}
    following = {entry.role: entry.tokens for entry in talk.next_window().ledger}
    assert following["tools"] == sent["tools"] > 0


def test_a_replay_answers_from_the_recorded_results():
    tool = SmallTool()
    talk = chat([CALL, "It said hi."], tool)
    list(talk.send("say hi"))
    assert talk.session
    records = talk.history.messages(talk.session)
    engine = ScriptedEngine([CALL, "It said ho."], context=4096)
    first, second = replay(records, PRESET, engine)
    assert first.same and not second.same
    assert tool.calls == [{"text": "hi"}]
    assert "<tool_response>\nhi" in engine.prompts[1].text


def test_calls_and_results_are_rows_of_the_ledger():
    talk = chat([CALL, "done"])
    list(talk.send("say hi"))
    list(talk.send("again"))
    assert talk.window
    rows = {entry.role: entry.tokens for entry in talk.window.ledger}
    assert rows["tool"] > 0
    assert sum(entry.tokens for entry in talk.window.ledger) <= talk.window.tokens
