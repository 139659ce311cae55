"""Actions: a trigger in an answer runs its tool, and the model continues behind the result."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.tools import SmallTool

from llmchat.acting import ToolStarted
from llmchat.actions import Action, Watcher, check, taught
from llmchat.calls import Call
from llmchat.chat import Chat
from llmchat.conversation import Conversation
from llmchat.engines import Chunk, Sampling
from llmchat.engines.scripted import ScriptedEngine
from llmchat.errors import UsageError
from llmchat.history import History
from llmchat.presets import find, get_format
from llmchat.tools import Tool
from llmchat.tools.permission import Permissions, Reply
from llmchat.tools.toolbox import Result, Toolbox

SEARCH = Action("SEARCH(<query>)", "web.search", preamble="Write SEARCH(words) to search.")
ADD = Action("ADD(<a>, <b>)", "add", result=" = {result}.")
SEARCH_TOOL = {"name": "web_search", "group": "web"}


def chat(replies: list[str], tool: SmallTool, *actions: Action, allow: bool = True) -> Chat:
    preset = replace(
        find("smollm2"),
        format=get_format("alpaca"),
        sampling=Sampling(),
        actions=actions or (SEARCH,),
    )
    box = Toolbox([tool], Permissions(None, [tool.name] if allow else []))
    return Chat(preset, ScriptedEngine(replies, context=4096), History(None), tools=box)


def search_tool(result: str = "It is 330 m high.") -> SmallTool:
    return SmallTool(
        **SEARCH_TOOL,  # type: ignore[arg-type]
        parameters={"type": "object", "properties": {"query": {"type": "string"}}},
        work=lambda arguments: result,
    )


def answer(talk: Chat, question: str = "How high is it?") -> str:
    events = talk.send(question)
    return "".join(event.text for event in events if isinstance(event, Chunk))


def test_a_trigger_runs_its_tool_and_the_answer_goes_on_behind_the_result():
    tool = search_tool()
    talk = chat(["Wait: SEARCH(tower height) and more", "So 330 m."], tool)
    text = answer(talk)
    assert tool.calls == [{"query": "tower height"}]
    assert text == "Wait: SEARCH(tower height) → It is 330 m high.\nSo 330 m."
    # One answer, as the model's second prompt has it.
    assert [message.role for message in talk.conversation.messages] == ["user", "assistant"]
    assert talk.conversation.messages[-1].text == text
    assert "and more" not in text
    assert talk.engine.prompts[1].text.endswith("Wait: SEARCH(tower height) → It is 330 m high.\n")


def test_the_preamble_teaches_the_action():
    talk = chat(["Hello."], search_tool())
    answer(talk)
    assert "Write SEARCH(words) to search." in talk.engine.prompts[0].text
    # It is no part of the conversation.
    assert talk.conversation.system == ""


def test_a_tool_with_an_action_is_not_offered_in_another_way():
    talk = chat(["Hello."], search_tool())
    answer(talk)
    assert "<tools>" not in talk.engine.prompts[0].text


def test_an_action_without_leave_does_not_run_and_the_model_learns_why():
    tool = search_tool()
    talk = chat(["SEARCH(x)", "I cannot."], tool, allow=False)
    assert "did not allow" in answer(talk)
    assert tool.calls == []


def test_an_action_is_asked_about_before_it_runs():
    tool = search_tool()
    asked: list[Call] = []

    def ask(call: Call, tool: Tool) -> Reply:
        asked.append(call)
        return Reply("once")

    talk = chat(["SEARCH(x)", "done"], tool)
    talk.tools = Toolbox([tool], Permissions(None, ask=ask))
    answer(talk)
    assert [call.arguments for call in asked] == [{"query": "x"}]


def test_a_result_that_spells_a_trigger_runs_nothing():
    tool = search_tool("SEARCH(again) SEARCH(and again)")
    talk = chat(["SEARCH(x)", "done"], tool)
    answer(talk)
    assert tool.calls == [{"query": "x"}]


def test_a_question_that_spells_a_trigger_runs_nothing():
    tool = search_tool()
    answer(chat(["No."], tool), "SEARCH(secrets)")
    assert tool.calls == []


def test_actions_are_bounded():
    tool = search_tool("nothing")
    talk = chat(["SEARCH(x)"], tool)
    assert talk.tools
    talk.tools.max_rounds = 3
    text = answer(talk)
    assert len(tool.calls) <= 3
    assert text.endswith("SEARCH(x)")


def test_arguments_have_the_types_of_the_schema():
    numbers = {name: {"type": kind} for name, kind in (("a", "integer"), ("b", "number"))}
    tool = SmallTool(
        "add", "add", parameters={"type": "object", "properties": numbers},
        work=lambda arguments: str(arguments["a"] + arguments["b"]),
    )  # fmt: skip
    assert (
        answer(chat(["It is ADD(2, 0.5)", " Bye."], tool, ADD)) == "It is ADD(2, 0.5) = 2.5. Bye."
    )


def test_a_tool_that_is_off_makes_its_trigger_text():
    tool = search_tool()
    talk = chat(["SEARCH(x) is text"], tool)
    assert talk.tools
    talk.tools.turn_off("web_search")
    assert answer(talk) == "SEARCH(x) is text"


def test_an_interrupted_action_keeps_the_text_before_it():
    talk = chat(["Look: SEARCH(x)", "done"], search_tool())
    events = talk.send("go")
    for event in events:
        if isinstance(event, ToolStarted):
            break
    events.close()
    assert talk.conversation.messages[-1].text == "Look: SEARCH(x)"


def test_results_of_actions_are_events():
    talk = chat(["SEARCH(x)", "done"], search_tool())
    results = [event for event in talk.send("go") if isinstance(event, Result)]
    assert [result.text for result in results] == ["It is 330 m high."]


@given(st.lists(st.text("SEARCH(x) \n", max_size=5), max_size=20))
def test_a_trigger_is_found_however_the_text_is_cut(pieces: list[str]):
    whole = "".join(pieces)
    watcher, shown = Watcher([SEARCH]), ""
    for piece in pieces:
        shown += watcher.feed(piece)
        if watcher.found:
            break
    one = Watcher([SEARCH])
    assert (one.feed(whole), bool(one.found)) == (shown, bool(watcher.found))
    assert whole.startswith(shown)


@pytest.mark.parametrize(
    ("action", "line"),
    [
        (Action("<query>)", "web"), "needs a word before"),
        (Action("SEARCH(<query>", "web"), "needs a word before"),
        (Action("A(<x>, <x>)", "web"), "two arguments of one name"),
        (Action("A(<x>)", "web", result="done"), "does not contain"),
        (Action("A(\n<x>)", "web"), "one line"),
    ],
)
def test_an_action_that_cannot_work_is_refused(action: Action, line: str):
    with pytest.raises(UsageError, match=line):
        check([action])


def test_a_system_text_is_kept_before_the_preamble():
    conversation = Conversation().instruct("Be brief.").say("hi")
    assert taught(conversation, [SEARCH]).system == f"Be brief.\n\n{SEARCH.preamble}"
    assert taught(conversation, []) == conversation


def test_a_preset_carries_actions(tmp_path):
    (tmp_path / "mine.toml").write_text(
        'format = "alpaca"\n[base]\nkind = "path"\nrepo = "x"\n'
        '[[actions]]\npattern = "SEARCH(<query>)"\ntool = "web.search"\n'
    )
    (action,) = find("mine", tmp_path).actions
    assert action.tool_name == "web_search"


def test_a_wrong_action_in_a_preset_names_the_file(tmp_path):
    (tmp_path / "mine.toml").write_text(
        'format = "alpaca"\n[base]\nkind = "path"\nrepo = "x"\n'
        '[[actions]]\npattern = "SEARCH(<query>"\ntool = "web.search"\n'
    )
    with pytest.raises(UsageError, match=r"mine\.toml"):
        find("mine", tmp_path)
