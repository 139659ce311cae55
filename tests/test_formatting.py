"""Numbers with their nouns."""

from llmchat.formatting import counted


def test_one_is_singular_and_all_else_plural() -> None:
    assert [counted(count, "chat") for count in (0, 1, 2000)] == [
        "0 chats",
        "1 chat",
        "2,000 chats",
    ]
    assert [counted(count, "reply", "replies") for count in (1, 2)] == ["1 reply", "2 replies"]
