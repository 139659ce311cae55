"""Data sets: any known format from a file, a folder, stdin, the Hub or the history, as records for
training.

Every error names the file and the record. Nothing here loads a model.
"""

from collections.abc import Iterator, Sequence

from llmchat.errors import UsageError
from llmchat.finetune.data.mixing import fingerprint, mix, split
from llmchat.finetune.records import Record, checked
from llmchat.settings import World

__all__ = ["fingerprint", "read", "split"]


def read(
    sources: Sequence[str],
    format: str,
    world: World,
    *,
    seed: int = 0,
    language: str = "",
    offline: bool = False,
    strict: bool = True,
) -> Iterator[Record]:
    """The records of all sources.

    A source is FILE, FOLDER, `-` (stdin), `hub:org/name[/config][:split]` or `sessions:[ID]`.

    Without weights, the sources are read one after the other, record by record. If at least one
    source has `=WEIGHT` (1 for the others), records are drawn at random in these proportions,
    without repetition, until the first source is used up: `a.json=3 b.json=1` gives three of a for
    each of b. The rest of the other sources is not used. The same seed gives the same mixture.
    Weighted sources are held in memory.

    format: a name from formats.FORMATS, or `auto`: by the exact fields of each file's first record.
    language: only OASST trees in this language. strict: records are conversations as training needs
    them, or an error; otherwise they are as written, for the cleaner.
    Raises UsageError at once for a missing source, and while reading for bad data.
    """
    from llmchat.finetune.data import formats
    from llmchat.finetune.data.sources import all_of, parse

    if not sources:
        raise UsageError(
            "there is no data", "name a file, a folder, `-` for stdin, hub:org/name or sessions:"
        )
    if format != "auto":
        format = formats.ALIASES.get(format, format)
        formats.format_named(format)
    parsed = [parse(text, world, format) for text in sources]
    if sum(source.name == "-" for source in parsed) > 1:
        raise UsageError("stdin can be read once only")

    def go() -> Iterator[Record]:
        if any(source.weight for source in parsed):
            groups = [list(all_of([source], format, world, language, offline)) for source in parsed]
            yield from mix(groups, [source.weight or "1" for source in parsed], seed)
        else:
            yield from all_of(parsed, format, world, language, offline)

    return map(checked, go()) if strict else go()
