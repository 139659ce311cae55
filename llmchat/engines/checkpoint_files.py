"""Reads the small files of a checkpoint: configs, names of special tokens, the chat template.

Whatever the files hold, an error names the file.
"""

import contextlib
import json
from pathlib import Path
from typing import Any

from llmchat.errors import IntegrityError
from llmchat.memory_estimate import own_context
from llmchat.parse_guard import reading, reason

# Names the GGUF file whose weights a folder describes: files, kind (`Q4_K_M`), size in bytes.
GGUF_POINTER = "gguf.json"
# Weights in the layout of the compiled step, and the table that describes them.
PACKED_DATA, PACKED_TABLE = "packed.bin", "packed.json"
# The key of a config.json that names the version of this layout; of a converted folder.
PACKED_KEY, PACKED_VERSION = "llmchat_packed", 1
# Context of a checkpoint whose config.json names none.
_CONTEXT = 2048
# Where positions are relative (T5) or the past is a recurrent state (RWKV), the number in
# config.json limits nothing: T5 files have 512 however they were trained, and every converted RWKV
# file has 1024.
_AT_LEAST = {"t5": 2048, "mt5": 2048, "umt5": 2048, "rwkv": 4096, "rwkv7": 4096}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a checkpoint folder; {} if there is no such file."""
    table = _json(path, {})
    if not isinstance(table, dict):
        raise IntegrityError(f"{path} is not a JSON object")
    return table


def read_json_list(path: Path) -> list[dict[str, Any]]:
    """A JSON list of objects from a checkpoint folder; [] if there is no such file."""
    rows = _json(path, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise IntegrityError(f"{path} is not a JSON list of objects")
    return rows


def _json(path: Path, otherwise: Any) -> Any:
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return otherwise
    except (OSError, ValueError) as error:
        raise IntegrityError(f"{path} cannot be read: {reason(error)}") from error
    try:
        return json.loads(text, object_hook=_with_infinity)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{path} is not valid JSON: {reason(error)}") from error


def _with_infinity(table: dict[str, Any]) -> Any:
    """transformers 5 writes numbers that JSON does not have as {"__float__": "Infinity"}."""
    value = table.get("__float__")
    return float(value) if len(table) == 1 and isinstance(value, str) else table


def special_names(folder: Path) -> dict[str, str]:
    """The special tokens by the names that chat templates use: bos_token, eos_token and others."""
    config = read_json(folder / "special_tokens_map.json") | read_json(
        folder / "tokenizer_config.json"
    )
    with reading(f"the tokenizer in {folder.name}"):
        return _names(config)


def _names(config: dict[str, Any]) -> dict[str, str]:
    names = {
        key: value.get("content", "") if isinstance(value, dict) else value
        for key, value in config.items()
        if key.endswith("_token")
    }
    return {key: value for key, value in names.items() if isinstance(value, str)}


def special_tokens(folder: Path) -> frozenset[str]:
    """The texts that the tokenizer reads as special tokens.

    The tokenizer is not opened: the list is near the start of its file.
    """
    with reading(f"the tokenizer in {folder.name}"):
        added = _added_tokens(folder / "tokenizer.json")
        if added is None:
            config = read_json(folder / "tokenizer_config.json")
            added = config.get("added_tokens_decoder", {}).values()
        # Mistral's own file is read where there is no other.
        tekken = read_json(folder / "tekken.json").get("special_tokens") if not added else None
        return frozenset(
            str(token["content"]) for token in added if token.get("special")
        ) | frozenset(str(token["token_str"]) for token in tekken or ())


def _added_tokens(file: Path) -> list[dict[str, Any]] | None:
    """`added_tokens` of a tokenizer.json, of which only the start is read; None if it has none."""
    text = ""
    with contextlib.suppress(FileNotFoundError), file.open(encoding="utf-8") as opened:
        while part := opened.read(1 << 16):
            text += part
            with contextlib.suppress(ValueError):
                added: list[dict[str, Any]] = json.JSONDecoder().raw_decode(
                    text, text.index("[", text.index('"added_tokens"'))
                )[0]
                return added
    return None


def chat_template(folder: Path) -> str | None:
    """The chat template of a checkpoint, from any of the files that can hold it."""
    own = folder / "chat_template.jinja"
    if own.exists():
        with reading(own):
            return own.read_text("utf-8")
    for name in ("tokenizer_config.json", "chat_template.json"):
        template = read_json(folder / name).get("chat_template")
        if isinstance(template, list):
            with reading(folder / name):
                named = {entry.get("name"): entry["template"] for entry in template}
                template = named.get("default")
        if isinstance(template, str):
            return template
    return None


def context_of(folder: Path) -> int:
    """The context window of a model in tokens, from its config.json.

    For an encoder-decoder it limits the prompt and the answer separately.
    """
    config = read_json(folder / "config.json")
    with reading(folder / "config.json"):
        if own_context(config) < 0:
            raise ValueError("it has a negative number of positions")
    return max(own_context(config) or _CONTEXT, _AT_LEAST.get(str(config.get("model_type")), 0))
