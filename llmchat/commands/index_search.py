"""`llmchat index search`: open what a search needs, and print what it found."""

from collections.abc import Sequence

from llmchat.errors import NotPulled
from llmchat.memory.index import Index, Mode
from llmchat.memory.types import Embedder, Hit
from llmchat.output.terminal_text import fit_for, has_styles
from llmchat.settings import World

_LINES = 4


def found(
    world: World, index: Index, query: str, mode: Mode, limit: int, rerank: str, quiet: bool
) -> list[Hit]:
    """The passages that fit best. Raises NotPulled for a reranker that is not pulled."""
    from llmchat.models.embedding import open_reranker

    reranker = open_reranker(world, rerank) if rerank else None
    embedder = None if mode == "words" else _embedder(world, index, mode, quiet)
    return index.search(query, limit, embedder, reranker, mode)


def _embedder(world: World, index: Index, mode: Mode, quiet: bool) -> Embedder | None:
    """The embedder of the index; without one on this machine, a hybrid search is by words."""
    from llmchat.models.embedding import open_embedder

    if not index.embedder:
        return None
    try:
        return open_embedder(world, index.embedder)
    except NotPulled as error:
        if mode == "meaning":
            raise
        if not quiet:
            line = f"note: searched by words alone: {error.message}; {error.hint}"
            print(fit_for(world.stderr, line), file=world.stderr)
        return None


def print_found(world: World, hits: Sequence[Hit]) -> None:
    """Each passage behind its source, heading and score."""
    for number, hit in enumerate(hits, 1):
        heading = f"  {hit.passage.heading}" if hit.passage.heading else ""
        title = f"{number}. {hit.passage.source}{heading}  ({hit.score:.3g})"
        body = "\n".join(f"   {line}" for line in _excerpt(hit.passage.text))
        bold = has_styles(world)
        shown = fit_for(world.stdout, title)
        print(f"\x1b[1m{shown}\x1b[0m" if bold else shown, file=world.stdout)
        print(fit_for(world.stdout, body), file=world.stdout)


def _excerpt(text: str) -> list[str]:
    """The first lines of a passage; `…` where there are more."""
    lines = [line.rstrip()[:200] for line in text.splitlines() if line.strip()]
    return lines if len(lines) <= _LINES else [*lines[:_LINES], "…"]
