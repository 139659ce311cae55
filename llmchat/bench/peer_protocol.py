"""Measure other programs that run the same model, with the same tokens.

This file also runs by itself, in another Python, and imports nothing of llmchat. Each peer is one
process that loads the model and then measures what it is asked to, by lines of JSON in both
directions. `python peer_protocol.py` prints which peers that Python has; with `serve` it reads
from its stdin what to load.
"""

import ctypes
import importlib.metadata
import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Every peer decodes DECODE tokens greedily after the first text, and prefills the second one (541
# tokens of the default model).
SHORT, LONG, DECODE = "Once upon a time", "The history of France is long and rich. " * 60, 64
# Tokens decoded to warm up before a measurement.
WARM = 8

# One measurement: tokens per second, and the number of tokens.
Measured = dict[str, float]
Measures = dict[str, Callable[[], Any]]

LLAMA_CPP, OPENVINO = "llama.cpp Q8_0", "OpenVINO GenAI Q8_0"
# Peers that read the Q8_0 file.
OF_GGUF = (LLAMA_CPP, OPENVINO)
# Peer → the packages it needs, in one or several ways; the first way that is installed counts.
# llama-cpp-python is compiled where it is installed, xllamacpp for many processors.
NEEDS: dict[str, tuple[tuple[str, ...], ...]] = {
    LLAMA_CPP: (("llama-cpp-python",), ("xllamacpp",)),
    OPENVINO: (("openvino-genai",),),
    "CTranslate2 int8": (("ctranslate2", "tokenizers"),),
    "transformers bf16": (("transformers", "torch"),),
    "transformers + bitsandbytes int8": (("transformers", "torch", "bitsandbytes"),),
}


def installed() -> dict[str, dict[str, str]]:
    """The peers that this Python can run, with the versions of their packages."""
    found = {peer: next(filter(None, map(_versions, ways)), {}) for peer, ways in NEEDS.items()}
    return {peer: versions for peer, versions in found.items() if versions}


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    """The versions of packages; {} if one of them is not installed."""
    try:
        return {package: importlib.metadata.version(package) for package in packages}
    except importlib.metadata.PackageNotFoundError:
        return {}


def serve(load: Callable[[], Measures]) -> None:
    """Load, then answer each line of stdin, the name of a measure, with a line of JSON.

    What libraries print goes to stderr.
    """
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def send(value: Any) -> None:
        print(json.dumps(value), file=channel, flush=True)

    try:
        measures = load() | {"peak": peak_bytes}
        send({"ready": True})
        for line in sys.stdin:
            what = line.strip()
            if what in ("decode", "prefill") and "warm" in measures:
                # While others were measured, the OS may have evicted this one's mapped pages.
                measures["warm"]()
            send({"result": measures[what]()})
    except Exception as error:  # any error is an answer
        cause = str(error).strip() or type(error).__name__
        send(
            {
                "error": getattr(error, "message", cause.splitlines()[0]),
                "exit_code": getattr(error, "exit_code", 1),
                "hint": getattr(error, "hint", ""),
            }
        )


def peak_bytes() -> int:
    """Peak memory of this process with mapped files, or of the GPU it used; 0 if unknown."""
    torch: Any = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_reserved())
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def timed(call: Callable[[], Any], tokens: int) -> Measured:
    started = time.perf_counter()
    call()
    return {"tps": tokens / (time.perf_counter() - started), "tokens": tokens}


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def llama_cpp(task: dict[str, Any]) -> Measures:
    return _compiled_llama_cpp(task) if _versions(("llama-cpp-python",)) else _xllamacpp(task)


