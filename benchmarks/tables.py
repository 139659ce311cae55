#!/usr/bin/env python3
"""Write the tables of README.md and pages of docs from benchmarks/results.

usage: python benchmarks/tables.py

A table stands between `<!-- NAME -->` and `<!-- /NAME -->`, and nothing there is written by hand.
"""

import datetime
import json
import re
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import families
import retrieval_tables

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "docs/bench.md", "docs/quantisation.md", "docs/retrieval.md")
OURS, LLAMA_CPP, CTRANSLATE2 = "llmchat int8", "llama.cpp Q8_0", "CTranslate2 int8"
MODELS = {"smol": "135M", "1b": "1.1B"}
# The order of engine.json's rows in docs/bench.md, in the words of that page.
ROWS = {
    "decode / llama.cpp Q8_0": "decode against llama.cpp Q8_0",
    "prefill / llama.cpp Q8_0": "prefill of 541 tokens against llama.cpp Q8_0",
    "decode / CTranslate2 int8": "decode against CTranslate2 int8",
    "prefill / CTranslate2 int8": "prefill of 541 tokens against CTranslate2 int8",
    "decode, share of the memory's speed": "decode, fraction of the memory's speed",
    "first token, turn 20 / turn 2": "first token of turn 20 against turn 2, same new text",
    "decode of repeated text, drafts / none": "decode of repeated text with prompt lookup against"
    " without, same tokens",
    "decode, live LoRA / none": "decode with a live LoRA (rank 16, all linear layers) against none",
    "process start to first token": "process start to first token",
    "peak memory over int8 bytes": "peak memory over the int8 bytes",
    "perplexity, int8 over bf16": "perplexity of int8 over bf16",
}


def results(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((families.RESULTS / f"{name}.json").read_text("utf-8"))
    return found


# ---- README.md


def speed() -> str:
    """llmchat and its peers at a glance, with their versions."""
    engine, streams = results("engine"), results("serve")["streams"]
    lines = ["| | llmchat | llama.cpp | CTranslate2 |", "|---|---|---|---|"]
    for what in ("decode", "prefill"):
        for model, size in MODELS.items():
            rates = engine["rates"][model]["rates"]
            found = [rates.get(label, {}).get(what) for label in (OURS, LLAMA_CPP, CTRANSLATE2)]
            lines.append(f"| {what}, {size} | {' | '.join(_best_in_bold(found))} |")
    many = f"**{statistics.median(streams['many_tps']):,.0f}**"
    lines.append(f"| {streams['streams']} clients, 135M | {many} | – | – |")
    return "\n".join([*lines, "", *_versions(engine)])


def _best_in_bold(rates: list[float | None]) -> list[str]:
    best = max(rate for rate in rates if rate)
    return ["–" if not rate else _bold(_number(rate), rate == best) for rate in rates]


def _bold(text: str, bold: bool) -> str:
    return f"**{text}**" if bold else text


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 30 else f"{value:.1f}"


def _versions(engine: dict[str, Any]) -> list[str]:
    versions = engine["versions"]
    return [
        f"- Versions: llmchat {versions['llmchat']} (int8), {_llama_cpp(versions)} (Q8_0),",
        f"  CTranslate2 {versions['ctranslate2']} (int8). All three ran the same weights, on"
        f" {_day(engine)}.",
    ]


def _day(result: dict[str, Any]) -> str:
    date = datetime.date.fromisoformat(result["date"])
    return f"{date.day} {date:%B %Y}"


def _llama_cpp(versions: dict[str, str]) -> str:
    if compiled := versions.get("llama-cpp-python"):
        return f"llama.cpp of llama-cpp-python {compiled}, compiled for this processor"
    return f"llama.cpp in the PyPI wheel xllamacpp {versions['xllamacpp']}"


# ---- docs/bench.md


def engine() -> str:
    """Every row that benchmarks/engine.py measures."""
    found = results("engine")
    rows = {(row["checkpoint"], row["row"]): row for row in found["rows"]}
    lines = [f"| int8 | {' | '.join(MODELS.values())} |", "|---|---|---|"]
    rates = [found["rates"][model]["rates"][OURS] for model in MODELS]
    for what in ("decode", "prefill"):
        cells = [f"{_number(rate[what])} tokens/s" for rate in rates]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    for name, words in ROWS.items():
        cells = [_cell(rows.get((model, name))) for model in MODELS]
        if set(cells) != {"–"}:
            lines.append(f"| {words} | {' | '.join(cells)} |")
    build = next((one.get("llama_cpp_build") for one in found["rates"].values()), None)
    measured = f"Measured on {_day(found)} with {_llama_cpp(found['versions'])}."
    return "\n".join([*lines, "", measured, *_build(build)])


def _cell(row: dict[str, Any] | None) -> str:
    if row is None or row.get("value") is None:
        return "–"
    value = row["value"]
    digits = 0 if abs(value) >= 20 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f} {row['unit']}"


