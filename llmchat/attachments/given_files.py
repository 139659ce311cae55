"""Read what `-f`, `/file` and `@name` name: files, folders, patterns, addresses, PDF and docx."""

import glob
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from threading import Event

from msgspec import Struct

from llmchat.errors import UsageError
from llmchat.memory.readers import Document, read_document
from llmchat.memory.walk import MOST_FILES, files_below
from llmchat.output.formatting import counted
from llmchat.process.streams import MOST_ASKED
from llmchat.settings import Options, World

# Formats that a parser reads; all others are text as it is.
_PARSED = (".pdf", ".docx")
_ADDRESS = ("http://", "https://")
# Most characters of a folder or a pattern in one message.
MOST_CHARACTERS = 200_000_000


class GivenText(Struct, frozen=True):
    """A text for a message. name: in the ledger; text: as the model reads it."""

    name: str
    text: str
    document: Document


def read_given(
    world: World, names: Sequence[str], options: Options, note: Callable[[str], None]
) -> list[GivenText]:
    """The texts of files, folders, patterns and addresses. note: is called with what was skipped.

    Raises UsageError for what cannot be read, and the errors of the web for an address.
    """
    return [one for name in names for one in _given(world, name, options, note) if one.text]


def is_several(name: str) -> bool:
    """Whether a name means a folder, an address or a pattern that matches files."""
    if name.startswith(_ADDRESS):
        return True
    path = Path(name).expanduser()
    return path.is_dir() or (not path.exists() and bool(_matches(name)))


def _given(
    world: World, name: str, options: Options, note: Callable[[str], None]
) -> Iterator[GivenText]:
    if name.startswith(_ADDRESS):
        yield _page(world, name, options)
    elif name != "-" and is_several(name):
        path = Path(name).expanduser()
        found = (
            files_below(path, gitignore=options.gitignore)
            if path.is_dir()
            else list(map(Path, _matches(name)))
        )
        yield from _files(found, name, note)
    else:
        yield _file(world, name)


def _matches(pattern: str) -> list[str]:
    """The files that a pattern with `*`, `?`, `[…]` or `**` matches, without hidden ones."""
    if not glob.has_magic(pattern):
        return []
    found = glob.iglob(str(Path(pattern).expanduser()), recursive=True)
    files = [one for one in islice(found, MOST_FILES) if Path(one).is_file()]
    # `**` follows links, which may lead to the same file again and again.
    shortest = {Path(one).resolve(): one for one in sorted(files, key=len, reverse=True)}
    return sorted(shortest.values())


def _file(world: World, name: str) -> GivenText:
    path, shown = Path(name).expanduser(), Path(name).name
    if path.suffix.lower() in _PARSED and path.is_file():
        document = read_document(path, name)
        return GivenText(shown, document.text.strip(), _at(document, path))
    text = world.read_text(name, MOST_ASKED).strip()
    return GivenText(shown, text, _at(Document(name, text), path))


def _page(world: World, url: str, options: Options) -> GivenText:
    from llmchat.tools.web.fetch import fetch
    from llmchat.tools.web.settings import WebSettings

    page = fetch(url, WebSettings.of(world, options), Event())
    document = Document(page.url, page.text, title=page.title)
    return GivenText(page.url, f"{page.url}:\n{page.text}", document)


def _files(paths: Sequence[Path], name: str, note: Callable[[str], None]) -> Iterator[GivenText]:
    """The files of a folder or a pattern that are text; the others are noted together."""
    skipped, characters, read = list[str](), 0, 0
    for path in paths:
        try:
            document = read_document(path, str(path))
        except UsageError as error:
            skipped.append(error.message)
            continue
        characters, read = characters + len(document.text), read + 1
        if characters > MOST_CHARACTERS:
            raise UsageError(
                f"{name} holds more than {MOST_CHARACTERS / 1e6:,.0f} MB of text",
                f"`llmchat index add NAME {name}` and `--docs NAME` search any amount",
            )
        text = document.text.strip()
        yield GivenText(str(path), f"{path}:\n{text}" if text else "", _at(document, path))
    if not read:
        raise UsageError(f"{name} has no text files", skipped[0] if skipped else "")
    if skipped:
        note(f"{counted(len(skipped), 'file')} of {name} skipped: {skipped[0]}")


def _at(document: Document, path: Path) -> Document:
    """A document whose source is a whole path, so that it can be opened from anywhere."""
    source = str(path.absolute())
    return Document(source, document.text, document.sections, document.title)
