"""A process that benchmarks/engine.py starts: llmchat's engine, and the checkpoints it measures.

usage: python benchmarks/engine_inside.py FOLDER chat|repeats|"perplexity KIND"

It has more measures than `llmchat bench`; the protocol is that of llmchat/bench/peer_protocol.py.
"""

import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from basics import TEXT, perplexity_of
from safetensors.torch import load_file, save_file

from llmchat.bench.peer_protocol import DECODE, SHORT, Measures, serve
from llmchat.bench.worker import measures_of
from llmchat.chat import Chat
from llmchat.conversation import Message
from llmchat.engines import Chunk, Finish, Sampling
from llmchat.history import History
from llmchat.models.open_model import OpenModel
from llmchat.models.opener import ModelOpener
from llmchat.prompt import Prompt
from llmchat.settings import World

RANK, TURNS, REPLY_TOKENS = 16, 20, 16
QUESTION = "Tell me one short fact about the number {}, please."
# When the model repeats a text, it replaces one word in so many.
WORDS_PER_EDIT = 12
WORDS = 240
CODE = """def area(width, height):
    result = width * height
    print('the area is', result)
    return result
"""


def load(folder: Path, kind: str) -> Measures:
    import torch

    if kind.startswith("perplexity"):
        engine = open_model(folder, kind.split()[1]).engine
        return {"perplexity": lambda: perplexity_of(engine)}
    torch.manual_seed(0)
    opened = open_model(folder, "int8")
    engine = opened.engine
    if kind == "repeats":
        prompts = [Prompt(repeated_words(folder)[0], ())]
    else:
        prompts = [prompt_of(opened, text) for text in repetitive_questions()]
    measures = {"drafts": lambda: drafts(opened, prompts)}
    if kind == "chat":
        engine.load_adapter("random", save_adapter(folder))
        measures |= {"turns": lambda: turns(opened), "adapter": lambda: adapter(opened)}
    return without_drafts(measures_of(engine), engine) | measures


def open_model(folder: Path, weights: str) -> OpenModel:
    return ModelOpener(World.real(), {"model": str(folder), "weights": weights}).open()


def without_drafts(measures: Measures, engine: Any) -> Measures:
    """The measures of `llmchat bench`, which runs without prompt-lookup decoding."""

    def without(measure: Any) -> Any:
        def run() -> Any:
            engine.drafts = False
            return measure()

        return run

    return {name: without(measure) for name, measure in measures.items()}


def answer(
    engine: Any, prompt: Prompt, sampling: Sampling, adapters: tuple[tuple[str, float], ...] = ()
) -> tuple[str, Finish]:
    text, answering = "", engine.begin(prompt, sampling, adapters)
    try:
        while not answering.done:
            for event in engine.step([answering])[0]:
                if isinstance(event, Chunk):
                    text += event.text
                else:
                    finish = event
    finally:
        answering.close()
    return text, finish


def adapter(opened: OpenModel) -> dict[str, float]:
    """Tokens a second with a live adapter on all linears, and with none, interleaved."""
    engine: Any = opened.engine
    engine.drafts = False
    sampling = Sampling(temperature=0, max_tokens=DECODE, ignore_eos=True)
    rates: dict[str, list[float]] = {"none": [], "live": []}
    for _ in range(3):
        for name, chosen in (("none", ()), ("live", (("random", 1.0),))):
            engine.clear_cache()
            _, finish = answer(engine, Prompt(SHORT, ()), sampling, chosen)
            rates[name].append(finish.tokens_per_second)
    return {name: statistics.median(of) for name, of in rates.items()}


