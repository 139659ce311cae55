"""The tokenizer of a base model, for a GGUF file that has none but names its base."""

import fnmatch
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmchat.errors import Mismatch, UsageError
from llmchat.gguf_file import read_header
from llmchat.hub import cache
from llmchat.hub.download import fetch_all
from llmchat.hub.repo import list_repo
from llmchat.output.progress import Progress
from llmchat.presets.model_names import source_of
from llmchat.presets.types import Source
from llmchat.settings import World

_FILES = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "chat_template.*", "vocab.*",
    "merges.txt", "spiece.model", "sentencepiece*.model", "tekken.json",
)  # fmt: skip
_LARGEST = 100_000_000


def base_of(facts: Mapping[str, Any]) -> Source | None:
    """The Hub repo of the base model that a header names; None for another place or none."""
    address = facts.get("general.base_model.0.repo_url") or facts.get("general.source.repo_url")
    try:
        found = source_of(str(address or ""))
    except UsageError:
        return None
    return found if found and found.kind == "hub" and not found.variant else None


def fetch_tokenizer(path: Path, world: World, progress: Progress, target: Path) -> str:
    """Fetch the tokenizer of a GGUF file's base model into a folder; returns a note.

    Raises Mismatch where the file names no base, or its repo has no tokenizer.
    """
    source = base_of(read_header(path).facts)
    if source is None:
        raise no_tokenizer(path)
    listing = list_repo(source, world)
    files = [
        file
        for file in listing.files
        if file.size <= _LARGEST and any(fnmatch.fnmatchcase(file.name, name) for name in _FILES)
    ]
    if not files:
        raise Mismatch(f"{path.name} has no tokenizer, and neither has its base {source}")
    repo = cache.repo_folder(world, source.repo)
    absent = [file for file in files if not cache.stored(repo, file)]
    fetch_all(source, world, progress, listing.commit, absent)
    for file in files:
        shutil.copyfile(cache.stored(repo, file) or cache.blob(repo, file), target / file.name)
    return f"the tokenizer is that of {source}"


def no_tokenizer(path: Path) -> Mismatch:
    return Mismatch(
        f"{path.name} has no tokenizer, and names no base model on the Hub",
        "use another file of the model",
    )