class _LlamaContext:
    """A model in llama-cpp-python's llama.cpp, called as llama.cpp's own benchmark calls it."""

    def __init__(self, path: str):
        import llama_cpp

        self._library: Any = llama_cpp
        llama_cpp.llama_backend_init()
        model = llama_cpp.llama_model_load_from_file(
            path.encode(), llama_cpp.llama_model_default_params()
        )
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = 4096
        settings.n_threads = settings.n_threads_batch = cores()
        self._context = model and llama_cpp.llama_init_from_model(model, settings)
        if not self._context:
            raise RuntimeError(f"llama.cpp cannot open {Path(path).name}")
        self._sampler = llama_cpp.llama_sampler_init_greedy()

    def answer(self, ids: list[int], count: int) -> None:
        """Read `ids` into an empty cache and decode `count` tokens greedily."""
        memory = self._library.llama_get_memory(self._context)
        self._library.llama_memory_clear(memory, True)
        token = self._read(ids)
        for _ in range(count - 1):
            token = self._read([token])

    def _read(self, ids: list[int]) -> int:
        """The token that follows `ids`."""
        tokens = (ctypes.c_int32 * len(ids))(*ids)
        batch = self._library.llama_batch_get_one(tokens, len(ids))
        if code := self._library.llama_decode(self._context, batch):
            raise RuntimeError(f"llama_decode failed with code {code}")
        return int(self._library.llama_sampler_sample(self._sampler, self._context, -1))

    def build(self) -> str:
        return build_facts(self._library.llama_print_system_info().decode())


def _compiled_llama_cpp(task: dict[str, Any]) -> Measures:
    context = _LlamaContext(task["gguf"])
    short, long = task["short"], task["long"]
    return {
        "decode": lambda: timed(lambda: context.answer(short, DECODE), DECODE),
        "prefill": lambda: timed(lambda: context.answer(long, 1), len(long)),
        "warm": lambda: context.answer(short, WARM),
        "build": context.build,
    }


def build_facts(system_info: str) -> str:
    """What a llama.cpp was built with, from its own line (`AVX2 = 1 | AVX512 = 0 | …`)."""
    return " ".join(re.findall(r"(\w+) = 1\b", system_info))


def _xllamacpp(task: dict[str, Any]) -> Measures:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = task["gguf"]
    params.n_ctx, params.n_parallel = 4096, 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = cores()
    server = xllamacpp.Server(params)

    def timings(ids: list[int], count: int) -> dict[str, Any]:
        request = {
            "prompt": ids,
            "n_predict": count,
            "ignore_eos": True,
            "temperature": 0,
            "cache_prompt": False,
            "stream": False,
        }
        answer = server.handle_completions(request)
        decoded = json.loads(answer) if isinstance(answer, str) else answer
        found: dict[str, Any] = decoded["timings"]
        return found

    def decode() -> Measured:
        found = timings(task["short"], DECODE)
        return {
            "tps": 1000 * found["predicted_n"] / (found["prompt_ms"] + found["predicted_ms"]),
            "tokens": found["predicted_n"],
        }

    def prefill() -> Measured:
        found = timings(task["long"], 1)
        return {"tps": found["prompt_per_second"], "tokens": found["prompt_n"]}

    def warm() -> None:
        timings(task["short"], WARM)

    def build() -> str:
        return build_facts(xllamacpp.get_system_info())

    return {"decode": decode, "prefill": prefill, "warm": warm, "build": build}


def openvino_genai(task: dict[str, Any]) -> Measures:
    """OpenVINO's reader of GGUF knows a few architectures only."""
    import numpy
    import openvino
    import openvino_genai as genai

    pipeline = genai.LLMPipeline(task["gguf"], "CPU")
    short, long = task["short"], task["long"]

    def answer(ids: list[int], count: int) -> None:
        tokens = numpy.array([ids], dtype=numpy.int64)
        inputs = openvino.Tensor(tokens), openvino.Tensor(numpy.ones_like(tokens))
        settings = genai.GenerationConfig()
        settings.max_new_tokens, settings.ignore_eos, settings.do_sample = count, True, False
        pipeline.generate(genai.TokenizedInputs(*inputs), settings)

    return {
        "decode": lambda: timed(lambda: answer(short, DECODE), DECODE),
        "prefill": lambda: timed(lambda: answer(long, 1), len(long)),
        "warm": lambda: answer(short, WARM),
    }