def drafts(opened: OpenModel, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """Tokens a second of answers that repeat their prompts, with and without drafts, interleaved.

    same: whether the texts are equal.
    """
    engine: Any = opened.engine
    seconds: dict[bool, list[float]] = {True: [], False: []}
    texts: dict[bool, list[str]] = {True: [], False: []}
    tokens = 0
    for prompt in prompts:
        for on in (True, False):
            engine.clear_cache()
            engine.drafts = on
            text, finish = answer(engine, prompt, Sampling(temperature=0, max_tokens=160))
            seconds[on].append(finish.decode_s)
            texts[on].append(text)
        tokens += finish.reply_tokens - 1
    return {
        "on": tokens / sum(seconds[True]),
        "off": tokens / sum(seconds[False]),
        "tokens": tokens,
        "same": texts[True] == texts[False],
    }


def turns(opened: OpenModel) -> dict[str, float]:
    """Seconds to the first token in turns 2 and 20 of a chat whose questions are equally long."""
    engine: Any = opened.engine
    engine.clear_cache()
    engine.drafts = False
    chat = Chat(
        opened.preset,
        engine,
        History(None),
        Sampling(temperature=0, max_tokens=REPLY_TOKENS, ignore_eos=True),
    )
    seconds = []
    for number in range(TURNS):
        started = time.perf_counter()
        for event in chat.send(QUESTION.format(10 + number)):
            if isinstance(event, Finish):
                seconds.append(time.perf_counter() - started - event.decode_s)
    return {"turn 2": seconds[1], "turn 20": seconds[-1]}


def prompt_of(opened: OpenModel, text: str) -> Prompt:
    return opened.preset.format.render((Message("user", text),))


def repetitive_questions() -> list[str]:
    """Questions whose answers repeat most of them: quoting, rewriting, editing code."""
    paragraph = " ".join(TEXT.read_text("utf-8").split("\n\n")[4].split())[:500]
    return [
        f"Repeat the following text word for word:\n\n{paragraph}",
        "Rewrite the following text with every 'I' in capital letters and nothing else changed:"
        f"\n\n{paragraph}",
        "Rename `result` to `product` in this code and write all of it again:"
        f"\n\n```\n{CODE * 3}```",
    ]


def save_adapter(folder: Path) -> Path:
    """A random LoRA on every linear layer of the checkpoint. Returns its folder, written once."""
    import torch

    from llmchat.engines.transformers.families import plan_of
    from llmchat.engines.transformers.families.check import linears

    target = folder.parent / f"{folder.name}-lora"
    if (target / "adapter_config.json").exists():
        return target
    target.mkdir(exist_ok=True)
    plan = plan_of(json.loads((folder / "config.json").read_text("utf-8")))
    assert plan is not None
    tensors, names = {}, set()
    for linear in list(linears(plan))[:-1]:
        out, in_ = linear.shape
        module = f"base_model.model.{linear.module}"
        names.add(linear.module.rpartition(".")[2])
        tensors[f"{module}.lora_A.weight"] = 0.01 * torch.randn(RANK, in_)
        tensors[f"{module}.lora_B.weight"] = 0.01 * torch.randn(out, RANK)
    save_file(tensors, target / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": RANK,
        "target_modules": sorted(names),
    }
    (target / "adapter_config.json").write_text(json.dumps(config))
    return target


def repeated_words(folder: Path) -> tuple[str, list[tuple[int, int]]]:
    """A text of different words, and which token follows which when the model repeats it.

    Each word is one token anywhere in a text, so the text is tokenised as it was written. The next
    word follows, but one in WORDS_PER_EDIT is replaced by a word that is not in the text.
    """
    words = single_token_words(folder)
    text, others = words[:WORDS], words[WORDS : 2 * WORDS]
    following = []
    for index, (_, token) in enumerate(text):
        next_token = text[(index + 1) % WORDS][1]
        if index % WORDS_PER_EDIT == WORDS_PER_EDIT - 1:
            replacement = others[index][1]
            after = text[(index + 2) % WORDS][1]
            following += [(token, replacement), (replacement, after)]
        else:
            following.append((token, next_token))
    return "".join(word for word, _ in (*text, *text[:4])), following


def single_token_words(folder: Path) -> list[tuple[str, int]]:
    """Lower-case words that are one token with the space before them, sorted by token."""
    from tokenizers import Tokenizer

    vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    words = [
        (piece.replace("Ġ", " "), token)
        for piece, token in vocabulary.items()
        if piece.startswith("Ġ") and piece[1:].isascii() and piece[1:].islower() and len(piece) > 4
    ]
    return sorted(words, key=lambda pair: pair[1])


def save_repeating(folder: Path) -> Path:
    """A checkpoint of the same shapes that repeats its prompt with changes (random weights do not).

    Its layers add nothing to what they read, and the head knows which token follows. Every
    multiplication is still made. Returns its folder, written once.
    """
    target = folder.parent / f"{folder.name}-repeats"
    if (target / "model.safetensors").exists():
        return target
    target.mkdir(exist_ok=True)
    tensors = load_file(folder / "model.safetensors")
    make_repeating(tensors, repeated_words(folder)[1])
    for file in (*folder.glob("*.json*"), *folder.glob("*.jinja")):
        shutil.copy(file, target)
    save_file(tensors, target / "unfinished", metadata={"format": "pt"})
    (target / "unfinished").rename(target / "model.safetensors")
    return target


def make_repeating(tensors: dict[str, Any], following: list[tuple[int, int]]) -> None:
    import torch

    for name, tensor in tensors.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            tensor.zero_()
    embeddings, head = tensors["model.embed_tokens.weight"], tensors["lm_head.weight"]
    for _, token in following:
        head[token].zero_()
    for token, next_token in following:
        length = embeddings[token].float().norm().to(torch.bfloat16)
        head[next_token] += embeddings[token] / length


if __name__ == "__main__":
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")  # as cli.main does
    serve(lambda: load(Path(sys.argv[1]), sys.argv[2]))
