"""Conversations are values."""

from llmchat.conversation import Conversation, Message


def test_every_change_returns_a_new_conversation() -> None:
    first = Conversation().say("hello")
    second = first.answer("hi")
    assert first.messages == (Message("user", "hello"),) and second.messages[1] == Message(
        "assistant", "hi"
    )


def test_undo_takes_whole_turns_back() -> None:
    talk = Conversation().instruct("be kind").say("a").answer("b").say("c").answer("d")
    assert talk.undo() == Conversation().instruct("be kind").say("a").answer("b")
    assert talk.undo(2) == talk.undo(9) == Conversation().instruct("be kind")
    assert Conversation().undo() == Conversation()


def test_the_last_system_text_holds() -> None:
    assert Conversation().instruct("one").say("a").instruct("two").system == "two"
    assert Conversation().say("a").system == ""
