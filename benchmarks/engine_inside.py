"""What benchmarks/engine.py runs in processes of their own: our engine with more measures than `llmchat bench` has, and the files these need.

usage: python benchmarks/engine_inside.py FOLDER chat|repeats|"perplexity KIND"      answers as llmchat/bench/peers.py tells
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

LINEARS = {
    "q_proj": "self_attn",
    "k_proj": "self_attn",
    "v_proj": "self_attn",
    "o_proj": "self_attn",
} | {name: "mlp" for name in ("gate_proj", "up_proj", "down_proj")}
RANK, TURNS, REPLY = 16, 20, 16
QUESTION = "Tell me one short fact about the number {}, please."
# Of a text that is said again, every so many-th word is another one.
EDITED = 12


def load(folder: Path, kind: str) -> Measures:
    import torch

    if kind.startswith("perplexity"):
        engine = (
            ModelOpener(World.real(), {"model": str(folder), "weights": kind.split()[1]})
            .open()
            .engine
        )
        return {"perplexity": lambda: perplexity_of(engine)}
    torch.manual_seed(0)
    opened = ModelOpener(World.real(), {"model": str(folder), "weights": "int8"}).open()
    engine = opened.engine
    prompts = (
        [Prompt(words(folder)[0], ())]
        if kind == "repeats"
        else [asked(opened, text) for text in copies()]
    )
    measures = {"drafts": lambda: drafts(opened, prompts)}
    if kind == "chat":
        engine.load_adapter("random", save_adapter(folder))
        measures |= {"turns": lambda: turns(opened), "adapter": lambda: adapter(opened)}
    return plain(measures_of(engine), engine) | measures


def plain(measures: Measures, engine: Any) -> Measures:
    """The measures of `llmchat bench`, without drafts as there; the others say for themselves."""

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
    """Tokens a second with a live adapter on all linears, and with none, in turns."""
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
    """Tokens a second of answers that repeat their prompts, drafts on and off, in turns, and whether the text is the same."""
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
    """Seconds from sending a message to the first token of its answer, in turn 2 and in turn 20 of a chat with equal questions."""
    engine: Any = opened.engine
    engine.clear_cache()
    engine.drafts = False
    chat = Chat(
        opened.preset,
        engine,
        History(None),
        Sampling(temperature=0, max_tokens=REPLY, ignore_eos=True),
    )
    waited = []
    for number in range(TURNS):
        started = time.perf_counter()
        for event in chat.send(QUESTION.format(10 + number)):
            if isinstance(event, Finish):
                waited.append(time.perf_counter() - started - event.decode_s)
    return {"turn 2": waited[1], "turn 20": waited[-1]}


def asked(opened: OpenModel, text: str) -> Prompt:
    return opened.preset.format.render((Message("user", text),))


def copies() -> list[str]:
    """Questions whose answer says most of them again: quoting, rewriting, editing code."""
    paragraph = " ".join(TEXT.read_text("utf-8").split("\n\n")[4].split())[:500]
    code = (
        "def area(width, height):\n    result = width * height\n    print('the area is', result)\n    return result\n"
        * 3
    )
    return [
        f"Repeat the following text word for word:\n\n{paragraph}",
        f"Rewrite the following text with every 'I' in capital letters and nothing else changed:\n\n{paragraph}",
        f"Rename `result` to `product` in this code and write all of it again:\n\n```\n{code}```",
    ]


def save_adapter(folder: Path) -> Path:
    """A LoRA of random numbers on every linear layer of the checkpoint; returns its folder, which is made once."""
    import torch

    kept = folder.parent / f"{folder.name}-lora"
    if (kept / "adapter_config.json").exists():
        return kept
    kept.mkdir(exist_ok=True)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    kv, inner = hidden // heads * config["num_key_value_heads"], config["intermediate_size"]
    widths = {
        "q_proj": (hidden, hidden),
        "k_proj": (hidden, kv),
        "v_proj": (hidden, kv),
        "o_proj": (hidden, hidden),
    }
    widths |= {
        "gate_proj": (hidden, inner),
        "up_proj": (hidden, inner),
        "down_proj": (inner, hidden),
    }
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        for name, (width, out) in widths.items():
            module = f"base_model.model.model.layers.{layer}.{LINEARS[name]}.{name}"
            tensors[f"{module}.lora_A.weight"] = 0.01 * torch.randn(RANK, width)
            tensors[f"{module}.lora_B.weight"] = 0.01 * torch.randn(out, RANK)
    save_file(tensors, kept / "adapter_model.safetensors")
    described = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": RANK,
        "target_modules": list(widths),
    }
    (kept / "adapter_config.json").write_text(json.dumps(described))
    return kept


def words(folder: Path) -> tuple[str, list[tuple[int, int]]]:
    """A text of 240 different words, and which token the model is to say after which: the next one, but every twelfth is replaced.

    Each word is one token wherever it stands, so that the text is read back as it was said.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    usable = [
        (token, number)
        for token, number in tokenizer.get_vocab().items()
        if token.startswith("Ġ") and token[1:].isascii() and token[1:].islower() and len(token) > 4
    ]
    usable.sort(key=lambda pair: pair[1])
    told, other = usable[:240], usable[240:]
    follow = []
    for index in range(len(told)):
        number, following = told[index][1], told[(index + 1) % len(told)][1]
        if index % EDITED == EDITED - 1:
            replaced = other[index][1]
            follow += [(number, replaced), (replaced, told[(index + 2) % len(told)][1])]
        else:
            follow.append((number, following))
    return "".join(
        token.replace("Ġ", " ") for token, _ in (*told, told[0], told[1], told[2], told[3])
    ), follow


def save_repeating(folder: Path) -> Path:
    """The checkpoint with random weights says nothing twice. This is one of the same shapes that repeats its prompt with changes: its layers add nothing
    to what they read, and the head knows which token follows. Every multiplication is still made. Returns its folder, which is made once."""
    import torch

    kept = folder.parent / f"{folder.name}-repeats"
    if (kept / "model.safetensors").exists():
        return kept
    kept.mkdir(exist_ok=True)
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            tensor.zero_()
    embeddings, head = tensors["model.embed_tokens.weight"], tensors["lm_head.weight"]
    follow = words(folder)[1]
    for _, following in follow:
        head[following].zero_()
    for token, following in follow:
        head[following] += embeddings[token] / embeddings[token].float().norm().to(torch.bfloat16)
    for file in folder.glob("*.json*"):
        shutil.copy(file, kept)
    for file in folder.glob("*.jinja"):
        shutil.copy(file, kept)
    save_file(tensors, kept / "unfinished", metadata={"format": "pt"})
    (kept / "unfinished").rename(kept / "model.safetensors")
    return kept


if __name__ == "__main__":
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")  # as cli.main does
    serve(lambda: load(Path(sys.argv[1]), sys.argv[2]))
