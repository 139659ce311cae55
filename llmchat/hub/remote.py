"""What the Hugging Face Hub says: the files of a repo, small files and headers, and its refusals in words that help.

huggingface_hub knows the protocol and the tokens. No token, and no address that could hold one, reaches a message.
"""

import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import urlsplit

from msgspec import Struct

from llmchat.errors import IntegrityError, LlmchatError, ModelNotFound, NetworkError, NotAuthorised
from llmchat.hub.cache import RemoteFile, checked_name, git_id, hub_cache, hub_home
from llmchat.presets.types import Source
from llmchat.settings import World

__all__ = ["Listing", "endpoint", "explained", "hub_cache", "list_files", "offline", "patiently", "read_range", "read_small"]

# Seconds before another try; a server that names a time of its own is given it, up to the longest.
WAITS = (1.0, 2.0, 4.0, 8.0)
LONGEST_WAIT = 120
_LONG_WAIT = 10
PASSING = (408, 429, 500, 502, 503, 504)
_CUT = "cut"
_LARGEST_SMALL = 50_000_000
AGAIN = "pull again: it goes on where it stopped"

_Value = TypeVar("_Value")


class Listing(Struct, frozen=True):
    """A repo at one commit. gated: "", "auto" or "manual"; licence: what its card says."""

    commit: str
    files: tuple[RemoteFile, ...]
    gated: str = ""
    licence: str = ""


def list_files(source: Source, world: World) -> Listing:
    """Ask for a repo's files; nothing of them is fetched."""
    with explained(source, world):
        ask = api(world).model_info
        info = patiently(
            lambda: ask(source.repo, revision=source.revision or None, files_metadata=True),
            connected=False,
            tell=lambda line: print(line, file=world.stderr, flush=True),
        )
    if not re.fullmatch(r"[0-9a-f]{40}", str(info.sha)):
        raise IntegrityError(f"the server gives no commit for {source}; nothing was downloaded")
    card = getattr(info, "card_data", None)
    return Listing(str(info.sha), tuple(_files(info)), str(info.gated or ""), str(getattr(card, "license", None) or ""))


def _files(info: Any) -> Iterator[RemoteFile]:
    for sibling in info.siblings or []:
        name = checked_name(sibling.rfilename)
        if PurePosixPath(name).is_absolute():
            raise IntegrityError(f"the repo names a file {name!r} outside its folder; nothing was downloaded")
        etag = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
        if not re.fullmatch(r"[0-9a-f]{64}" if sibling.lfs else r"[0-9a-f]{40}", etag or ""):
            raise IntegrityError(f"the server gives no checksum for {name}; nothing was downloaded")
        yield RemoteFile(name, sibling.size or 0, etag, bool(sibling.lfs))


def read_small(source: Source, world: World, commit: str, file: RemoteFile) -> bytes:
    """A small file into memory, checked. Raises IntegrityError when it is not what the list says."""
    if file.size > _LARGEST_SMALL:
        raise IntegrityError(f"{file.name} of {source} is {file.size:,} bytes: too large for what it should be")
    content = read_range(source, world, commit, file.name, 0, file.size)
    if not file.large and git_id(content) != file.etag:
        raise IntegrityError(f"{file.name} of {source} arrived damaged", AGAIN)
    return content


def read_range(source: Source, world: World, commit: str, name: str, start: int, count: int) -> bytes:
    """`count` bytes of a file from `start`; fewer where it ends before."""

    def ask() -> bytes:
        with stream(source, world, commit, name, {"Range": f"bytes={start}-{start + count - 1}"}) as response:
            skipped = start if response.status_code == 200 else 0
            content = b""
            for chunk in response.iter_raw():
                content += chunk
                if len(content) >= skipped + count:
                    break
            return content[skipped : skipped + count]

    if count <= 0:
        return b""
    with explained(source, world):
        return patiently(ask)


@contextmanager
def stream(source: Source, world: World, commit: str, name: str, headers: dict[str, str]) -> Iterator[Any]:
    """The response to a GET of one file; refusals are raised as the library's errors."""
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    url = hf_hub_url(source.repo, name, revision=commit, endpoint=endpoint(world))
    # Compressed on the way, a file could not be resumed.
    given = build_hf_headers(token=token(world)) | {"Accept-Encoding": "identity"} | headers
    with get_session().stream("GET", url, headers=given, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT) as response:
        hf_raise_for_status(response)
        yield response


