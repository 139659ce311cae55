"""From records to token ids: the same as the chat's, with the loss on what the model writes, and
always an end to learn.
"""

from pathlib import Path

import pytest
from msgspec.structs import replace
from support.checkpoints import tiny_tokenizer

from llmchat.conversation import Message
from llmchat.engines.tokenizer import Tokenizer
from llmchat.errors import UsageError
from llmchat.finetune.examples import IGNORED, Example, write_example, write_examples
from llmchat.finetune.recipes import get_recipe, recipes
from llmchat.finetune.records import Record
from llmchat.presets import formats, get_format

RECIPE = get_recipe("default")
EOS = 2
QUESTION, ANSWER = (
    Message("user", "the quick brown fox", "jumps over"),
    Message("assistant", "the lazy dog"),
)
ALPACA = get_format("alpaca")


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer().save_pretrained(folder)
    (folder / "config.json").write_text('{"eos_token_id": 2}')
    return Tokenizer(folder)


def learnt(example: Example) -> list[int]:
    return [label for label in example.labels if label != IGNORED]


@pytest.mark.parametrize("name", [name for name in formats() if get_format(name).parts])
def test_an_example_begins_with_the_ids_of_the_chat(name: str, tokens: Tokenizer) -> None:
    """The prompt of a training example is, id for id, the prompt of a chat."""
    form = get_format(name)
    example = write_example(Record((QUESTION, ANSWER), "x:1"), form, tokens, RECIPE)
    sent = tokens.encode(form.render([QUESTION]))
    assert example.ids[: len(sent)] == sent
    assert example.labels[: len(sent)] == [IGNORED] * len(sent) and all(
        label != IGNORED for label in example.labels[len(sent) :]
    )
    assert example.ids[-1] in tokens.stop_ids(form.render([QUESTION])), "an end is always learnt"


def test_the_answer_and_its_end_are_learnt_and_nothing_else(tokens: Tokenizer) -> None:
    example = write_example(Record((QUESTION, ANSWER), "x:1"), ALPACA, tokens, RECIPE)
    assert learnt(example)[-1] == EOS and tokens.decoder and example.learnt == len(learnt(example))
    read = tokens.decoder()
    assert "".join(read(token) for token in learnt(example)[:-1]) == "the lazy dog"


def test_every_answer_of_a_chat_is_learnt(tokens: Tokenizer) -> None:
    record = Record((Message("system", "Be brief."), QUESTION, ANSWER, QUESTION, ANSWER), "x:1")
    one, two = (
        write_example(replace(record, messages=messages), get_format("chatml"), tokens, RECIPE)
        for messages in (record.messages[:3], record.messages)
    )
    assert two.learnt == 2 * one.learnt and two.ids[: len(one.ids)] == one.ids


def test_a_text_without_speakers_is_learnt_whole(tokens: Tokenizer) -> None:
    example = write_example(Record((), "x:1", "the quick brown fox"), ALPACA, tokens, RECIPE)
    assert example.ids == example.labels and example.ids[-1] == EOS


def test_the_published_recipe_counts_the_prompt_too(tokens: Tokenizer) -> None:
    example = write_example(
        Record((QUESTION, ANSWER), "x:1"), ALPACA, tokens, get_recipe("alpaca-lora")
    )
    assert example.labels == example.ids


def test_long_records_are_skipped_or_cut_and_counted(tokens: Tokenizer) -> None:
    records = [
        Record((QUESTION, ANSWER), "x:1"),
        Record((QUESTION, Message("assistant", "the lazy dog " * 500)), "x:2"),
    ]
    skipping = write_examples(records, ALPACA, tokens, replace(RECIPE, cutoff=300))
    assert (len(skipping.examples), skipping.skipped, skipping.cut) == (1, 1, 0)
    cutting = write_examples(records, ALPACA, tokens, replace(RECIPE, cutoff=300, long="cut"))
    assert (len(cutting.examples), cutting.skipped, cutting.cut) == (2, 0, 1)
    assert len(cutting.examples[1].ids) == 300 and cutting.examples[1].ids[-1] != EOS, (
        "a cut record has no end, as it was published"
    )


def test_a_record_that_the_format_cannot_write_is_named(tokens: Tokenizer) -> None:
    with pytest.raises(UsageError, match=r"data\.json:7: "):
        write_example(Record((ANSWER, QUESTION, ANSWER), "data.json:7"), ALPACA, tokens, RECIPE)


def test_recipes_say_where_they_come_from() -> None:
    assert {"default", "alpaca-lora", "alpaca-lora-16"} <= set(recipes())
    for name in recipes():
        assert get_recipe(name).source and get_recipe(name).notes
    published = get_recipe("alpaca-lora")
    assert (
        published.rank, published.alpha, published.targets, published.learning_rate,
        published.batch, published.cutoff, published.warmup_steps,
    ) == (
        8, 16, ("q_proj", "v_proj"), 3e-4, 128, 256, 100,
    )  # fmt: skip
    assert (
        get_recipe("alpaca-lora-16").targets == ("q_proj", "k_proj", "v_proj", "o_proj")
        and get_recipe("alpaca-lora-16").rank == 16
    )


@pytest.mark.parametrize(
    ("name", "changes", "line"),
    [
        ("defalt", {}, "unknown recipe `defalt`"),
        ("default", {"rank": 0}, r">= 1.*rank"),
        ("default", {"learning_rate": -1.0}, "learning_rate"),
        ("default", {"base": "int3"}, "base"),
        ("nowhere.toml", {}, "unknown recipe"),
    ],
)
def test_impossible_recipes_are_refused(name: str, changes: dict[str, object], line: str) -> None:
    with pytest.raises(UsageError, match=line):
        get_recipe(name, changes)


def test_a_recipe_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("rank = 4\nbatch = 2\n")
    recipe = get_recipe(str(path), {"alpha": 9.0})
    assert (recipe.name, recipe.rank, recipe.alpha, recipe.micro_batch) == ("mine", 4, 9.0, 2)
