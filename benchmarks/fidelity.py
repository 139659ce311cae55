#!/usr/bin/env python3
"""Perplexity of real weights: this engine in bf16 and int8, transformers in fp32, llama.cpp.

    python benchmarks/fidelity.py FILES --llama-python PYTHON --save

FILES is a folder with gemma.gguf, qwen05.gguf and qwen15.gguf (NAMES). Each file is dequantised to
fp32 by transformers; that checkpoint is read by transformers and, in bf16 and int8, by llmchat.
llama.cpp runs the file itself. PYTHON has llama-cpp-python. All get the same token ids: the first
TOKENS of Moby-Dick (public domain), in windows of WINDOW, each behind the bos token if the model
has one. Divergence is the mean KL divergence from transformers' distributions in the first window,
in nats. --save adds to benchmarks/results/fidelity.json.
"""

import argparse
import datetime
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TEXT = HERE / "data" / "moby_dick.txt"
RESULTS = HERE / "results" / "fidelity.json"
TOKENS, WINDOW = 2048, 512
NAMES = {
    "gemma": "Gemma 3 270M",
    "qwen05": "Qwen2.5-Coder 0.5B",
    "qwen15": "Qwen2.5-Coder 1.5B",
}
REFERENCE, LLAMA_CPP = "transformers fp32", "llama.cpp"
CONTENDERS = (REFERENCE, "llmchat bf16", "llmchat int8", LLAMA_CPP)


def main() -> None:
    options = _options()
    if options.contender:
        return _inside(options.contender, options.folder)
    rows = {}
    for name in options.models:
        with tempfile.TemporaryDirectory(dir=options.work) as work:
            rows[name] = measure(options.folder / f"{name}.gguf", Path(work), options.llama_python)
            print(json.dumps({name: rows[name]}), flush=True)
    if options.save:
        found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"models": {}}
        found["models"] |= rows
        found |= {"date": str(datetime.date.today()), "tokens": TOKENS, "window": WINDOW}
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="*", default=list(NAMES), choices=list(NAMES))
    parser.add_argument("--llama-python", help="a Python that has llama-cpp-python")
    parser.add_argument("--work", type=Path, help="where checkpoints of fp32 fit (7 GB)")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(file: Path, work: Path, llama_python: str | None) -> dict[str, Any]:
    """Perplexity, divergence and agreement by contender."""
    _dequantise(file, work)
    (work / "file.gguf").symlink_to(file.resolve())
    found = {}
    for contender in CONTENDERS:
        python = llama_python if contender == LLAMA_CPP else sys.executable
        if python:
            command = [python, __file__, str(work), "--contender", contender]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[contender] = json.loads(done.stdout.splitlines()[-1])
            shown = {contender: found[contender]}
            print(f"{file.stem}: {shown}", file=sys.stderr, flush=True)
    return found


def _dequantise(file: Path, work: Path) -> None:
    """Write the checkpoint in fp32 and the windows of token ids."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    model = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32)
    # It is in fp32 now; transformers would refuse to save what it read from a GGUF file.
    model.hf_quantizer = None
    del model.config.quantization_config
    model.save_pretrained(work)
    tokenizer = AutoTokenizer.from_pretrained(**place)
    tokenizer.save_pretrained(work)
    text = TEXT.read_text("utf-8")[: 8 * TOKENS]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"][:TOKENS]
    bos = [tokenizer.bos_token_id] if file.stem == "gemma" else []
    windows = [bos + ids[start : start + WINDOW] for start in range(0, TOKENS, WINDOW)]
    (work / "windows.json").write_text(json.dumps(windows))


def _inside(contender: str, work: Path) -> None:
    """Print what one contender measures, as JSON. It runs in a process of its own."""
    windows = json.loads((work / "windows.json").read_text())
    if contender == LLAMA_CPP:
        logits_of = _of_llama_cpp(work)
    elif contender == REFERENCE:
        logits_of = _of_transformers(work)
    else:
        logits_of = _of_llmchat(work, contender.rpartition(" ")[2])
    import numpy

    total, count, found = 0.0, 0, {}
    for number, ids in enumerate(windows):
        scores = _log_softmax(logits_of(ids[:-1]))
        total -= float(scores[numpy.arange(len(ids) - 1), ids[1:]].sum())
        count += len(ids) - 1
        if number == 0:
            found = _compared(scores, work / "reference.npy", contender == REFERENCE)
    print(json.dumps({"perplexity": math.exp(total / count)} | found))


def _compared(scores: Any, path: Path, is_reference: bool) -> dict[str, float]:
    """How far log-probabilities [T, vocab] are from those of transformers."""
    import numpy

    if is_reference:
        numpy.save(path, scores)
        return {}
    exact = numpy.load(path)
    scores = scores[:, : exact.shape[1]]
    divergence = (numpy.exp(exact) * (exact - scores)).sum(-1).mean()
    same = (exact.argmax(-1) == scores.argmax(-1)).mean()
    return {"divergence": float(divergence), "same_choice": float(same)}


def _log_softmax(logits: Any) -> Any:
    import numpy

    logits = numpy.asarray(logits, dtype=numpy.float32)
    logits -= logits.max(-1, keepdims=True)
    return logits - numpy.log(numpy.exp(logits).sum(-1, keepdims=True))


def _of_transformers(work: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(work, dtype=torch.float32)

    def logits(ids: list[int]) -> Any:
        with torch.inference_mode():
            return model(torch.tensor([ids])).logits[0].numpy()

    return logits


def _of_llmchat(work: Path, weights: Any) -> Any:
    import torch

    from llmchat.engines.transformers import TransformersEngine
    from llmchat.engines.transformers.executor import SequenceInput

    engine = TransformersEngine(work, weights=weights, device="cpu", kernels=work / "kernels")
    forward = engine._forward
    print(f"runs on {type(forward).__name__}", file=sys.stderr)

    def logits(ids: list[int]) -> Any:
        with torch.inference_mode():
            cache = forward.new_cache()
            return forward.run([SequenceInput(cache, ids, all_logits=True)])[0].float().numpy()

    return logits


def _of_llama_cpp(work: Path) -> Any:
    from llama_cpp import Llama

    path = str((work / "file.gguf").resolve())
    model = Llama(path, n_ctx=2 * WINDOW, logits_all=True, verbose=False)

    def logits(ids: list[int]) -> Any:
        model.reset()
        model.eval(ids)
        return model.scores[: len(ids)].copy()

    return logits


if __name__ == "__main__":
    main()
