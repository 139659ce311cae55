#!/usr/bin/env python3
"""Decode on a GPU against the speed of its memory, and against transformers with bitsandbytes.

usage: python benchmarks/gpu.py [--save] [--tune] [--peer] [--kinds KIND …] [--tokens N]

Needs an NVIDIA GPU; without one it prints that nothing was measured. A 7B-shaped Llama with random
weights is made on the GPU, so nothing is downloaded. First the kernels are compared with float64,
and the captured graph with single launches of the same kernels; then bandwidth, kernels, decode and
prefill are timed. --kinds also times bf16 and int4 (NF4), --tune tries other tiles for each kernel,
--peer runs transformers + bitsandbytes (load_in_8bit with its defaults) on the same shape, --save
writes benchmarks/results/gpu.json.
"""

import argparse
import datetime
import itertools
import json
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gpu_peer import peer

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
PROMPT = 541
LLAMA_7B = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 4096,
    "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 32, "vocab_size": 32000, "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": False, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip


class RandomTensors:
    """The weights of a Llama of this shape, generated on each read, always the same ones."""

    untied = False

    def __init__(self, config: dict[str, Any], device: torch.device):
        from llmchat.engines.transformers.families import plan_of
        from llmchat.engines.transformers.families.check import expected

        plan = plan_of(config)
        assert plan is not None
        self.shapes: dict[str, tuple[int, ...]] = expected(plan)
        self._device = device

    def get(self, name: str) -> torch.Tensor:
        shape = self.shapes[name]
        if len(shape) == 1:
            return torch.ones(shape, device=self._device)
        options = {"device": self._device, "dtype": torch.bfloat16}
        return 0.02 * torch.randn(shape, generator=self._generator(name), **options)

    def int8(self, *names: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Uniform bytes, scaled to the spread of trained weights."""
        rows, columns = sum(self.shapes[name][0] for name in names), self.shapes[names[0]][1]
        generator = self._generator(names[0])
        weight = torch.randint(
            -127, 128, (rows, columns), dtype=torch.int8, device=self._device, generator=generator
        )
        return weight, torch.rand(rows, device=self._device, generator=generator) * 0.02 + 0.025

    def head_int8(self) -> None:
        return None

    def _generator(self, name: str) -> torch.Generator:
        return torch.Generator(self._device).manual_seed(sum(name.encode()))


def milliseconds(run: Callable[[], object], repeats: int = 20) -> float:
    """Median time of a run on the device, by events."""
    for _ in range(3):
        run()
    times = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def captured(run: Callable[[], object]) -> Callable[[], object]:
    """The same as one graph, so that the device is timed and not the launching."""
    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def copy_bandwidth() -> float:
    """Bytes a second of a copy within the GPU's memory, read and written together."""
    source = torch.empty(2**31, dtype=torch.int8, device="cuda").random_(-128, 128)
    target = torch.empty_like(source)
    return 2 * source.numel() / milliseconds(lambda: target.copy_(source)) * 1000


def open_engine(config: dict[str, Any], device: torch.device, weights: str = "int8") -> Any:
    """The engine of the product, with random weights and a vocabulary of numbered words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    from llmchat.engines.transformers import TransformersEngine, loading

    folder = Path(tempfile.mkdtemp(prefix="llmchat-gpu-"))
    tokenizer = Tokenizer(
        models.WordLevel(
            {f"w{index}": index for index in range(config["vocab_size"])}, unk_token="w0"
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "w0"})
    )
    (folder / "config.json").write_text(json.dumps(config))
    loading.open_tensors = lambda *_: RandomTensors(config, device)  # type: ignore[assignment]
    return TransformersEngine(folder, weights=weights, device=device.type, name="7B-shaped")  # type: ignore[arg-type]


def answer(engine: Any, prompt_tokens: int, new_tokens: int) -> Any:
    """A greedy answer with an empty cache: its Finish, and its text."""
    from llmchat.engines import Sampling
    from llmchat.prompt import Prompt

    engine.clear_cache()
    text = " ".join(f"w{3 + index * 7 % 30000}" for index in range(prompt_tokens))
    *chunks, finish = engine.stream(
        Prompt(text, ()), Sampling(temperature=0, max_tokens=new_tokens, ignore_eos=True)
    )
    return finish, "".join(chunk.text for chunk in chunks)


def shapes_of(config: dict[str, Any]) -> dict[str, tuple[int, int, bool]]:
    """Rows out, columns in, gated, of the products of a layer."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    kept = config["num_key_value_heads"] * (hidden // config["num_attention_heads"])
    return {
        "qkv": (hidden + 2 * kept, hidden, False),
        "output": (hidden, hidden, False),
        "gate_up": (2 * inner, hidden, True),
        "down": (hidden, inner, False),
    }


def kernel_errors(config: dict[str, Any], device: torch.device) -> dict[str, float]:
    """Relative error of each product against float64 on the same bytes.

    For 1, 3 and 8 rows, with outliers among the activations.
    """
    from llmchat.engines.transformers.pytorch.cuda import launch

    errors = {}
    for (name, (n, k, gated)), rows in itertools.product(shapes_of(config).items(), (1, 3, 8)):
        weight = torch.randint(-127, 128, (n, k), dtype=torch.int8, device=device)
        step = torch.rand(n, device=device) * 0.001
        x = torch.randn(rows, k, device=device).bfloat16()
        x[:, 5] *= 100
        exact = x.double() @ (weight.double() * step.double()[:, None]).T
        if gated:
            gate, up = exact.chunk(2, dim=-1)
            exact = torch.nn.functional.silu(gate) * up
        out = launch.matvec(x, weight, step, gated=gated)
        errors[f"{name} x{rows}"] = float((out.double() - exact).norm() / exact.norm())
    return errors


def kernel_speeds(engine: Any, config: dict[str, Any], tune: bool) -> dict[str, Any]:
    """Bytes a second of each kind of product, and with `tune` the fastest tiles.

    Over the weights of all layers in turn, so that no cache holds them.
    """
    from llmchat.engines.transformers.pytorch.cuda import launch

    speeds: dict[str, Any] = {}
    for name, (n, k, gated) in shapes_of(config).items():
        layers = [getattr(layer, name).inner for layer in engine._forward._layers]
        x = torch.randn(1, k, device="cuda").bfloat16()
        norm = torch.ones(k, device="cuda").bfloat16() if name in ("qkv", "gate_up") else None
        size = n * k * len(layers)

        def speed(tile: Any = None, layers=layers, x=x, norm=norm, gated=gated, size=size) -> float:  # type: ignore[no-untyped-def]
            def run() -> None:
                for layer in layers:
                    launch.matvec(
                        x, layer.weight, layer.step, norm=norm, eps=1e-5, gated=gated, tile=tile
                    )

            return size / milliseconds(captured(run)) * 1000

        speeds[name] = {"bytes_per_s": speed()}
        if tune:
            tiles = [
                launch.Tile(*tile)
                for tile in itertools.product((2, 4, 8), (1024, 2048, 4096), (2, 4, 8))
            ]
            tried = {
                str((tile.rows, tile.columns, tile.warps)): speed(tile)
                for tile in tiles
                if tile.columns >= 256 * tile.warps
            }
            speeds[name]["tiles"] = dict(sorted(tried.items(), key=lambda pair: -pair[1])[:8])
    head = engine._forward._head
    x = torch.randn(1, head.shape[1], device="cuda").bfloat16()
    for name, run in (
        ("head", lambda: launch.matvec(x, head, None)),
        ("head by cuBLAS", lambda: torch.nn.functional.linear(x, head)),
    ):
        speeds[name] = {"bytes_per_s": 2 * head.numel() / milliseconds(captured(run)) * 1000}
    return speeds


def decode(engine: Any, tokens: int, bandwidth: float) -> dict[str, float]:
    """After a short and a long prompt, the median of three each.

    share_…: of the memory's bandwidth, counting the weights alone, not keys and values.
    """
    from llmchat.memory_estimate import weights

    found: dict[str, float] = {}
    shapes = {name: shape for name, shape in engine._model.shapes.items() if "embed" not in name}
    read = weights(shapes, engine._weights)
    for prompt in (16, PROMPT):
        answer(engine, prompt, 8)
        finishes = [answer(engine, prompt, tokens)[0] for _ in range(3)]
        found[f"decode_tps_after_{prompt}"] = speed = statistics.median(
            one.tokens_per_second for one in finishes
        )
        found[f"share_after_{prompt}"] = speed * read / bandwidth
        found[f"prefill_tps_{prompt}"] = statistics.median(
            one.prompt_tokens / one.prefill_s for one in finishes
        )
    graph = engine._forward._step(1).graph
    if graph is not None:
        # The rest of a token's time is spent on the host.
        found["replay_ms"] = milliseconds(graph.replay)
    return found


def check(engine: Any, device: torch.device) -> dict[str, float]:
    """Compare the graph with single launches, and a step with the forward pass in plain torch.

    Raises AssertionError if they differ.
    """
    from llmchat.engines.transformers.executor import SequenceInput
    from llmchat.engines.transformers.pytorch.forward import TorchForward

    forward = engine._forward
    _, replayed = answer(engine, 40, 24)
    captured = forward._step(1).graph is not None
    forward._captures = False
    _, launched = answer(engine, 40, 24)
    forward._captures = captured
    graph = "captured" if captured else "NOT captured"
    tokens = "the same" if replayed == launched else "DIFFERENT"
    print(f"{engine.describe()}: graph {graph}, tokens {tokens}")
    assert replayed == launched
    ids = list(range(3, 60))
    caches = [forward.new_cache() for _ in range(2)]
    with torch.inference_mode():
        for cache in caches:
            forward.run([SequenceInput(cache, ids)])
        step = forward.run([SequenceInput(caches[0], [77])])[0].double()
        plain = TorchForward._run_batch(forward, [SequenceInput(caches[1], [77])])[0].double()
    apart = float((step - plain).norm() / plain.norm())
    print(f"logits of a step differ from plain torch by {apart:.4f}")
    assert apart < 0.1
    return {"captured": captured, "step_against_plain": apart}


def machine() -> dict[str, Any]:
    import triton

    return {
        "gpu": torch.cuda.get_device_name(),
        "memory_gib": round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1),
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "triton": triton.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "command": " ".join(["python", "benchmarks/gpu.py", *sys.argv[1:]]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--peer", action="store_true")
    parser.add_argument("--kinds", nargs="*", choices=("bf16", "int4"), default=())
    parser.add_argument("--tokens", type=int, default=128)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU: nothing was measured")
        return
    from llmchat.engines.transformers.pytorch import cuda

    device = torch.device("cuda")
    if reason := cuda.fault(device):
        sys.exit(f"the kernels do not run here: {reason}")
    results: dict[str, Any] = {"machine": machine(), "model": LLAMA_7B}
    print(json.dumps(results["machine"], indent=1))
    results["copy_bytes_per_s"] = bandwidth = copy_bandwidth()
    print(f"copy within memory: {bandwidth / 1e12:.2f} TB/s")
    results["errors"] = errors = kernel_errors(LLAMA_7B, device)
    worst = max(errors, key=lambda name: errors[name])
    print(f"kernels against float64: at most {errors[worst]:.4f} ({worst})")
    assert errors[worst] < 0.01, errors
    for kind in ("int8", *options.kinds):
        engine = open_engine(LLAMA_7B, device, kind)
        results[kind] = check(engine, device) | decode(engine, options.tokens, bandwidth)
        for name, value in results[kind].items():
            print(f"{name:24} {value:10.3f}")
        if kind == "int8":
            results["kernels"] = kernel_speeds(engine, LLAMA_7B, options.tune)
            for name, speeds in results["kernels"].items():
                speed = speeds["bytes_per_s"]
                rate = f"{speed / 1e12:6.2f} TB/s  {speed / bandwidth:5.0%}"
                print(f"{name:16} {rate}   {speeds.get('tiles', '')}")
        del engine
        torch.cuda.empty_cache()
    if options.peer:
        tokens = min(options.tokens, 64)
        results["transformers_bitsandbytes"] = peer(LLAMA_7B, PROMPT, tokens, device)
        ratio = (
            results["int8"][f"decode_tps_after_{PROMPT}"]
            / results["transformers_bitsandbytes"]["decode_tps"]
        )
        speeds = results["transformers_bitsandbytes"]
        print(f"transformers + bitsandbytes: {speeds}; llmchat decodes {ratio:.1f} times as fast")
    if options.save:
        path = HERE / "results" / "gpu.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(results, indent=1) + "\n")
        print(f"written to {path.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
