"""What the commands of `llmchat index` have in common: inputs, embedders, progress and reports."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from msgspec import Struct

from llmchat.commands.outputs import IndexDocument, IndexFacts, IndexPassage, IndexRow
from llmchat.errors import LlmchatError, Mismatch, NotPulled, UsageError, any_of
from llmchat.memory.index import Added, Index, Skipped
from llmchat.memory.places import index_path
from llmchat.memory.readers import Document
from llmchat.memory.types import Embedder
from llmchat.models.index_sources import CHATS, chat_documents, is_address, web_document
from llmchat.output.formatting import counted
from llmchat.output.progress import ByteProgress, NoProgress, Progress
from llmchat.output.terminal_text import fit_for
from llmchat.settings import Options, World, resolve

_MODES: tuple[Literal["hybrid", "words", "meaning"], ...] = ("hybrid", "words", "meaning")
_NONE = "none"
_NOTED = 10
# Above it, a search takes seconds and gigabytes.
_MANY = 1_000_000


class Inputs(Struct, frozen=True):
    """What to add: paths, and documents that were read; addresses that could not be are skipped."""

    sources: list[Path | Document]
    addresses: list[str]
    skipped: list[Skipped]


def inputs(
    world: World, sources: Iterable[str], sessions: bool, allow_private: bool | None
) -> Inputs:
    """Read the addresses and the chats. Raises UsageError for a path that does not exist."""
    given = list(sources)
    paths = [Path(one).expanduser() for one in given if not is_address(one)]
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} is not there")
    pages, skipped = _pages(world, filter(is_address, given), allow_private)
    chats = list(chat_documents(world)) if sessions else []
    return Inputs([*paths, *pages, *chats], [page.source for page in pages], skipped)


def _pages(
    world: World, addresses: Iterable[str], allow_private: bool | None
) -> tuple[list[Document], list[Skipped]]:
    options: Options = resolve(world, {"allow_private": allow_private}).options
    pages, skipped = [], []
    for address in addresses:
        try:
            pages.append(web_document(address, world, options))
        except LlmchatError as error:
            skipped.append(Skipped(address, error.message))
    return pages, skipped


def embedder_for(
    world: World, path: Path, name: str, *, quiet: bool, replaces: bool = False
) -> Embedder | None:
    """The embedder for an index: the named one, its own one, or the default of this machine.

    None for an index that is searched by words alone. replaces: its own one may be another.
    """
    own, words_only = _embedder_of(path)
    if name and own and name != own and not replaces:
        hint = f"`llmchat index update {path.stem} --embedder {name}` replaces it"
        raise Mismatch(f"the index {path.stem} uses the embedder {own}", hint)
    if name == _NONE or (words_only and not name):
        return None
    wanted = name or own
    from llmchat.models.embedding import open_embedder

    try:
        return open_embedder(world, wanted)
    except NotPulled as error:
        if wanted:
            raise
        if not quiet:
            line = f"note: `{path.stem}` is searched by words alone: {error.message}; {error.hint}"
            print(fit_for(world.stderr, line), file=world.stderr)
        return None


def _embedder_of(path: Path) -> tuple[str, bool]:
    if not path.is_file():
        return "", False
    with Index.open(path) as index:
        return index.embedder, index.words_only


def choose(index: Index, name: str, embedder: Embedder | None = None) -> None:
    """Apply a choice of embedder to an index; vectors of another one are deleted."""
    if name:
        index.words_only = name == _NONE
    if name == _NONE or (embedder and index.embedder not in ("", embedder.name)):
        index.forget_vectors()


def updated(
    world: World, index: Index, model: Embedder | None, allow_private: bool | None, quiet: bool
) -> Added:
    """Update an index from its files, pages and chats."""
    roots = index.roots()
    pages, skipped = _pages(world, filter(is_address, roots), allow_private)
    chats = list(chat_documents(world)) if CHATS in roots else []
    deleted = _deleted_chats(index, chats) if CHATS in roots else []
    for source in deleted:
        index.remove(source)
    added = index.update([*pages, *chats], model, progress(world, quiet))
    added.removed += len(deleted)
    added.skipped += skipped
    return added


def _deleted_chats(index: Index, chats: Iterable[Document]) -> list[str]:
    there = {chat.source for chat in chats}
    sources = (one.source for one in index.documents())
    return [one for one in sources if one.startswith(CHATS) and one not in there]


def progress(world: World, quiet: bool) -> Progress:
    return NoProgress() if quiet else ByteProgress(world)


def report(world: World, name: str, index: Index, added: Added, quiet: bool) -> None:
    """What was done, on stderr: what was skipped and why, then the numbers."""
    lines = [f"skipped: {one.reason}" for one in added.skipped[:_NOTED]]
    if more := added.skipped[_NOTED:]:
        lines.append(f"skipped: {counted(len(more), 'more file')}")
    if index.count() > _MANY:
        lines.append(
            f"note: `{name}` has more than a million passages; see `Above a million` in"
            " docs/memory.md"
        )
    parts = [
        f"{counted(added.read, 'document')} read, {counted(added.passages, 'passage')}",
        *([f"{added.unchanged:,} unchanged"] if added.unchanged else []),
        *([f"{added.removed:,} removed"] if added.removed else []),
        *([f"{len(added.skipped):,} skipped"] if added.skipped else []),
    ]
    for line in [*lines, *([] if quiet else [f"{name}: {'; '.join(parts)}"])]:
        print(fit_for(world.stderr, line), file=world.stderr)


def listed(world: World, name: str) -> IndexRow:
    """The facts of an index for a list."""
    path = index_path(world, name)
    with Index.open(path) as index:
        return IndexRow(
            name=name,
            documents=len(index.documents()),
            passages=index.count(),
            embedder=index.embedder,
            size=path.stat().st_size,
            updated=path.stat().st_mtime,
        )


def show_index(world: World, name: str, source: str, *, json: bool) -> None:
    """Print the documents of an index, or the passages of one. Raises UsageError."""
    from llmchat.ui import tables
    from llmchat.ui.json_output import print_json

    path = index_path(world, name)
    with Index.open(path) as index:
        facts = IndexFacts(
            name=name,
            file=str(path),
            embedder=index.embedder,
            width=index.width,
            added=index.roots(),
            documents=[IndexDocument.of(one) for one in index.documents()],
        )
        if source:
            _add_passages(facts, index, source)
    if json:
        print_json(world, facts)
    elif facts.passages:
        tables.rows(world, facts.passages, ("start", "end", "heading", "text"))
    else:
        tables.rows(world, facts.documents, ("source", "passages", "size", "title"))


def _add_passages(facts: IndexFacts, index: Index, source: str) -> None:
    names = {source, str(Path(source).expanduser().resolve())}
    facts.documents = [one for one in facts.documents if one.source in names]
    if not facts.documents:
        hint = f"`llmchat index show {facts.name}` lists the documents"
        raise UsageError(f"{source} is not in the index", hint)
    passages = index.passages_of(facts.documents[0].source)
    facts.passages = [IndexPassage(one.start, one.end, one.heading, one.text) for one in passages]


def checked_mode(mode: str) -> Literal["hybrid", "words", "meaning"]:
    for known in _MODES:
        if mode == known:
            return known
    raise UsageError(f"invalid mode `{mode}`", f"use {any_of(_MODES)}")
