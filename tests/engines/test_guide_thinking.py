"""Thoughts before a structure, and their budget."""

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from support.checkpoints import save_tiny, tiny_config, tiny_tokenizer
from support.guided import answer, open_tiny

from llmchat import thought_marks
from llmchat.conversation import Message
from llmchat.engines import Sampling
from llmchat.engines.channel_filter import ChannelFilter
from llmchat.engines.guide import Guide, Guides, Mask
from llmchat.engines.stream_filters import ThoughtFilter
from llmchat.engines.tokenizer import Tokenizer
from llmchat.engines.transformers import TransformersEngine
from llmchat.prompt import Parts, Prompt, PromptFormat, ThinkingMarks
from llmchat.structure import from_choices, from_schema

pytestmark = pytest.mark.usefixtures("one_thread")
MARKS = ("<think>", "</think>")
INSIDE, BEFORE = ThinkingMarks(*MARKS, inside=True), ThinkingMarks(*MARKS)
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer", "maximum": 99, "minimum": 0}},
          "required": ["a"], "additionalProperties": False}  # fmt: skip
HOT = Sampling(temperature=5, max_tokens=200, structure=from_schema(SCHEMA), think_budget=20)


@pytest.fixture(scope="module", params=["several tokens", "added tokens", "special tokens"])
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> TransformersEngine:
    """The marks as text and as tokens, and a token that ends one and begins JSON at once."""
    folder = tmp_path_factory.mktemp("thinks")
    save_tiny(folder, tiny_config(vocab_size=323, max_position_embeddings=512))
    tokenizer = tiny_tokenizer()
    if request.param == "several tokens":
        tokenizer.add_tokens(["k>{"])
    else:
        tokenizer.add_tokens([*MARKS], special_tokens=request.param == "special tokens")
    tokenizer.save_pretrained(folder)
    return open_tiny(folder)


def split(text: str, inside: bool) -> tuple[str, str]:
    """The thoughts and the rest of an answer."""
    parser = ThoughtFilter(MARKS, inside=inside)
    pieces = [*parser.feed(text), *parser.flush()]
    return (
        "".join(piece for thought, piece in pieces if thought),
        "".join(piece for thought, piece in pieces if not thought),
    )


def spelt(tokens: Any) -> str:
    return b"".join(token.spelling for token in tokens).decode("utf-8", "replace")


def test_the_structure_begins_where_the_thought_ends(engine: TransformersEngine) -> None:
    thought_lengths = set()
    for seed in range(8):
        sampling = replace(HOT, seed=seed, logprobs=1)
        _, finish, tokens = answer(engine, sampling, thinking=INSIDE)
        assert finish.reason == "stop"
        thought, rest = split(spelt(tokens), True)
        assert 0 <= json.loads(rest)["a"] <= 99
        thought_lengths.add(len(thought))
    assert len(thought_lengths) > 3, "a thought is free"


def test_an_answer_opens_a_thought_or_begins_the_structure(engine: TransformersEngine) -> None:
    kinds = set()
    for seed in range(24):
        _, finish, tokens = answer(engine, replace(HOT, seed=seed, logprobs=1), thinking=BEFORE)
        assert finish.reason == "stop"
        text = spelt(tokens)
        kinds.add(text[:1])
        _, rest = split(text, False)
        assert 0 <= json.loads(rest)["a"] <= 99
        assert not text.startswith("<") or text.startswith("<think>")
    assert kinds == {"<", "{"}


@pytest.mark.parametrize("structure", [HOT.structure, None], ids=["structure", "free"])
@pytest.mark.parametrize("budget", [0, 1, 5])
def test_a_thought_is_closed_when_its_budget_is_used_up(
    engine: TransformersEngine, structure: Any, budget: int
) -> None:
    for seed in range(4):
        sampling = replace(HOT, structure=structure, think_budget=budget, seed=seed, logprobs=1)
        _, _, tokens = answer(engine, replace(sampling, max_tokens=40), thinking=INSIDE)
        text = spelt(tokens)
        end = text.index("</think>")
        spent = 0
        while len(spelt(tokens[:spent])) < end:
            spent += 1
        # A character that has begun is completed.
        assert spent <= budget + 3


