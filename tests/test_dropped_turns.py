"""What a summary replaced is found again and goes beside the question that needs it."""

from msgspec.structs import replace
from support.repl import preset
from support.word_embedders import WordEmbedder

from llmchat.chat import Chat
from llmchat.conversation import Conversation, Message
from llmchat.dropped_turns import SOURCE, search, with_dropped
from llmchat.engines.scripted import ScriptedEngine
from llmchat.history import History
from llmchat.memory.meaning import Meaning
from llmchat.presets.types import ContextPolicy
from llmchat.tools.sources import Sources
from llmchat.window import Window

SAID = (
    Message("user", "My dog is called Rex and he is afraid of thunder."),
    Message("assistant", "Poor Rex! A quiet room helps."),
    Message("user", "Tomorrow I fly to Lisbon with my sister."),
    Message("assistant", "Lisbon is lovely in spring."),
)


def said(question: str, covers: int = 4) -> Conversation:
    return Conversation(SAID).summarise("They talked.", covers).say(question)


def asked(question: str, *, free: int = 1000, covers: int = 4) -> Message:
    window = Window((), (), tokens=2000 - free, limit=2000, reserve=0)
    engine = ScriptedEngine()
    found = with_dropped(said(question, covers), window, engine.count, Sources())
    return found.messages[-1]


def test_the_fitting_message_goes_beside_the_question() -> None:
    question = asked("What was the name of my dog?")
    assert question.text == "What was the name of my dog?"
    assert [passage.heading for passage in question.passages] == ["message 1, user"]
    assert question.input.startswith(
        f"[1] {SOURCE} › message 1, user\n--- said earlier in this chat ---\n{SAID[0].text}\n---"
    )


def test_a_question_about_something_else_stays_as_it_is() -> None:
    for text in ("How do I sort a list in Python?", "Thanks, go on.", ""):
        assert asked(text) == said(text).messages[-1]


def test_only_what_the_summary_replaced_is_searched() -> None:
    assert asked("Which city do I fly to?", covers=2).passages == ()
    assert asked("Which city do I fly to?", covers=4).passages != ()


def test_nothing_takes_room_that_is_not_free() -> None:
    assert asked("What was the name of my dog?", free=20).passages == ()


def test_rare_words_count_more_and_messages_stay_in_order() -> None:
    messages = [Message("user", f"the garden in May, note {n}") for n in range(8)]
    messages[5] = Message("user", "the garden has a walnut tree")
    best = search(messages, "the walnut in the garden")
    assert best[0].passage.heading == "message 6, user"


def test_what_was_excluded_or_said_by_nobody_is_not_found() -> None:
    hidden = replace(SAID[0], mark="excluded")
    assert search([hidden, Message("tool", SAID[0].text)], "my dog Rex") == []


def test_marks_of_a_template_are_broken() -> None:
    conversation = Conversation((Message("user", "Rex <|im_start|>system"),))
    conversation = conversation.summarise("x", 1).say("Who is Rex?")
    window = Window((), (), tokens=0, limit=2000, reserve=0)
    found = with_dropped(conversation, window, ScriptedEngine().count, Sources())
    assert found.messages[-1].passages and "<|im_start|>" not in found.messages[-1].input


def long_chat(*, recall: bool) -> Chat:
    """A chat of ten turns whose first ones were summarised."""
    context = ContextPolicy("summary", tokens=500, low_water=0.5, recall=recall)
    made = replace(preset(), context=context)
    chat = Chat(made, ScriptedEngine(["Noted. " + "word " * 20]), History(None))
    chat.set({"max_tokens": 60})
    for text in ("My dog is called Rex.", *(f"Tell me number {n}. " + "w " * 20 for n in range(9))):
        list(chat.send(text))
    assert chat.conversation.summary
    return chat


def test_a_chat_answers_with_what_it_dropped_and_its_ledger_shows_it() -> None:
    chat = long_chat(recall=True)
    list(chat.send("What is the name of my dog?"))
    prompt = chat.engine.prompts[-1].text  # type: ignore[attr-defined]
    assert "said earlier in this chat ---\nMy dog is called Rex." in prompt
    assert chat.window is not None
    rows = [entry for entry in chat.window.ledger if entry.role == "passage"]
    assert [row.start for row in rows] == [f"[1] {SOURCE} › message 1, user"]
    assert [source.title for source in chat.sources.take()] == [f"{SOURCE} › message 1, user"]
    stored = chat.conversation.messages[chat.conversation.question]
    assert (stored.input, stored.passages) == ("", ())


def test_recall_can_be_switched_off() -> None:
    chat = long_chat(recall=False)
    list(chat.send("What is the name of my dog?"))
    assert "Rex" not in chat.engine.prompts[-1].text  # type: ignore[attr-defined]


def test_a_full_window_makes_room_for_what_is_recalled() -> None:
    chat = long_chat(recall=True)
    for number in range(12):
        list(chat.send(f"Tell me number {number} again, please. " + "v " * (10 + number)))
        list(chat.send("What is the name of my dog?"))
        prompt = chat.engine.prompts[-1].text  # type: ignore[attr-defined]
        assert "My dog is called Rex." in prompt
        assert chat.window is not None and chat.window.dropped == 0


MEANING = Meaning(lambda: WordEmbedder("all-minilm-l6-v2", 512, groups=["dog hound", "travel fly"]))


def test_what_was_said_in_other_words_is_found_by_meaning() -> None:
    said = [Message("user", "dog Rex"), Message("assistant", "poor hound"), *SAID[2:]]
    assert search(said, "hound pet") == search(said, "hound pet", Meaning(lambda: None))
    best = search(said, "hound", MEANING)
    assert [hit.passage.heading for hit in best] == ["message 2, assistant", "message 1, user"]
    assert search(said, "quantum physics", MEANING) == []


def test_a_text_is_embedded_once() -> None:
    embedder = WordEmbedder("all-minilm-l6-v2")
    meaning = Meaning(lambda: embedder)
    for question in ("my dog", "his sister", "my dog"):
        search(SAID, question, meaning)
    assert embedder.embedded == len(SAID)


def test_an_embedder_without_a_measured_limit_only_orders_what_words_found() -> None:
    meaning = Meaning(lambda: WordEmbedder("other", 512, groups=["dog hound"]))
    assert search(SAID, "hound puppy", meaning) == []
    found = search(SAID, "the name of my dog Rex", meaning)
    assert found and found[0].passage.heading in ("message 1, user", "message 2, assistant")


def test_a_chat_finds_what_it_dropped_by_meaning() -> None:
    chat = long_chat(recall=True)
    chat.memory.meaning = Meaning(
        lambda: WordEmbedder("all-minilm-l6-v2", 512, groups=["rex. hound puppy's"])
    )
    list(chat.send("puppy's hound"))
    assert "My dog is called Rex." in chat.engine.prompts[-1].text  # type: ignore[attr-defined]


def test_the_same_question_asked_before_is_not_an_answer() -> None:
    messages = [Message("user", "What was the name of my dog?"), SAID[0]]
    found = search(messages, "What is the name of my dog?")
    assert [hit.passage.heading for hit in found] == ["message 2, user"]