def _build(features: str | None) -> list[str]:
    return [f"llama.cpp was built with {features}."] if features else []


def all_families() -> str:
    """benchmarks/families.py, each scale that was measured."""
    tables = [_families(scale) for scale in families.SCALES if families.stored().get(scale)]
    return "\n\n".join(tables) or "Not measured yet."


def _families(scale: str) -> str:
    rows = families.stored()[scale]
    days = " and ".join(dict.fromkeys(_day(row) for row in rows.values()))
    build = next((row["llama_cpp_build"] for row in rows.values() if row["llama_cpp_build"]), None)
    title = f"Measured on {days}, `--scale {scale}`:"
    return "\n".join([title, "", families.markdown(scale), "", *_build(build)]).rstrip()


# ---- docs/quantisation.md

QUANTISED = {
    "qwen15.gguf": "Qwen2.5-Coder-1.5B-Instruct Q4_K_M",
    "qwen05.gguf": "Qwen2.5-Coder-0.5B-Instruct Q4_K_M",
    "smollm2.gguf": "SmolLM2-135M-Instruct Q4_1",
}
PEERS = ("llmchat", "llama.cpp", "OpenVINO GenAI", "llmchat int8")


def quantised(name: str = "quantised") -> str:
    """benchmarks/quantised.py: tokens per second of each file, and what else it measures."""
    found = {name: one for name, one in results(name).items() if name in QUANTISED}
    peers = [peer for peer in PEERS if any(peer in one["rates"] for one in found.values())]
    head = [f"| tokens/s | {' | '.join(peers)} |", f"|---|{'--:|' * len(peers)}"]
    rates = [
        f"| {QUANTISED[name]}, {what} | {' | '.join(_best_in_bold(_rates(one, what, peers)))} |"
        for name, one in found.items()
        for what in ("decode", "prefill")
    ]
    besides = [
        "| | memory over the file | first token | pull | copy / file |",
        "|---|--:|--:|--:|--:|",
    ]
    besides += [
        f"| {QUANTISED[name]} | {one['memory over the file, GB']:.2f} GB"
        f" | {one['start to first token, s']:.1f} s | {one['pull, s']:.0f} s"
        f" | {one['disk / file']:.2f} |"
        for name, one in found.items()
    ]
    days = " and ".join(dict.fromkeys(_day(one) for one in found.values()))
    measured = f"Measured on {days}; llama.cpp is compiled for the machine."
    return "\n".join([*head, *rates, "", *besides, "", measured])


def kind_errors() -> str:
    """benchmarks/kind_errors.py: the error of each kind of GGUF files as two programs write it."""
    names = ("llmchat", "llama.cpp", "weighted, llmchat", "weighted, llama.cpp")
    lines = [f"| kind | {' | '.join(names)} |", f"|---|{'--:|' * len(names)}"]
    for kind, errors in results("kind_errors")["kinds"].items():
        found = []
        for pair in (names[:2], names[2:]):
            least = min((errors[name] for name in pair if name in errors), default=0.0)
            found += [_error(errors.get(name), least) for name in pair]
        lines.append(f"| {kind} | {' | '.join(found)} |")
    return "\n".join(lines)


def _error(error: float | None, least: float) -> str:
    if error is None:
        return "–"
    return f"**{error:.4f}**" if error == least else f"{error:.4f}"


def _rates(one: dict[str, Any], what: str, peers: list[str]) -> list[float | None]:
    return [one["rates"].get(peer, {}).get(what) for peer in peers]


TABLES = {
    "speed": speed,
    "engine": engine,
    "families": all_families,
    "quantised": quantised,
    "quantised_avx2": partial(quantised, "quantised_avx2"),
    "kind_errors": kind_errors,
    **retrieval_tables.TABLES,
}


def written(page: str) -> str:
    """The page with its tables made anew. Raises ValueError for a table that nobody makes."""

    def made(match: re.Match[str]) -> str:
        name = match[1]
        if name not in TABLES:
            raise ValueError(f"no table is called {name}")
        return f"<!-- {name} -->\n{TABLES[name]()}\n<!-- /{name} -->"

    return re.sub(r"<!-- (\w+) -->\n.*?<!-- /\1 -->", made, page, flags=re.DOTALL)


def main() -> None:
    for name in PAGES:
        page = ROOT / name
        page.write_text(written(page.read_text("utf-8")), "utf-8")
        print(f"wrote {name}")


if __name__ == "__main__":
    main()
