"""Ask a Hub for the files of a repo, for small files and for parts of large ones.

Every answer is bounded in time and in bytes.
"""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import TypeVar
from urllib.parse import quote

import msgspec
from msgspec import Struct

from llmchat.errors import IntegrityError
from llmchat.hub import retry
from llmchat.hub.cache import RemoteFile, checked_name, git_id, hub_cache
from llmchat.hub.endpoint import checked, endpoint, offline, quiet, token
from llmchat.hub.http import Answer, Cut, Elsewhere, WrongPart, get
from llmchat.hub.response_guard import AGAIN, explained, status_of, wait_after
from llmchat.hub.retry import TransferLimits, Watchdog
from llmchat.output.terminal_text import excerpt, fit_for
from llmchat.presets.types import Source
from llmchat.settings import World

__all__ = [
    "Listing",
    "endpoint",
    "explained",
    "hub_cache",
    "list_files",
    "offline",
    "read_range",
    "read_small",
    "retrying",
]

_LARGEST_SMALL = 50_000_000
# A list of a hundred thousand files takes 30 MB.
_LONGEST_LIST = 60_000_000
_LARGEST_FILE = 1 << 50
_GATES = {"auto", "manual"}

_Value = TypeVar("_Value")


class Listing(Struct, frozen=True):
    """A repo at one commit. gated: "", "auto" or "manual"; licence: as its card names it."""

    commit: str
    files: tuple[RemoteFile, ...]
    gated: str = ""
    licence: str = ""


class _Lfs(Struct):
    sha256: str


class _Sibling(Struct, rename="camel"):
    rfilename: str
    size: int | None = None
    blob_id: str | None = None
    lfs: _Lfs | None = None


class _Info(Struct, rename="camel"):
    """The part of the Hub's answer that a pull uses; the decoder skips the rest."""

    sha: str | None = None
    siblings: list[_Sibling] | None = None
    gated: msgspec.Raw = msgspec.Raw(b"null")
    card_data: msgspec.Raw = msgspec.Raw(b"null")


def list_files(source: Source, world: World, *, once: bool = False) -> Listing:
    """Ask for a repo's list of files. once: do not retry, for a model that is here already."""
    checked(source)
    revision = f"/revision/{quote(source.revision, safe='')}" if source.revision else ""
    url = f"{endpoint(world)}/api/models/{source.repo}{revision}?blobs=true"

    def ask() -> bytes:
        with get(url, _headers(world), TransferLimits.of(world)) as answer:
            answer.refuse_page("")
            content = answer.body(_LONGEST_LIST)
            answer.refuse_page("", content[:200])
            return content

    with explained(source, world):
        content = (
            ask()
            if once
            else retrying(ask, connected=False, tell=lambda line: _print_note(world, line))
        )
        if len(content) > _LONGEST_LIST:
            raise IntegrityError(
                f"the list of files of {source} is longer than {_LONGEST_LIST:,} bytes; nothing was"
                " downloaded"
            )
        return _listing(source, msgspec.json.decode(content, type=_Info))


def _print_note(world: World, line: str) -> None:
    print(fit_for(world.stderr, line), file=world.stderr, flush=True)


def _listing(source: Source, info: _Info) -> Listing:
    if not re.fullmatch(r"[0-9a-f]{40}", info.sha or ""):
        raise IntegrityError(f"the server gives no commit for {source}; nothing was downloaded")
    gated = _plain(info.gated)
    card = _plain(info.card_data)
    licence = card.get("license") if isinstance(card, dict) else None
    files = tuple(map(_file, info.siblings or []))
    if len({file.name for file in files}) < len(files):
        raise IntegrityError(
            f"the list of files of {source} names a file twice; nothing was downloaded"
        )
    return Listing(
        str(info.sha),
        files,
        gated if gated in _GATES else "",
        excerpt(licence) if isinstance(licence, str) else "",
    )


def _plain(value: msgspec.Raw) -> object:
    """A value of any type; None for a long one."""
    return msgspec.json.decode(value) if len(bytes(value)) <= 100_000 else None


