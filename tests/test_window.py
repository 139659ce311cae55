"""Fitting a conversation into the window: invariants, and each policy by example."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from llmchat import window as windows
from llmchat.conversation import Conversation, Message
from llmchat.errors import ContextOverflow
from llmchat.presets import ContextPolicy, Preset, find, get_format
from llmchat.prompt import Prompt
from llmchat.window import Window


class Words:
    """Counts words and line ends.

    As with real tokenizers, joined pieces can have more tokens than apart.
    """

    def count(self, text: str) -> int:
        return len(text.split()) + text.count("\n")

    def encode(self, prompt: Prompt) -> list[int]:
        return list(range(1 + self.count(prompt.text)))


WORDS = Words()


def fit(
    conversation: Conversation, preset: Preset, engine: Words, context: int, max_tokens: int
) -> Window:
    window, prompt = windows.fit(conversation, preset, engine, context, max_tokens)
    # What was counted is what is sent.
    assert prompt == preset.format.render(window.messages)
    assert len(engine.encode(prompt)) == window.tokens
    return window


def preset(policy: str = "drop-oldest", form: str = "chatml", **settings: object):  # type: ignore[no-untyped-def]
    return replace(
        find("smollm2"), format=get_format(form), context=ContextPolicy(policy, **settings)
    )  # type: ignore[arg-type]


def talk(*sizes: int, system: str = "") -> Conversation:
    """Turns with `sizes` words in question and answer, then a question of three words."""
    conversation = Conversation().instruct(system) if system else Conversation()
    for number, size in enumerate(sizes):
        conversation = conversation.say(f"q{number} " + "word " * (size - 1)).answer("word " * size)
    return conversation.say("the last question")


def first_question(window: Window) -> str:
    return next(message.text.split()[0] for message in window.messages if message.role == "user")


sizes = st.lists(st.integers(1, 40), max_size=30)
policies = st.sampled_from(["drop-oldest", "last-n"])


@settings(max_examples=300, deadline=None)
@given(
    sizes,
    st.integers(80, 400),
    st.integers(1, 30),
    policies,
    st.sampled_from(["chatml", "alpaca", "dialogue"]),
    st.booleans(),
    st.floats(0.2, 1),
)
def test_what_holds_for_every_window(
    turns: list[int],
    limit: int,
    max_tokens: int,
    policy: str,
    form: str,
    has_system: bool,
    low_water: float,
) -> None:
    limit += 60 if form == "dialogue" else 0
    conversation = talk(*turns, system="be kind" if has_system else "")
    window = fit(
        conversation,
        preset(policy, form, tokens=limit, low_water=low_water),
        WORDS,
        10_000,
        max_tokens,
    )
    spoken = [message for message in window.messages if message.role != "system"]
    assert window.tokens + window.reserve <= window.limit == limit and window.reserve == max_tokens
    assert window.tokens == len(WORDS.encode(get_format(form).render(window.messages)))
    assert tuple(spoken) == conversation.spoken[-len(spoken) :], (
        "a whole end of the conversation, in order"
    )
    assert spoken[0].role == "user" and spoken[-1].text == "the last question"
    assert (window.messages[0].role == "system") == has_system, "the system text stays"
    assert len(window.ledger) == len(conversation.spoken) + has_system and window.sent == len(
        window.messages
    )
    assert window.dropped + window.sent == len(window.ledger)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=25))
def test_the_start_moves_only_when_the_room_is_full(turns: list[int]) -> None:
    """Between two overflows the start of the prompt stays the same, and so does the KV cache."""
    moves, longest, previous = 0, 0, None
    for count in range(len(turns) + 1):
        window = fit(talk(*turns[:count]), preset(tokens=200), WORDS, 10_000, 20)
        start = first_question(window)
        if previous is not None and start != previous:
            moves += 1
            # An overflow empties the window down to the low-water mark.
            assert window.tokens <= 0.75 * 180 + 30 + 12
        previous = start
        longest = max(longest, window.tokens)
    assert moves <= sum(turns) * 2 / 20 + 1
    assert longest <= 180


def test_the_same_conversation_gives_the_same_window_whatever_came_between() -> None:
    long = talk(*[20] * 12)
    assert fit(long, preset(tokens=300), WORDS, 10_000, 20) == fit(
        long.answer("x").undo().say("the last question"), preset(tokens=300), WORDS, 10_000, 20
    )


def test_last_n_keeps_the_last_turns_and_no_more_than_fit() -> None:
    assert (
        first_question(fit(talk(5, 5, 5, 5, 5), preset("last-n", turns=3), WORDS, 1000, 20)) == "q3"
    )
    assert (
        first_question(fit(talk(5, 5, 5, 60, 60), preset("last-n", turns=3), WORDS, 200, 20))
        == "q4"
    )


def test_refuse_drops_nothing() -> None:
    assert fit(talk(5, 5), preset("refuse"), WORDS, 200, 20).dropped == 0
    with pytest.raises(
        ContextOverflow, match=r"the conversation is \d+ tokens; a window of 60 holds 40"
    ):
        fit(talk(20, 20), preset("refuse"), WORDS, 60, 20)


def test_a_message_that_can_never_fit_names_both_numbers() -> None:
    conversation = talk(5, 5).answer("ok").say("word " * 300)
    with pytest.raises(
        ContextOverflow, match=r"the last message needs 30\d tokens; a window of 200 holds 180"
    ) as refused:
        fit(conversation, preset(), WORDS, 200, 20)
    assert refused.value.exit_code == 7


def test_room_for_the_answer() -> None:
    assert fit(talk(), preset(), WORDS, 8192, 0).reserve == 1024
    assert fit(talk(), preset(), WORDS, 400, 0).reserve == 100
    assert fit(talk(), preset(), WORDS, 400, 250).reserve == 250
    assert fit(talk(), preset(), WORDS, 400, 5000).reserve == 300, (
        "a quarter stays for the conversation"
    )


def test_the_window_is_the_smaller_of_the_models_and_the_wanted_one() -> None:
    assert fit(talk(), preset(tokens=500), WORDS, 2000, 0).limit == 500
    assert fit(talk(), preset(tokens=5000), WORDS, 2000, 0).limit == 2000


def test_a_question_without_an_answer_is_left_out_and_said() -> None:
    conversation = Conversation().say("first").say("second").answer("yes").say("third")
    window = fit(conversation, preset(), WORDS, 500, 20)
    assert [message.text for message in window.messages] == ["second", "yes", "third"]
    assert [(entry.start, entry.fate) for entry in window.ledger] == [
        ("first", "unanswered"),
        ("second", "sent"),
        ("yes", "sent"),
        ("third", "sent"),
    ]


def test_the_last_system_text_holds_and_stands_first() -> None:
    conversation = Conversation().instruct("old").say("a").answer("b").instruct("new").say("c")
    window = fit(conversation, preset(), WORDS, 500, 20)
    assert window.messages[0] == Message("system", "new") and [
        message.role for message in window.messages[1:]
    ] == [
        "user",
        "assistant",
        "user",
    ]


def marked(conversation: Conversation, *marks: tuple[int, str]) -> Conversation:
    """With marks on spoken messages, counted from 1."""
    messages = list(conversation.messages)
    for number, mark in marks:
        messages[number - 1] = replace(messages[number - 1], mark=mark)  # type: ignore[arg-type]
    return Conversation(tuple(messages))


def test_what_is_pinned_stays_and_what_is_excluded_goes() -> None:
    conversation = marked(talk(30, 30, 30, 30), (1, "pinned"), (6, "excluded"))
    window = fit(conversation, preset(tokens=200), WORDS, 10_000, 20)
    fates = [entry.fate for entry in window.ledger]
    assert (
        fates[:2] == ["pinned", "pinned"]
        and fates[4:6] == ["excluded", "excluded"]
        and "dropped" in fates
    )
    assert window.messages[0].text.startswith("q0 ") and not any(
        message.text.startswith("q2 ") for message in window.messages
    )
    assert window.tokens + window.reserve <= 200 and window.sent == len(window.messages)


def test_pins_that_leave_no_room_are_named_in_the_error() -> None:
    conversation = marked(talk(60, 60), (1, "pinned"), (3, "pinned"))
    with pytest.raises(ContextOverflow, match="and what is pinned need") as refused:
        fit(conversation, preset(tokens=150), WORDS, 10_000, 20)
    assert "/unpin" in refused.value.hint


def test_a_summary_takes_the_place_of_what_it_covers() -> None:
    conversation = (
        Conversation()
        .instruct("be kind")
        .say("one")
        .answer("two")
        .say("three")
        .answer("four")
        .summarise("numbers", 2)
        .say("next")
    )
    window = fit(conversation, preset("summary"), WORDS, 10_000, 20)
    assert window.messages[0].text == "be kind\n\nSummary of the conversation so far:\nnumbers"
    assert [message.text for message in window.messages[1:]] == ["three", "four", "next"]
    assert [entry.fate for entry in window.ledger] == [
        "sent",
        "sent",
        "summarised",
        "summarised",
        "sent",
        "sent",
        "sent",
    ]
    assert [entry.number for entry in window.ledger] == [0, 0, 1, 2, 3, 4, 5]


def test_what_a_summary_would_have_to_cover() -> None:
    conversation = talk(30, 30, 30, 30)
    window = fit(conversation, preset("summary", tokens=200), WORDS, 10_000, 20)
    assert window.left_out == conversation.spoken[: window.covers] and window.covers >= 2
    assert fit(conversation, preset("summary"), WORDS, 10_000, 20).left_out == ()


def test_material_has_its_own_line() -> None:
    conversation = Conversation().say("What is this?", "a long letter")
    window = fit(conversation, preset(), WORDS, 10_000, 20)
    assert [(entry.role, entry.fate, entry.tokens, entry.number) for entry in window.ledger] == [
        ("file", "attached", 3, 1),
        ("user", "sent", 3, 1),
    ]