def test_without_a_budget_or_a_structure_nothing_is_masked(engine: TransformersEngine) -> None:
    free = Sampling(temperature=5, seed=3, max_tokens=30)
    plain, _, _ = answer(engine, free)
    assert answer(engine, free, thinking=INSIDE)[0] == plain
    assert answer(engine, replace(free, think_budget=500), thinking=INSIDE)[0] == plain


def test_a_model_that_does_not_think_begins_with_the_structure(engine: TransformersEngine) -> None:
    text, finish, _ = answer(engine, replace(HOT, structure=from_choices(["yes", "no"]), seed=1))
    assert text in ("yes", "no")
    assert finish.reason == "stop"


def test_budgets_draw_no_random_number(engine: TransformersEngine) -> None:
    """Forced and free answers go on from the same thought with the same draws."""
    sampling = replace(HOT, seed=4, structure=None, max_tokens=30, think_budget=6)
    texts = [answer(engine, sampling, thinking=INSIDE)[0] for _ in range(2)]
    assert texts[0] == texts[1]
    looked = answer(engine, replace(sampling, logprobs=2), thinking=INSIDE)[0]
    assert looked == texts[0]


def test_a_token_that_ends_a_thought_and_begins_the_structure_is_not_allowed(
    tmp_path: Path,
) -> None:
    """Its beginning would be lost to the structure; the same text in two tokens is fine."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["k>{", "k>\n"])
    tokenizer.save_pretrained(tmp_path)
    tokens = Tokenizer(tmp_path)
    guide = Guides(tokens, 312).guide(Prompt("x", (), thinking=INSIDE), HOT, tokens.end_ids)
    assert guide is not None
    joined, spaced = tokens.id_of("k>{"), tokens.id_of("k>\n")
    assert joined is not None and spaced is not None
    assert joined in mask_of(guide), "in the middle of a thought it is text"
    for token in tokens.ids("a </thin"):
        guide.accept(token)
    mask = mask_of(guide)
    assert joined not in mask
    assert spaced in mask
    assert 2 not in mask, "a thought does not end the answer"


def mask_of(guide: Guide) -> Mask:
    mask = guide.mask()
    assert mask is not None
    return mask


# Prompts


TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content.split('</think>')[-1] }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]"
    "{% if open %}<think>\n{% elif open is defined %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
QUESTION = (Message("user", "hi"),)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [({}, BEFORE), ({"open": True}, INSIDE), ({"open": False}, None)],
    ids=["may open", "opened", "closed"],
)
def test_a_prompt_says_where_its_answer_begins(
    variables: dict[str, Any], expected: ThinkingMarks | None
) -> None:
    form = PromptFormat("t", template=TEMPLATE, template_tokens=variables)
    assert form.render(QUESTION).thinking == expected


def test_a_format_without_marks_never_thinks() -> None:
    written = PromptFormat("p", parts=Parts(user="U: {text}\n", cue="A:"))
    assert written.render(QUESTION).thinking is None


def test_a_continued_answer_is_past_its_thoughts() -> None:
    form = PromptFormat("t", template=TEMPLATE, template_tokens={"open": True})
    prompt = form.extend((*QUESTION, Message("assistant", '{"a": ')))
    assert prompt.thinking is None
    assert prompt.begun == '{"a": '


@pytest.mark.parametrize("special", [True, False], ids=["special tokens", "added tokens"])
def test_thought_in_channels_is_followed_by_the_structure(tmp_path: Path, special: bool) -> None:
    save_tiny(tmp_path, tiny_config(vocab_size=325, max_position_embeddings=512))
    tokenizer = tiny_tokenizer()
    names = ["<|channel|>", "<|message|>", "<|start|>", "<|end|>"]
    tokenizer.add_tokens(names, special_tokens=special)
    tokenizer.save_pretrained(tmp_path)
    engine = open_tiny(tmp_path)
    opening, closing = thought_marks.CHANNELS
    shown = thought_marks.tokens_of(thought_marks.CHANNELS)
    kinds = set()
    for seed in range(12):
        sampling = replace(HOT, seed=seed, think_budget=5)
        marks = ThinkingMarks(opening, closing)
        text, finish, _ = answer(engine, sampling, thinking=marks, shown_tokens=shown)
        assert finish.reason == "stop"
        room = ChannelFilter()
        parts = [*room.feed(text), *room.flush()]
        rest = "".join(part for thought, part in parts if not thought)
        assert 0 <= json.loads(rest)["a"] <= 99
        kinds.add(text.startswith(opening) and closing in text)
    assert kinds == {True, False}
