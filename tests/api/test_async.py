"""The async twins: the loop goes on while the model works."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support.scripted_api import scripted, with_demo

import llmchat
from llmchat.api.async_chat import AsyncChat, _Thread
from llmchat.errors import UsageError
from llmchat.settings import World


def twin(*arguments: Any, **more: Any) -> AsyncChat[Any]:
    return AsyncChat(scripted(*arguments, **more), _Thread())


async def test_say_ask_and_stream(tmp_path: Path) -> None:
    async with twin(tmp_path, "One two.", "Three.") as chat:
        assert [piece async for piece in chat.say("Count.")] == ["One", " two", "."]
        answer = await chat.ask("Go on.")
        assert answer.text == "Three." and chat.answer is answer
        events = [type(event) async for event in chat.stream("More?")]
        assert events[0] is llmchat.Window and events[-1] is llmchat.Finish
        assert (await chat.again()).text == "Three."


async def test_open_async_awaits_or_is_a_block(world: World) -> None:
    with_demo(world)
    async with llmchat.open_async("demo", world=world, save=True) as chat:
        assert (await chat.ask("Hello")).text.startswith("You wrote")
        session = await chat.save("A title")
    again = await llmchat.open_async(session=session, world=world)
    assert len(again.messages) == 2
    await again.close()
    with pytest.raises(llmchat.NotPulled):
        await llmchat.open_async("smollm2", world=world)


async def test_the_loop_goes_on_while_the_model_writes(world: World, tmp_path: Path) -> None:
    chat = twin(tmp_path, "word " * 50)
    chat._chat._model.opened.engine._delay_s = 0.005  # type: ignore[attr-defined]
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    ticking = asyncio.create_task(tick())
    await chat.ask("Write.")
    ticking.cancel()
    assert ticks > 20
    await chat.close()


async def test_a_cancelled_task_cancels_its_answer_and_the_chat_goes_on(tmp_path: Path) -> None:
    chat = twin(tmp_path, "word " * 100, "Fine.")
    engine: Any = chat._chat._model.opened.engine
    engine._delay_s = 0.01
    task = asyncio.create_task(chat.ask("Write."))
    while not engine.prompts:
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert chat.answer is not None and chat.answer.finish_reason == "cancelled"
    engine._delay_s = 0.0
    assert (await chat.ask("Go on.")).text == "Fine."
    await chat.close()


async def test_a_block_that_is_left_cancels(tmp_path: Path) -> None:
    chat = twin(tmp_path, "One two three.")
    async with chat.say("Count.") as pieces:
        async for piece in pieces:
            if "two" in piece:
                break
    assert pieces.answer.text == "One two" and pieces.answer.finish_reason == "cancelled"
    await chat.close()


async def test_chats_of_one_model_answer_all(tmp_path: Path) -> None:
    chat = twin(tmp_path, "a")
    others = [await chat.new() for _ in range(4)]
    answers = await asyncio.gather(*(one.ask("x") for one in others))
    assert [one.text for one in answers] == ["a"] * 4
    for one in (chat, *others):
        await one.close()
    with pytest.raises(UsageError, match="closed"):
        chat.say("x")


async def test_a_coroutine_as_a_tool_runs_in_the_loop(tmp_path: Path) -> None:
    found: list[asyncio.AbstractEventLoop] = []

    async def look() -> str:
        found.append(asyncio.get_running_loop())
        return "seen"

    call = '<tool_call>\n{"name": "look", "arguments": {}}\n</tool_call>'
    chat = twin(tmp_path, call, "done", tools=[look])
    answer = await chat.ask("Look.")
    assert answer.tool_calls[0].result == "seen" and found == [asyncio.get_running_loop()]
    await chat.close()