def ctranslate2(task: dict[str, Any]) -> Measures:
    import ctranslate2 as ct2
    from tokenizers import Tokenizer

    converted = Path(task["converted"])
    if not converted.exists():
        from ctranslate2.converters import TransformersConverter

        unfinished = converted.with_name(f"{converted.name}.part")
        TransformersConverter(task["folder"]).convert(
            str(unfinished), quantization="int8", force=True
        )
        unfinished.rename(converted)
    generators = [
        ct2.Generator(
            str(converted), device=task["device"], compute_type="int8", intra_threads=count
        )
        for count in sorted({1, cores()})
    ]
    tokenizer = Tokenizer.from_file(str(Path(task["folder"]) / "tokenizer.json"))
    short, long = (
        [tokenizer.id_to_token(token) for token in task[text]] for text in ("short", "long")
    )

    def generate(generator: Any, tokens: list[str | None], count: int) -> None:
        generator.generate_batch(
            [tokens],
            max_length=count,
            min_length=count,
            sampling_topk=1,
            include_prompt_in_result=False,
        )

    def speed(generator: Any) -> float:
        return max(timed(lambda: generate(generator, short, 16), 16)["tps"] for _ in range(3))

    # On some processors it decodes faster on one core than on two; take the faster.
    best = max(generators, key=speed)
    all_cores = generators[-1]

    def warm() -> None:
        for generator in generators:
            generate(generator, short, WARM)

    return {
        "decode": lambda: timed(lambda: generate(best, short, DECODE), DECODE),
        "prefill": lambda: timed(lambda: generate(all_cores, long, 1), len(long)),
        "warm": warm,
    }


def transformers_bf16(task: dict[str, Any]) -> Measures:
    return _transformers(task)


def transformers_int8(task: dict[str, Any]) -> Measures:
    from transformers import BitsAndBytesConfig

    return _transformers(
        task, quantization_config=BitsAndBytesConfig(load_in_8bit=True), device_map=task["device"]
    )


def _transformers(task: dict[str, Any], **settings: Any) -> Measures:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(cores())
    device = torch.device(task["device"])
    model = AutoModelForCausalLM.from_pretrained(
        task["folder"], dtype=torch.bfloat16, **settings
    ).eval()
    model = model if settings else model.to(device)
    short, long = (torch.tensor([task[text]], device=device) for text in ("short", "long"))

    def generate(count: int) -> None:
        with torch.inference_mode():
            model.generate(
                short,
                attention_mask=torch.ones_like(short),
                max_new_tokens=count,
                min_new_tokens=count,
                do_sample=False,
                pad_token_id=0,
            )

    def read() -> None:
        with torch.inference_mode():
            # Reading a logit waits until a GPU has finished.
            int(model(long, logits_to_keep=1).logits[0, -1].argmax())

    return {
        "decode": lambda: timed(lambda: generate(DECODE), DECODE),
        "prefill": lambda: timed(read, long.shape[1]),
        "warm": lambda: generate(WARM),
    }


LOADERS: dict[str, Callable[[dict[str, Any]], Measures]] = {
    LLAMA_CPP: llama_cpp,
    OPENVINO: openvino_genai,
    "CTranslate2 int8": ctranslate2,
    "transformers bf16": transformers_bf16,
    "transformers + bitsandbytes int8": transformers_int8,
}


def main(arguments: list[str]) -> None:
    if not arguments:
        sys.stdout.write(json.dumps(installed()))
        return
    # A setting of llmchat's own that must not affect its peers.
    os.environ.pop("GOMP_SPINCOUNT", None)
    task = json.loads(sys.stdin.readline())
    serve(lambda: LOADERS[task["peer"]](task))


if __name__ == "__main__":
    # Another program must not import modules from this file's folder.
    del sys.path[0]
    main(sys.argv[1:])
