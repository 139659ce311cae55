"""The sources of records: a file, a folder, stdin, a data set of the Hub, saved sessions."""

import logging
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from msgspec import Struct

from llmchat import plugins
from llmchat.errors import LlmchatError, NetworkError, NotAuthorised, UsageError
from llmchat.finetune.data import formats
from llmchat.finetune.data.extras import need
from llmchat.finetune.data.rows import Row, documents, open_source, rows
from llmchat.finetune.records import Record
from llmchat.plugins import Offer
from llmchat.process import startup
from llmchat.settings import World

_JSON = (".json", ".jsonl", ".ndjson", ".json.gz", ".jsonl.gz", ".ndjson.gz")
_TEXT = (".txt", ".md", ".txt.gz")
_SCHEMES = ("hub:", "sessions:")
_WEIGHT = re.compile(r"(.+)=(\d+(?:\.\d+)?)")
_HUB = re.compile(
    r"hub:(?P<repo>[\w.-]+/[\w.-]+)(?:/(?P<config>[\w.-]+))?(?::(?P<split>[\w.%\[\]:+-]+))?"
)


class Source(Struct, frozen=True):
    """name: as the user wrote it, without its weight; weight: "" if none was given."""

    name: str
    weight: str = ""


def parse(text: str, world: World, format: str) -> Source:
    """Check that the source exists. Raises UsageError for an empty folder or a weight of 0, too."""
    match = None if Path(text).expanduser().exists() else _WEIGHT.fullmatch(text)
    source = Source(match[1], match[2]) if match else Source(text)
    if source.weight and not float(source.weight):
        raise UsageError(f"the weight of {source.name} is 0", "leave the source out")
    if source.name.startswith("hub:"):
        if not _HUB.fullmatch(source.name):
            raise UsageError(
                f"`{source.name}` names no data set",
                "hub:org/name, hub:org/name:split or hub:org/name/config:split",
            )
    elif not (source.name == "-" or source.name.startswith("sessions:") or _loader(source.name)):
        files(source.name, format)
    return source


def _loader(name: str) -> Offer | None:
    """The plugin that loads the source `NAME:ARGUMENT`; a file of that name takes precedence."""
    scheme, colon, _ = name.partition(":")
    offer = plugins.find("data", scheme) if colon and f"{scheme}:" not in _SCHEMES else None
    return offer if offer and not Path(name).expanduser().exists() else None


def _loaded(offer: Offer, name: str) -> Iterator[Row]:
    """The rows of a plugin's source. Whatever the plugin raises becomes one line."""
    found = plugins.make(offer, argument=name.partition(":")[2])
    with plugins.faults(offer):
        rows = enumerate(found, 1)
    while True:
        with plugins.faults(offer):
            number, row = next(rows, (0, None))
            if not number:
                return
            if not isinstance(row, dict):
                raise TypeError(f"row {number} is `{type(row).__name__}`, not a dict")
        yield Row(f"{name}:{number}", row)


def files(name: str, format: str) -> list[str]:
    """The file, or the folder's files that can hold records, in the order of their paths.

    Their names do not decide the format.
    """
    path = Path(name).expanduser()
    if not path.is_dir():
        if not path.exists():
            raise UsageError(f"there is no file or folder {name}")
        return [name]
    endings = _TEXT if format == "text" else _JSON
    found = [
        one
        for one in sorted(path.rglob("*"))
        if one.name.endswith(endings) and one.is_file() and not _hidden(one, path)
    ]
    if not found:
        raise UsageError(
            f"the folder {name} holds no {', '.join(endings)}",
            "" if format == "text" else "`--format text` reads .txt and .md",
        )
    return [str(Path(name) / one.relative_to(path)) for one in found]


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def records(
    source: Source, format: str, world: World, language: str = "", offline: bool = False
) -> Iterator[Record]:
    """The records of one source, one by one."""
    if source.name.startswith("hub:"):
        yield from formats.read_rows(
            _hub_rows(source.name, world.in_offline_mode() if offline else world), format, language
        )
    elif source.name.startswith("sessions:"):
        yield from _sessions(source.name, world)
    elif offer := _loader(source.name):
        yield from formats.read_rows(_loaded(offer, source.name), format, language)
    else:
        for name in ["-"] if source.name == "-" else files(source.name, format):
            with open_source(name, world) as stream:
                place = "stdin" if name == "-" else name
                if format == "text":
                    yield from _texts(stream, place)
                else:
                    yield from formats.read_rows(rows(stream, place), format, language)


