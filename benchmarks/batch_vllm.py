"""vLLM's offline batch, in a process of its own: benchmarks/batch.py starts it.

usage: PYTHON batch_vllm.py MODEL DTYPE TOKENS < FILE.jsonl, PYTHON being that of its environment.

Prints one line of JSON: seconds of the whole batch after a warm-up, and the tokens written.
"""

import json
import sys
import time


def main() -> None:
    from vllm import LLM, SamplingParams  # type: ignore[import-not-found]

    model, dtype, tokens = sys.argv[1:]
    prompts = [[{"role": "user", "content": json.loads(line)["prompt"]}] for line in sys.stdin]
    llm = LLM(model=model, dtype=dtype, max_model_len=2048, enforce_eager=True)
    sampling = SamplingParams(temperature=0, max_tokens=int(tokens))
    llm.chat(prompts[:16], sampling, use_tqdm=False)
    started = time.perf_counter()
    answers = llm.chat(prompts, sampling, use_tqdm=False)
    seconds = time.perf_counter() - started
    written = sum(len(answer.outputs[0].token_ids) for answer in answers)
    print(json.dumps({"seconds": seconds, "tokens": written}))


if __name__ == "__main__":
    main()
