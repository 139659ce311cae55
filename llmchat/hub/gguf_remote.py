"""Inspect a GGUF repo: its variants, and the header of one, read before any weights are fetched."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from llmchat.errors import IntegrityError
from llmchat.gguf_file import GgufHeader, NeedsMore, joined, read_header
from llmchat.hub import cache
from llmchat.hub.cache import RemoteFile
from llmchat.hub.gguf_folder import facts_of_header
from llmchat.hub.gguf_repo import choose_variant, variants
from llmchat.hub.inspection import Inspection
from llmchat.hub.pulled_gguf import gguf_files
from llmchat.hub.remote import Listing
from llmchat.hub.types import Receipt
from llmchat.output.terminal_text import excerpt
from llmchat.presets.types import Source

# Most of a header is the vocabulary, some 6 MB. A longer one takes another request.
_FIRST = 1 << 22

Read = Callable[[int, int], bytes]


def remote_header(read: Read, file: RemoteFile) -> GgufHeader:
    """The header of a file. `read(start, count)` returns its bytes.

    Raises IntegrityError for a file that is not a valid GGUF.
    """
    content, wanted = b"", min(_FIRST, file.size)
    while True:
        content += read(len(content), wanted - len(content))
        try:
            return read_header(content, file.size, file.name)
        except NeedsMore as more:
            if len(content) >= file.size:
                raise IntegrityError(f"{file.name} ends within its header") from more
            wanted = min(file.size, max(more.count, 2 * len(content)))


def inspect_here(source: Source, receipt: Receipt, **more: Any) -> Inspection:
    """Inspect a pulled GGUF file. more: other facts about it."""
    files = [Path(receipt.path) / name for name in gguf_files(receipt)]
    return Inspection(
        source,
        receipt.revision,
        here=True,
        size=receipt.size,
        files=len(files),
        **facts_of(joined(read_header(file) for file in files), receipt.size),
        **({"licence": receipt.licence} | more),
    )


def inspect_variants(
    source: Source,
    listing: Listing,
    repo: Path,
    read: Callable[[RemoteFile], Read],
    known: dict[str, Any],
) -> Inspection:
    """Inspect the variant that a source names; without one, a variant to learn the facts from.

    repo: its folder in the cache. read: file → function that reads a part of it. known: other facts
    about the repo. Raises ModelNotFound where the source names none of its variants.
    """
    choices = variants(listing.files)
    named = choose_variant(source, choices) if source.variant or len(choices) == 1 else None
    variant = named or min(choices, key=lambda one: (len(one.files), one.size))
    header = joined(remote_header(read(file), file) for file in variant.files)
    licence = known["licence"] or excerpt(str(header.facts.get("general.license", "")))
    absent = [file for file in variant.files if not cache.stored(repo, file)]
    partial = sum(cache.partial_size(repo, file) for file in absent)
    missing = sum(file.size for file in absent) - partial
    return Inspection(
        replace(source, variant=named.name) if named else source,
        listing.commit,
        size=variant.size,
        missing=missing,
        partial=partial,
        disk=missing,
        files=len(variant.files),
        choices=choices,
        **facts_of(header, variant.size),
        **(known | {"licence": licence, "listing": replace(listing, licence=licence)}),
    )


def facts_of(header: GgufHeader, size: int) -> dict[str, Any]:
    """What a header tells an inspection. size: bytes of the files."""
    config, shapes, quantised = facts_of_header(header)
    return {
        "weights": size,
        "form": "gguf",
        "config": config,
        "shapes": shapes,
        "quantised": quantised,
        "header": header,
    }
