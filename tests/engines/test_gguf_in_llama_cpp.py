"""llama.cpp computes with written GGUF files what transformers does with the checkpoints."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.checkpoints import save_tiny
from support.gguf_cases import DIFFERENT_THERE, GGUF_CASES, READ_ALONE, REFUSED_THERE
from support.tiny_families import CASES
from support.tiny_gguf import f32, write_gguf
from support.worlds import make_world
from transformers import AutoModelForCausalLM

from llmchat.engines import Chunk, Engine, Sampling
from llmchat.engines.gguf import GgufEngine
from llmchat.engines.gguf.llama import Llama, Settings
from llmchat.engines.tokenizer import Tokenizer
from llmchat.engines.transformers import TransformersEngine
from llmchat.engines.transformers.gguf_export import Export
from llmchat.errors import Mismatch
from llmchat.hub.gguf_folder import write_folder
from llmchat.hub.gguf_header import write_facts
from llmchat.models.convert import convert
from llmchat.models.opener import preset_of
from llmchat.output.progress import NoProgress
from llmchat.prompt import Prompt

pytestmark = pytest.mark.slow
pytest.importorskip("xllamacpp")
TEXT = "the quick brown fox and the answer is here 123 jumps over the"
# llama.cpp keeps keys and values in 16 bits.
CLOSE = 0.01
# Routers of random weights are near ties, which 16 bits decide otherwise.
NEAR_TIES = {"gemma4: experts": 0.03, "hunyuan-moe": 0.03}


@pytest.mark.parametrize("name", GGUF_CASES)
def test_llama_cpp_computes_the_same_probabilities(name: str, tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", GGUF_CASES[name].config())
    Export(base, (), 1.0, "F32", {"general.name": "tiny"}).write(tmp_path / "a.gguf")
    same_probabilities(base, tmp_path / "a.gguf", NEAR_TIES.get(name, CLOSE))


@pytest.mark.parametrize("arch", READ_ALONE)
def test_an_architecture_computes_in_llama_cpp_as_its_model_type(arch: str, tmp_path: Path) -> None:
    case, facts = READ_ALONE[arch]
    base = save_tiny(tmp_path / "base", case.config())
    same_probabilities(base, write_gguf(base, tmp_path / "a.gguf", f32, arch, **facts))


@pytest.mark.parametrize("name", REFUSED_THERE)
def test_llama_cpp_refuses_what_convert_says_it_refuses(name: str, tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", REFUSED_THERE[name][0].config())
    Export(base, (), 1.0, "F32", {"general.name": "tiny"}).write(tmp_path / "a.gguf")
    with pytest.raises(Mismatch, match=r"llama\.cpp cannot load a\.gguf"):
        Llama(Settings(tmp_path / "a.gguf", 256, device="cpu"))


@pytest.mark.parametrize("name", DIFFERENT_THERE)
def test_llama_cpp_differs_where_convert_says_so(name: str, tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", CASES[name].config())
    Export(base, (), 1.0, "F32", {"general.name": "tiny"}).write(tmp_path / "a.gguf")
    with pytest.raises(AssertionError):
        same_probabilities(base, tmp_path / "a.gguf", 10 * CLOSE)


def same_probabilities(base: Path, file: Path, close: float = CLOSE) -> None:
    """Those of transformers with a checkpoint, and of llama.cpp with its file."""
    ids = Tokenizer(base).ids(TEXT)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    with torch.inference_mode():
        expected = torch.log_softmax(model(torch.tensor([ids])).logits[0], -1)
    found = list(probabilities(file, ids))
    assert len(found) >= 3
    for count, token, logprob in found:
        assert logprob == pytest.approx(float(expected[count - 1, token]), abs=close)


def probabilities(file: Path, ids: list[int]) -> Iterator[tuple[int, int, float]]:
    """(tokens read, next token, its log-probability): the three likeliest behind some beginnings.

    llama.cpp reports none for a token that only begins a character.
    """
    running = Llama(Settings(file, 256, device="cpu"))
    try:
        for count in (len(ids), *range(4, len(ids), 3)):
            body = {"prompt": ids[:count], "n_predict": 1, "n_probs": 3, "temperature": 0}
            answer = running.post("/completion", body)
            for entry in answer.get("completion_probabilities", ()):
                for one in entry["top_logprobs"]:
                    yield count, one["id"], one["logprob"]
    finally:
        running.close()


@pytest.fixture(scope="module")
def files(smol_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The default model in two kinds."""
    folder = tmp_path_factory.mktemp("files")
    world = make_world(folder / "home")
    preset = preset_of(world, model=str(smol_gguf))
    found = {kind: folder / f"smol-{kind}.gguf" for kind in ("F16", "Q8_0")}
    for kind, file in found.items():
        convert(preset, kind, file, world, NoProgress())
    return found


def opened(file: Path) -> TransformersEngine:
    """Our engine with a file, in 32 bits."""
    folder = file.parent / f"{file.stem}-made"
    if not folder.exists():
        folder.mkdir()
        write_folder([file], folder)
    return TransformersEngine(folder, weights="fp32", device="cpu")


def greedy(engine: Engine, question: str) -> str:
    prompt = Prompt(
        f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n", ("<|im_end|>",)
    )
    found = engine.stream(prompt, Sampling(temperature=0.0, max_tokens=24))
    return "".join(chunk.text for chunk in found if isinstance(chunk, Chunk))


def test_llama_cpp_answers_like_our_engine(files: dict[str, Path], smol_gguf: Path) -> None:
    facts = files["F16"].parent / "facts"
    facts.mkdir()
    write_facts(files["F16"], facts)
    engines = (
        GgufEngine(files["F16"], facts, context=512, device="cpu"),
        opened(files["F16"]),
        opened(smol_gguf),
    )
    for question in ("What is the capital of France?", "Name three colours.", "What is 2 + 2?"):
        theirs, ours, original = (greedy(engine, question) for engine in engines)
        assert theirs == ours == original and len(ours) > 5
    for engine in engines:
        engine.unload()


def test_eight_bits_cost_less_than_a_percent_of_perplexity(
    files: dict[str, Path], smol_gguf: Path
) -> None:
    exact, rounded = (perplexity(file) for file in (smol_gguf, files["Q8_0"]))
    assert rounded != exact and rounded == pytest.approx(exact, rel=0.01)


def perplexity(file: Path) -> float:
    """Of the first 512 tokens of Moby-Dick."""
    engine = opened(file)
    text = (Path(__file__).parents[2] / "benchmarks/data/moby_dick.txt").read_text("utf-8")
    ids = engine.encode(Prompt(text[:4096], (), bos=False))[:512]
    loss = -float(engine.score(ids).mean())
    engine.unload()
    return math.exp(loss)