def first_format(source: Source, format: str, world: World) -> str:
    """The format of a source's first record; "" if reading it would use the source up."""
    if format != "auto":
        return formats.ALIASES.get(format, format)
    if source.name == "-" or source.name.startswith(_SCHEMES) or _loader(source.name):
        return ""
    name = files(source.name, format)[0]
    with open_source(name, world) as stream:
        row = next(rows(stream, name), None)
    return formats.detect(row) if row else ""


def _texts(stream: Any, place: str) -> Iterator[Record]:
    """Plain text by documents, or the text of JSON lines; the first line decides."""
    head = (
        stream.peek(1 << 16)[: 1 << 16].lstrip(b"\xef\xbb\xbf \t\r\n")
        if hasattr(stream, "peek")
        else b""
    )
    if head.startswith(b'{"text":') or (
        head.startswith(b"{") and b'"text"' in head.partition(b"\n")[0]
    ):
        yield from formats.read_rows(rows(stream, place), "text", "")
        return
    empty = True
    for where, text in documents(stream, place):
        empty = False
        yield Record((), where, text)
    if empty:
        raise UsageError(f"{place} is empty")


def _sessions(name: str, world: World) -> Iterator[Record]:
    from llmchat.models.sessions import saved_history

    wanted = name.removeprefix("sessions:")
    with saved_history(world) as history:
        for session in [history.find(wanted)] if wanted else history.sessions():
            yield from formats.spoken(
                session, history.messages(session.id), f"sessions:{session.id}"
            )


def _hub_rows(name: str, world: World) -> Iterator[Row]:
    """Rows of a data set of the Hub, through the library `datasets` and its cache.

    The default split is `train`.
    """
    from llmchat.hub.endpoint import offline, token

    match = _HUB.fullmatch(name)
    assert match
    if offline(world):
        startup.configure_datasets(offline=True)
    if Path(match["repo"]).exists():
        raise UsageError(
            f"{name}: `datasets` would read the folder {match['repo']} that is here",
            "run this in another folder, or name the folder",
        )
    datasets = need("datasets", f"reading {name}")
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        table = datasets.load_dataset(
            match["repo"], match["config"], split=match["split"] or "train", token=token(world)
        )
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise _explained(name, error, datasets) from error
    for number, row in enumerate(table, 1):
        yield Row(f"{name}:{number}", row)


def _explained(name: str, error: Exception, datasets: Any) -> LlmchatError:
    """The library's error as one of llmchat's.

    The library raises ValueError for a wrong split or configuration, and OSError for the network.
    """
    line = f"{name}: {next(iter(str(error).strip().splitlines()), type(error).__name__)}"
    # The library removes the cause (GatedRepoError) from its error; only the message is left.
    if "is a gated dataset" in line:
        return NotAuthorised(line, "accept its terms on its page, and set HF_TOKEN")
    if isinstance(error, datasets.exceptions.FileNotFoundDatasetsError):
        return UsageError(line, "a private data set needs HF_TOKEN")
    if isinstance(error, OSError):
        return NetworkError(line)
    return UsageError(line, "hub:org/name/config:split names both")


def all_of(
    sources: list[Source], format: str, world: World, language: str, offline: bool
) -> Iterator[Record]:
    return chain.from_iterable(
        records(source, format, world, language, offline) for source in sources
    )
