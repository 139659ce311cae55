"""The tables of docs/retrieval.md, from benchmarks/results/retrieval.json."""

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "retrieval.json"
MODES = {
    "words": "words (BM25)",
    "meaning": "meaning (cosine)",
    "hybrid": "both (hybrid)",
}
SYSTEMS = {
    "llmchat": "llmchat",
    "sqlite-vec": "sentence-transformers, sqlite-vec",
    "llm": "llm, llm-sentence-transformers",
}
KINDS = ("other words", "quoting")
LEAST = (0.28, 0.3, 0.32, 0.34, 0.36, 0.38, 0.4)
_MEASURES = "| recall@1 | recall@3 | recall@10 | MRR |"


def results() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RESULTS.read_text("utf-8"))
    return found


def modes() -> str:
    """Every way of searching all documents, at the default size."""
    whole = results()["all"]
    default = whole["rows"][0]["size"]
    rows = [row for row in whole["rows"] if row["size"] == default]
    groups = dict.fromkeys(row["group"] for row in rows)
    lines = [f"| questions | embedder | search by {_MEASURES}", "|---|---|---|---|---|---|---|"]
    for group in groups:
        seen: set[str] = set()
        for row in (one for one in rows if one["group"] == group and one["system"] == "llmchat"):
            key = f"{row['embedder']} {row['mode']}"
            if key not in seen:
                seen.add(key)
                name = row["embedder"] or "–"
                lines.append(f"| {group} | {name} | {_mode(row)} | {_measures(row)} |")
    return "\n".join(lines)


def peers() -> str:
    """The same passages and weights in other programs, on some of the packages."""
    part = _part()
    rows = [row for row in part["rows"] if row["group"] == "English"]
    default = rows[0]["size"]
    lines = [f"| program | search by {_MEASURES}", "|---|---|---|---|---|---|"]
    for row in rows:
        if row["size"] == default:
            lines.append(f"| {SYSTEMS[row['system']]} | {_mode(row)} | {_measures(row)} |")
    return "\n".join(lines)


def sizes() -> str:
    """Passages of other sizes, on the same packages."""
    part = _part()
    lines = [f"| passage / shared tokens | search by {_MEASURES}", "|---|---|---|---|---|---|"]
    for row in part["rows"]:
        ours = row["group"] == "English" and row["system"] == "llmchat"
        if ours:
            lines.append(f"| {row['size']} | {_mode(row)} | {_measures(row)} |")
    return "\n".join(lines)


def fusion() -> str:
    """The constant and the weight of the fusion, for two kinds of questions."""
    names = " | ".join(f"{kind}, {name}" for kind in KINDS for name in ("@3", "@10", "MRR"))
    lines = [f"| constant | weight of meaning | {names} |", f"|---|---|{'---|' * 6}"]
    for found in results()["all"]["fusion"].values():
        for rows in zip(*(found[kind] for kind in KINDS), strict=True):
            first = rows[0]
            cells = [
                f"{row[name]:.3f}" for row in rows for name in ("recall_3", "recall_10", "mrr")
            ]
            lines.append(f"| {first['constant']} | {first['weight']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def searches() -> str:
    """How many messages of each kind reach a cosine."""
    lines = [
        "| embedder | least cosine | answered by the documents | something else | the chat |",
        "|---|---|---|---|---|",
    ]
    for name, groups in results()["all"]["scores"].items():
        for least in LEAST:
            cells = [
                f"{sum(one >= least for one in groups[kind])} of {len(groups[kind])}"
                for kind in ("answered", "unanswered", "chat")
            ]
            lines.append(f"| {name} | {least:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def answers() -> str:
    found = results().get("answers")
    if not found:
        return "Not measured yet."
    total = found["questions"]
    return "\n".join(
        [
            f"| {found['model']} | right answers |",
            "|---|---|",
            f"| alone | {found['right_alone']} of {total} |",
            f"| with `--docs` | {found['right_with_docs']} of {total} |",
            f"| alone, where the search finds the passage | {found['right_alone_where_found']} of"
            f" {found['found']} |",
            f"| with `--docs`, where the search finds the passage |"
            f" {found['right_where_found']} of {found['found']} |",
        ]
    )


def _part() -> dict[str, Any]:
    """The result for some of the packages."""
    (part,) = (value for name, value in results().items() if name not in ("all", "answers"))
    found: dict[str, Any] = part
    return found


def _mode(row: dict[str, Any]) -> str:
    mode, _, rest = row["mode"].partition(", ")
    return MODES[mode] + (f", {rest}" if rest else "")


def _measures(row: dict[str, Any]) -> str:
    names = ("recall_1", "recall_3", "recall_10", "mrr")
    return " | ".join(f"{row[name]:.3f}" for name in names)


TABLES = {
    "retrieval": modes,
    "retrieval_peers": peers,
    "retrieval_sizes": sizes,
    "retrieval_fusion": fusion,
    "retrieval_need": searches,
    "retrieval_answers": answers,
}
