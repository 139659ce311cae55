"""Text ↔ token ids for the engines that run a checkpoint themselves. Needs the tokenizer's files alone, no weights and no torch."""

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmchat.errors import IntegrityError
from llmchat.prompt import Prompt

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")


class Tokens:
    """The tokenizer of a checkpoint folder. `end_ids` are the token ids after which the model has nothing more to say."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._tokenizer = _open_tokenizer(folder)
        added = self._tokenizer.get_added_tokens_decoder()
        self._specials = {token.content: number for number, token in added.items() if token.special}
        self._special_pattern = re.compile("|".join(map(re.escape, sorted(self._specials, key=len, reverse=True))) or r"(?!)")
        self.names = special_names(folder)
        self.end_ids = self._read_end_ids()
        self._opening = self._read_opening()
        self.count = functools.lru_cache(maxsize=4096)(self._count)

    def encode(self, prompt: Prompt) -> list[int]:
        """The whole text in one piece, with exactly one BOS where the model wants one.

        A special token that somebody wrote into a message is text: then the pieces between the format's own special tokens are encoded
        one by one, with special tokens off.
        """
        quoted = [match for start, end in prompt.quoted for match in self._special_pattern.finditer(prompt.text, start, end)]
        if quoted:
            ids = self._encode_apart(prompt, {match.start() for match in quoted})
        else:
            ids = self._tokenizer.encode(prompt.text, add_special_tokens=False).ids
        opening = self._opening if prompt.bos else []
        return ids if ids[: len(opening)] == opening else opening + ids

    def stop_ids(self, prompt: Prompt) -> frozenset[int]:
        """Every token that ends an answer to this prompt: the checkpoint's, the format's, and stop strings that are one special token."""
        named = {self._specials[stop] for stop in prompt.stops if stop in self._specials}
        return frozenset({*self.end_ids, *prompt.stop_ids, *named})

    def decoder(self) -> Callable[[int], str]:
        """A function that takes the ids of an answer one by one and returns the text that has become whole with each."""
        from tokenizers.decoders import DecodeStream

        stream = DecodeStream(skip_special_tokens=True)
        return lambda token: stream.step(self._tokenizer, token) or ""

    def _count(self, text: str) -> int:
        self._tokenizer.encode_special_tokens = True
        try:
            return len(self._tokenizer.encode(text, add_special_tokens=False).ids)
        finally:
            self._tokenizer.encode_special_tokens = False

    def _encode_apart(self, prompt: Prompt, quoted: set[int]) -> list[int]:
        ids: list[int] = []
        position = 0
        self._tokenizer.encode_special_tokens = True
        try:
            for match in self._special_pattern.finditer(prompt.text):
                if match.start() not in quoted:
                    ids += self._tokenizer.encode(prompt.text[position : match.start()], add_special_tokens=False).ids
                    ids.append(self._specials[match[0]])
                    position = match.end()
            return ids + self._tokenizer.encode(prompt.text[position:], add_special_tokens=False).ids
        finally:
            self._tokenizer.encode_special_tokens = False

    def _read_opening(self) -> list[int]:
        """What the tokenizer itself puts before a text: [BOS] or nothing. An end mark it would append does not belong in a prompt."""
        bos = self._specials.get(self.names.get("bos_token", ""))
        return [bos] if bos in self._tokenizer.encode("").ids else []

    def _read_end_ids(self) -> frozenset[int]:
        numbers: set[int] = set()
        for name in ("generation_config.json", "config.json"):
            value = read_json(self._folder / name).get("eos_token_id")
            numbers.update(value if isinstance(value, list) else [] if value is None else [value])
        eos = self._specials.get(self.names.get("eos_token", ""))
        return frozenset(numbers if eos is None else numbers | {eos})


def context_of(folder: Path) -> int:
    """The most tokens a model was made for, from its config; 2048 where it does not say."""
    config = read_json(folder / "config.json")
    return int(next((config[key] for key in _CONTEXT_KEYS if config.get(key)), 2048))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a checkpoint folder; {} when the file is not there."""
    try:
        table: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return table
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise IntegrityError(f"{path} is not valid JSON: {error}") from error


def special_names(folder: Path) -> dict[str, str]:
    """bos_token, eos_token … → how the tokenizer writes it: the names that chat templates use."""
    config = read_json(folder / "special_tokens_map.json") | read_json(folder / "tokenizer_config.json")
    names = {key: value.get("content", "") if isinstance(value, dict) else value for key, value in config.items() if key.endswith("_token")}
    return {key: value for key, value in names.items() if isinstance(value, str)}


def special_tokens(folder: Path) -> frozenset[str]:
    """What the tokenizer reads as special tokens, without opening it: its list of them stands near the start of its file."""
    try:
        text = (folder / "tokenizer.json").read_text("utf-8")
        start = text.index("[", text.index('"added_tokens"'))
        added = json.JSONDecoder().raw_decode(text, start)[0]
    except (FileNotFoundError, ValueError):
        added = read_json(folder / "tokenizer_config.json").get("added_tokens_decoder", {}).values()
    return frozenset(token["content"] for token in added if token.get("special"))


def chat_template(folder: Path) -> str | None:
    """The chat template a checkpoint brings, from any of the places where it may stand."""
    own = folder / "chat_template.jinja"
    if own.exists():
        return own.read_text("utf-8")
    for name in ("tokenizer_config.json", "chat_template.json"):
        template = read_json(folder / name).get("chat_template")
        if isinstance(template, list):
            template = next((entry["template"] for entry in template if entry.get("name") == "default"), None)
        if isinstance(template, str):
            return template
    return None


def _open_tokenizer(folder: Path) -> "Tokenizer":
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if path.exists():
        try:
            return Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception for a broken file
            raise IntegrityError(f"{path} cannot be read: {error}") from error
    return _convert_tokenizer(folder)


def _convert_tokenizer(folder: Path) -> "Tokenizer":
    """Older checkpoints bring a sentencepiece model; transformers knows how to turn it into a fast tokenizer."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder))
    except (OSError, ValueError, ImportError) as error:
        raise IntegrityError(f"{folder} has no tokenizer that can be read: {error}") from error
    backend: Tokenizer = tokenizer.backend_tokenizer
    return backend
