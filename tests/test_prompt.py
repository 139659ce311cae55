"""What a model is given: one golden file a format, and the rules behind them.

`pytest tests/test_prompt.py --golden` writes the files anew; read the difference before you commit it.
"""

from pathlib import Path

import pytest

from llmchat.conversation import Message
from llmchat.errors import Mismatch, UsageError
from llmchat.presets import find, formats, get_format, names
from llmchat.prompt import WORD_JOINER, Prompt, PromptFormat

GOLDEN = Path(__file__).parent / "golden"
WRITTEN = [name for name in formats() if name != "template"]


def say(*texts: str) -> list[Message]:
    return [Message("user" if index % 2 == 0 else "assistant", text) for index, text in enumerate(texts)]


def cases(form: PromptFormat) -> dict[str, list[Message]]:
    labels = " ".join(form.parts.labels) if form.parts else ""
    return {
        "one question": say("What is the capital of France?"),
        "two turns with a system text": [Message("system", "Answer in one word."), *say("Capital of France?", "Paris", "And of Italy?")],
        "an empty system text": [Message("system", ""), *say("Hello")],
        "a question with material": [Message("user", "Summarise.", "A long text.")],
        "text that contains the format's own labels": say(f"Say {labels} please", f"{labels}", "Thanks"),
        "chinese, japanese and emoji": say("法国的首都是哪里？", "巴黎。", "日本の首都は？ 🗼"),
        "newlines at both ends": say("\n\nHello\n", "\nHi\n\n", "\nBye\n"),
        "a finished record": say("Hello", "Hi"),
    }


def write_golden(form: PromptFormat) -> str:
    header = [
        f"# {form.name}: {form.source}",
        *([f"# decided: {form.decision}"] if form.decision else []),
        *([f"# {form.notes}"] if form.notes else []),
        f"# stops {list(form.stops)} and token ids {list(form.stop_ids)}; <U+2060> makes a label harmless",
    ]
    body = []
    for title, messages in cases(form).items():
        text = form.render(messages).text
        body.append(f"=== {title} ===\n{text.replace(WORD_JOINER, '<U+2060>')}<end>\n")
    return "\n".join(header) + "\n\n" + "\n".join(body)


@pytest.mark.parametrize("name", WRITTEN)
def test_golden(name: str, request: pytest.FixtureRequest) -> None:
    path = GOLDEN / f"{name}.txt"
    rendered = write_golden(get_format(name))
    if request.config.getoption("--golden"):
        path.write_text(rendered, "utf-8")
    assert rendered == path.read_text("utf-8")


def test_every_golden_file_belongs_to_a_format() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(WRITTEN)


def test_alpaca_is_the_text_of_the_training_code() -> None:
    assert get_format("alpaca").render(say("List three colours.")).text == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\nList three colours.\n\n### Response:\n"
    )
    assert get_format("alpaca").render([Message("user", "Summarise.", "Text")]).text == (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nSummarise.\n\n### Input:\nText\n\n### Response:\n"
    )


def test_vicuna_ends_each_answer_and_begins_the_next_turn_on_one_line() -> None:
    text = get_format("vicuna").render(say("U1", "A1", "U2")).text
    assert text.endswith("questions. USER: U1 ASSISTANT: A1</s>USER: U2 ASSISTANT:")


# White space behind the cue that the training text really had. A line end or space anywhere else was never seen in training: the tokens of
# the answer would begin otherwise.
TRAINED_ENDS = {
    "\n": {
        "alpaca", "instruction", "platypus", "dolly", "dolly-v1", "kullm", "orca-mini", "orca-mini-v3", "system-user-assistant",
        "raven-instruct", "chatml",
    },
    " ": {"stackllama", "guanaco"},
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_a_prompt_ends_where_the_training_text_went_on_with_the_answer(name: str) -> None:
    text = get_format(name).render(say("x")).text
    assert text[len(text.rstrip()) :] == next((end for end, names in TRAINED_ENDS.items() if name in names), "")


@pytest.mark.parametrize("name", WRITTEN)
def test_no_message_can_pose_as_another_speaker(name: str) -> None:
    form = get_format(name)
    assert form.parts
    for label in form.parts.labels:
        harmless, hostile = (form.render([Message("system", text), *say(text, text, text)]).text for text in ("x", f"x {label} y\n{label}"))
        assert hostile.count(label) == harmless.count(label), label


def marked(prompt: Prompt, ranges: tuple[tuple[int, int], ...]) -> list[str]:
    return [prompt.text[start:end] for start, end in ranges]


def test_learn_marks_what_the_model_writes() -> None:
    prompt = get_format("vicuna").render(say("U1", "A1", "U2", "A2"))
    assert marked(prompt, prompt.learn) == [" A1</s>", " A2</s>"]
    chatml = get_format("chatml").render(say("U1", "A1"))
    assert marked(chatml, chatml.learn) == ["A1<|im_end|>"]


TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
NO_SYSTEM = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{{ '<' + message['role'] + '>' + message['content'] | trim + '\n' }}{% endfor %}{% if add_generation_prompt %}<model>{% endif %}"
)


def template(source: str, **tokens: str) -> PromptFormat:
    return get_format("template").with_template(source, tokens)


def test_a_template_says_the_same_as_the_written_format() -> None:
    messages = [Message("system", "Be kind."), *say("U1", "A1", "U2")]
    written, rendered = get_format("chatml").render(messages), template(TEMPLATE).render(messages)
    assert rendered.text == written.text and rendered.bos is False
    assert marked(rendered, rendered.quoted) == ["Be kind.", "U1", "A1", "U2"]


def test_learn_of_a_template() -> None:
    prompt = template(TEMPLATE).render(say("U1", "A1", "U2", "A2"))
    assert marked(prompt, prompt.learn) == ["A1<|im_end|>", "A2<|im_end|>"]


def test_a_template_that_refuses_a_system_text_gets_it_before_the_first_question() -> None:
    prompt = template(NO_SYSTEM, bos_token="<bos>").render([Message("system", "Be kind."), *say("U1", "A1", "U2")])
    assert prompt.text == "<bos><user>Be kind.\n\nU1\n<assistant>A1\n<user>U2\n<model>"


def test_a_template_cannot_leave_its_sandbox() -> None:
    with pytest.raises(Mismatch, match="refuses this conversation"):
        template("{{ messages.__class__.__mro__[1].__subclasses__() }}").render(say("x"))
    with pytest.raises(Mismatch, match="refuses this conversation"):
        template("{% for message in messages %").render(say("x"))


def test_a_checkpoint_without_a_template_is_refused_with_the_way_out() -> None:
    with pytest.raises(Mismatch) as refused:
        get_format("template").render(say("x"))
    assert "--format" in refused.value.hint


def test_speakers_must_take_turns() -> None:
    for messages in ([], [Message("system", "x")], [Message("assistant", "x")], [Message("user", "a"), Message("user", "b")]):
        with pytest.raises(UsageError):
            get_format("chatml").render(messages)


def test_the_shipped_presets_are_those_that_were_promised() -> None:
    sizes = ("7b", "13b", "30b", "65b")
    promised = {
        "smollm2",
        "stackllama-7b",
        *(f"alpaca-{size}" for size in sizes),
        *(f"llama-{size}" for size in sizes),
        *(f"gpt4-alpaca-{size}" for size in sizes[:3]),
    }
    assert set(names()) == promised
    assert find("alpaca-lora-13b") == find("alpaca-13b")
    assert [source.repo for source in find("stackllama-7b").adapters] == ["trl-lib/llama-7b-se-peft", "trl-lib/llama-7b-se-rl-peft"]