def _file(sibling: _Sibling) -> RemoteFile:
    name = checked_name(sibling.rfilename)
    if PurePosixPath(name).is_absolute():
        raise IntegrityError(
            f"the repo names a file `{excerpt(name)}` outside its folder; nothing was downloaded"
        )
    etag = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
    if not re.fullmatch(r"[0-9a-f]{64}" if sibling.lfs else r"[0-9a-f]{40}", etag or ""):
        raise IntegrityError(
            f"the server gives no checksum for {excerpt(name)}; nothing was downloaded"
        )
    if not 0 <= (sibling.size or 0) <= _LARGEST_FILE:
        raise IntegrityError(
            f"the server gives no size for {excerpt(name)}; nothing was downloaded"
        )
    return RemoteFile(name, sibling.size or 0, str(etag), bool(sibling.lfs))


def read_small(source: Source, world: World, commit: str, file: RemoteFile) -> bytes:
    """Fetch a small file into memory. Raises IntegrityError when its checksum is wrong."""
    if file.size > _LARGEST_SMALL:
        raise IntegrityError(f"{file.name} of {source} is too large: {file.size:,} bytes")
    content = read_range(source, world, commit, file, 0, file.size)
    if not file.large and git_id(content) != file.etag:
        raise IntegrityError(f"{file.name} of {source} arrived damaged", AGAIN)
    return content


def read_range(
    source: Source, world: World, commit: str, file: RemoteFile, start: int, count: int
) -> bytes:
    """Fetch `count` bytes of a file from `start`; fewer at its end."""
    count = min(count, file.size - start)

    def ask() -> bytes:
        with stream(
            source, world, commit, file.name, {"Range": f"bytes={start}-{start + count - 1}"}
        ) as answer:
            answer.refuse_page(file.name)
            skipped = start - first_byte(answer, start, file)
            content = answer.body(skipped + count)
            answer.refuse_page(file.name, content[:200])
        if len(content) < skipped + count:
            raise Cut(f"{len(content)} of {skipped + count} bytes")
        return content[skipped : skipped + count]

    if count <= 0:
        return b""
    with explained(source, world):
        return retrying(ask)


def first_byte(answer: Answer, asked: int, file: RemoteFile) -> int:
    """Where in the file an answer begins: at `asked`, or at 0 for a server without ranges.

    Raises WrongPart for any other place.
    """
    if answer.status == 200:
        return 0
    found = re.fullmatch(
        r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)",
        str(answer.headers.get("Content-Range", "")).strip(),
    )
    if not found or int(found[1]) != asked or found[2] not in ("*", str(file.size)):
        raise WrongPart(f"another part of {file.name} than requested")
    return asked


@contextmanager
def stream(
    source: Source,
    world: World,
    commit: str,
    name: str,
    headers: dict[str, str],
    watch: Watchdog | None = None,
) -> Iterator[Answer]:
    """The answer to a GET of one file. Raises the library's errors for refusals."""
    from huggingface_hub import hf_hub_url

    url = hf_hub_url(source.repo, name, revision=commit, endpoint=endpoint(world))
    with get(url, _headers(world) | headers, TransferLimits.of(world), watch=watch) as answer:
        yield answer


def _headers(world: World) -> dict[str, str]:
    quiet()
    from huggingface_hub.utils import build_hf_headers

    # A compressed answer could not be resumed, and a short one could decompress to a long one.
    return dict(build_hf_headers(token=token(world))) | {"Accept-Encoding": "identity"}


def retrying(
    act: Callable[[], _Value],
    *,
    connected: bool = True,
    moved: Callable[[], int] = lambda: 0,
    step: int = 1,
    stop: threading.Event | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> _Value:
    """Call `act` until it succeeds, see `retry.retrying`.

    connected: whether a refused connection counts as temporary; tell: called with a line before a
    long wait.
    """

    def say(seconds: float, error: Exception) -> None:
        code = error.status if isinstance(error, Elsewhere) else status_of(error)
        tell(f"the server answers with HTTP {code}; trying again in {seconds:.0f} seconds")

    return retry.retrying(
        act,
        lambda error, tries: wait_after(
            error, tries, retry.WAITS, retry.LONGEST_WAIT, connected=connected
        ),
        moved=moved,
        step=step,
        stop=stop,
        tell=say,
    )