def patiently(
    act: Callable[[], _Value],
    *,
    connected: bool = True,
    moved: Callable[[], int] = lambda: 0,
    stop: threading.Event | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> _Value:
    """Do `act` again after faults that pass, a few times in a row; what has `moved` in between starts the count anew.

    connected: whether a refused connection passes, too: in the middle of a download it does, at its beginning the address is wrong.
    tell: hears of a wait that is long enough to look like an end.
    """
    tries, seen = 0, moved()
    while True:
        try:
            return act()
        except Exception as error:
            if moved() != seen:
                tries, seen = 0, moved()
            wait = _wait(error, tries, connected)
            if wait is None:
                raise
            tries += 1
            if wait >= _LONG_WAIT:
                tell(f"the server answers with HTTP {_status(error)}; trying again in {wait:.0f} seconds")
            if (stop or threading.Event()).wait(wait):
                raise


def _wait(error: Exception, tries: int, connected: bool) -> float | None:
    """Seconds until another try makes sense; None when it never does."""
    from huggingface_hub import errors

    transport = errors.HfHubHTTPError.__mro__[1]
    if isinstance(error, errors.HfHubHTTPError):
        passing = _status(error) in PASSING
    elif isinstance(error, Cut):
        passing = True
    else:
        passing = isinstance(error, (transport, ConnectionError)) and (connected or "Connect" not in type(error).__name__)
    if not passing or tries >= len(WAITS):
        return None
    asked = str(getattr(getattr(error, "response", None), "headers", {}).get("Retry-After", ""))
    wait = max(WAITS[tries], float(asked)) if asked.isdigit() else WAITS[tries]
    return wait if wait <= LONGEST_WAIT else None


class Cut(OSError):
    """The connection ended before the file did."""


def offline(world: World) -> bool:
    return world.env.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def endpoint(world: World) -> str:
    return world.env.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def shown_endpoint(world: World) -> str:
    """The Hub's address without a name or password that stands in it."""
    parts = urlsplit(endpoint(world))
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def token(world: World) -> str | bool:
    """HF_TOKEN, or the token that `hf auth login` stored; False sends none. What cannot be a token never gets into a request's errors."""
    path = Path(world.env["HF_TOKEN_PATH"]) if world.env.get("HF_TOKEN_PATH") else hub_home(world) / "token"
    if world.env.get("HF_TOKEN"):
        found = world.env["HF_TOKEN"].strip()
    else:
        found = path.read_text("utf-8", errors="replace").strip() if path.exists() else ""
    if not re.fullmatch(r"[\x21-\x7e]*", found):
        raise NotAuthorised("the token of the Hub holds characters that no token has", f"look at HF_TOKEN, or at {path}")
    return found or False


def api(world: World) -> Any:
    """The library's client for this world's Hub, with the user's token."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import HfApi
    from huggingface_hub.utils import logging

    # Its notes on retries would break into our progress line.
    logging.set_verbosity_error()
    return HfApi(endpoint=endpoint(world), token=token(world))


@contextmanager
def explained(source: Source, world: World) -> Iterator[None]:
    """Turn the library's errors into lines that say what to do. A gated repo is also 'not found' to the library, so it goes first."""
    from huggingface_hub import errors

    transport = errors.HfHubHTTPError.__mro__[1]
    hub = shown_endpoint(world)
    try:
        yield
    except errors.GatedRepoError as error:
        raise NotAuthorised(
            f"{source.repo} is gated", f"accept its licence at {hub}/{source.repo}, then `hf auth login` or set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelNotFound(f"{source.repo} has no revision `{source.revision}`") from error
    except errors.RepositoryNotFoundError as error:
        if token(world) or _status(error) == 404:
            raise ModelNotFound(
                f"there is no repo {source.repo} at {hub}", "check the name; a private one needs `hf auth login`"
            ) from error
        raise NotAuthorised(f"{source.repo} is private, or does not exist", "`hf auth login`, or set HF_TOKEN, if it is yours") from error
    except errors.HfHubHTTPError as error:
        raise _http_error(source, hub, error) from error
    except (transport, ConnectionError, Cut) as error:
        cut = isinstance(error, Cut) or _kind(error) == _CUT
        line = f"the connection to {hub} was cut again and again" if cut else f"{hub} cannot be reached: {_kind(error)}"
        raise NetworkError(line, AGAIN) from error


def _http_error(source: Source, hub: str, error: Any) -> LlmchatError:
    status = _status(error)
    if status in (401, 403):
        return NotAuthorised(
            f"{hub} refuses access to {source.repo} (HTTP {status})",
            "`hf auth login`, or set HF_TOKEN to a token that may read it",
        )
    if status == 404:
        return ModelNotFound(f"{source} is not complete on {hub} (HTTP 404)")
    asked = str(error.response.headers.get("Retry-After", ""))
    wait = f"it asks to wait {asked} seconds; " if status == 429 and asked.isdigit() and int(asked) else ""
    return NetworkError(f"{hub} answers with HTTP {status}", f"{wait}{AGAIN}" if status != 429 else f"too many requests: {wait}{AGAIN}")


def _status(error: Any) -> int:
    return int(getattr(getattr(error, "response", None), "status_code", 0))


def _kind(error: BaseException) -> str:
    """The cause in words, without the address, which may hold a secret."""
    cause: BaseException | None = error
    while cause:
        if isinstance(cause, socket.gaierror) or "Name or service not known" in str(cause) or "name resolution" in str(cause):
            return "no such name (DNS)"
        if isinstance(cause, ConnectionRefusedError):
            return "connection refused"
        cause = cause.__cause__ or cause.__context__
    words = re.sub(r"(?<!^)(?=[A-Z])", " ", type(error).__name__).lower().removesuffix(" error")
    return _CUT if words in ("remote protocol", "read") else words
