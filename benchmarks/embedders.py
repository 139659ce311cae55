"""Embedders: passages a second and vectors, llmchat beside sentence-transformers.

    python benchmarks/embedders.py                       # all-minilm-l6-v2, which comes from PyPI
    python benchmarks/embedders.py --threads 1 --save    # writes benchmarks/results/embedders.json

Both read the same passages (paragraphs of docs/) from the same files, in turns, and the table has
medians. CPU seconds are those of the process: on a busy machine they say more than the wall clock.
"""

import argparse
import datetime
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
# A heading or a link alone is no passage.
_SHORTEST = 60


def passages(count: int) -> list[str]:
    """Paragraphs of the documentation."""
    texts = [path.read_text("utf-8") for path in sorted((HERE.parent / "docs").glob("*.md"))]
    found = [part.strip() for text in texts for part in text.split("\n\n")]
    return [part for part in found if len(part) >= _SHORTEST][:count]


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """The result, and the seconds of the wall clock and of the CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def measure(model: str, count: int, threads: int, rounds: int) -> dict[str, Any]:
    """Medians of both, and how far their vectors are apart."""
    import numpy as np
    import torch
    from sentence_transformers import SentenceTransformer

    from llmchat.models.embedding import embedder_preset, open_text_embedder
    from llmchat.models.locate import find_checkpoint
    from llmchat.settings import World

    torch.set_num_threads(threads)
    world = World.real()
    preset = embedder_preset(world, model)
    ours = open_text_embedder(preset, world)
    theirs = SentenceTransformer(
        str(find_checkpoint(preset.base, preset, world).path), device="cpu"
    )
    theirs.max_seq_length = ours.spec.longest
    texts = passages(count)
    runs: dict[str, Callable[[], Any]] = {
        "llmchat": lambda: ours.embed_passages(texts),
        "sentence-transformers": lambda: theirs.encode(
            texts, prompt=ours.spec.passage, normalize_embeddings=True
        ),
    }
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    vectors: dict[str, Any] = {}
    for turn in range(rounds + 1):
        for name, work in runs.items():
            vectors[name], wall, cpu = timed(work)
            # The first turn warms up.
            if turn:
                took[name].append((wall, cpu))
    left, right = vectors.values()
    return {
        "model": preset.name,
        "passages": len(texts),
        "tokens": sum(map(ours.count, texts)),
        "threads": threads,
        "rounds": rounds,
        "largest_difference": float(np.abs(left - right).max()),
        "least_cosine": float((left * right).sum(1).min()),
        "passages_a_second": {
            name: len(texts) / statistics.median(wall for wall, _ in pairs)
            for name, pairs in took.items()
        },
        "passages_a_cpu_second": {
            name: len(texts) / statistics.median(cpu for _, cpu in pairs)
            for name, pairs in took.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="all-minilm-l6-v2")
    parser.add_argument("--passages", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--save", action="store_true")
    flags = parser.parse_args()
    found = measure(flags.model, flags.passages, flags.threads, flags.rounds)
    print(json.dumps(found, indent=2))
    if flags.save:
        import torch

        about = {
            "date": datetime.date.today().isoformat(),
            "machine": platform.processor() or platform.machine(),
            "torch": torch.__version__,
        }
        path = HERE / "results" / "embedders.json"
        path.write_text(json.dumps({**about, **found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
