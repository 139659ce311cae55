"""Turn every fault of a request or an answer into a one-line error with a hint and an exit code.

Messages hold no token, no address that could contain one, and no unbounded text of a server.
"""

import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from llmchat.errors import IntegrityError, LlmchatError, ModelNotFound, NetworkError, NotAuthorised
from llmchat.hub import http
from llmchat.hub.endpoint import public_endpoint, token
from llmchat.output.terminal_text import excerpt
from llmchat.parse_guard import reading
from llmchat.presets.types import Source
from llmchat.settings import World

AGAIN = "pull again: it continues where it stopped"
PASSING = (408, 429, 500, 502, 503, 504)
# A link to the storage has expired; a fresh one is requested once.
_EXPIRED = (400, 401, 403, 410)
_CUT = "cut"


@contextmanager
def explained(source: Source, world: World) -> Iterator[None]:
    """Turn faults of a request into LlmchatErrors; errors of our own disk pass unchanged."""
    from huggingface_hub import errors

    transport = errors.HfHubHTTPError.__mro__[1]
    hub = public_endpoint(world)
    try:
        yield
    except LlmchatError:
        raise
    except (errors.HfHubHTTPError, http.Fault, transport, ConnectionError) as error:
        raise _line(source, world, hub, error) from error
    except OSError:
        raise
    except Exception as error:
        raise IntegrityError(
            f"{hub} sent an invalid answer for {source} ({type(error).__name__})",
            _FOREIGN,
        ) from error


def readable(what: str, source: Source) -> AbstractContextManager[None]:
    """Turn invalid values in a fetched file into an IntegrityError."""
    return reading(f"{what} of {source}", IntegrityError, _DAMAGED)


_DAMAGED = "the repo or the file is damaged; `--revision` selects another version of a repo"
_FOREIGN = "HF_ENDPOINT or a proxy may lead to another service"


def _line(source: Source, world: World, hub: str, error: Exception) -> LlmchatError:
    from huggingface_hub import errors

    # A gated repo is also 'not found' to the library, so it goes first.
    if isinstance(error, errors.GatedRepoError):
        return NotAuthorised(
            f"{source.repo} is gated",
            f"accept its licence at {hub}/{source.repo}, then `hf auth login` or set HF_TOKEN",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        revision = f"revision `{excerpt(source.revision)}`" if source.revision else "default branch"
        return ModelNotFound(
            f"{source.repo} has no {revision}", f"{hub}/{source.repo} lists its branches and tags"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return _no_repo(source, world, hub, error)
    if isinstance(error, errors.HfHubHTTPError):
        return _http_error(source, hub, error)
    return _fault(source, hub, error)


def _no_repo(source: Source, world: World, hub: str, error: Exception) -> LlmchatError:
    if token(world) or status_of(error) == 404:
        return ModelNotFound(
            f"there is no repo {source.repo} at {hub}",
            "check the name; a private one needs `hf auth login`",
        )
    return NotAuthorised(
        f"{source.repo} is private, or does not exist",
        "`hf auth login`, or set HF_TOKEN, if it is yours",
    )


def _http_error(source: Source, hub: str, error: Any) -> LlmchatError:
    status = status_of(error)
    if status in (401, 403):
        return NotAuthorised(
            f"{hub} refuses access to {source.repo} (HTTP {status})",
            "`hf auth login`, or set HF_TOKEN to a token that may read it",
        )
    if status == 404:
        return ModelNotFound(f"{source} is incomplete on {hub} (HTTP 404)")
    asked = _asked_wait(error)
    wait = f"it asks to wait {asked:,.0f} seconds; " if status == 429 and asked else ""
    return NetworkError(
        f"{hub} answers with HTTP {status}",
        f"{wait}{AGAIN}" if status != 429 else f"too many requests: {wait}{AGAIN}",
    )


def _fault(source: Source, hub: str, error: Exception) -> LlmchatError:
    if isinstance(error, http.Portal):
        return NetworkError(
            f"the network answered with a web page (from {excerpt(str(error))}) instead of"
            f" {source.repo}",
            f"sign in to the network in a browser, then {AGAIN}",
        )
    if isinstance(error, http.Elsewhere):
        expired = (
            "the link has expired, or the network blocks that host; "
            if error.status in _EXPIRED
            else ""
        )
        return NetworkError(
            f"{hub} redirects to {excerpt(error.host)}, which answers with HTTP {error.status}",
            f"{expired}{AGAIN}",
        )
    if isinstance(error, http.TooSlow):
        return NetworkError(
            f"the connection to {hub} is too slow: {error}",
            f"LLMCHAT_PULL_RATE sets the limit; {AGAIN}",
        )
    if isinstance(error, http.WrongPart):
        return NetworkError(f"{hub} sends {error}", f"a proxy on the way may be faulty; {AGAIN}")
    if isinstance(error, http.Garbled):
        return IntegrityError(
            f"{hub} sent an invalid answer for {source} ({error})",
            _FOREIGN,
        )
    if isinstance(error, http.Cut) or _kind(error) == _CUT:
        return NetworkError(f"the connection to {hub} was cut again and again", AGAIN)
    return NetworkError(f"{hub} cannot be reached: {_kind(error)}", AGAIN)


def status_of(error: Any) -> int:
    return int(getattr(getattr(error, "response", None), "status_code", 0))


def wait_after(
    error: Exception, tries: int, waits: tuple[float, ...], longest: float, *, connected: bool
) -> float | None:
    """Seconds until the next attempt; None to give up.

    connected: whether a refused connection is temporary. In the middle of a download it is; at its
    beginning the address is wrong.
    """
    from huggingface_hub import errors

    transport = errors.HfHubHTTPError.__mro__[1]
    most = len(waits)
    if isinstance(error, errors.HfHubHTTPError):
        passing = status_of(error) in PASSING
    elif isinstance(error, http.Elsewhere):
        passing = error.status in (*PASSING, *_EXPIRED)
        most = most if error.status in PASSING else min(most, 1)
    elif isinstance(error, http.Fault):
        passing = isinstance(error, (http.Cut, http.TooSlow, http.WrongPart))
    else:
        passing = isinstance(error, (transport, ConnectionError)) and (
            connected or "Connect" not in type(error).__name__
        )
    if not passing or tries >= most:
        return None
    wait = max(waits[tries], _asked_wait(error))
    return wait if wait <= longest else None


def _asked_wait(error: Any) -> float:
    """Seconds of Retry-After; 0 where it is absent or not a number."""
    asked = str(getattr(getattr(error, "response", None), "headers", {}).get("Retry-After", ""))
    return float(asked) if re.fullmatch(r"[0-9]{1,9}", asked) else 0.0


def _kind(error: BaseException) -> str:
    """The cause in words, without the address, which may contain a secret."""
    cause: BaseException | None = error
    while cause:
        if (
            isinstance(cause, socket.gaierror)
            or "Name or service not known" in str(cause)
            or "name resolution" in str(cause)
        ):
            return "no such name (DNS)"
        if isinstance(cause, ConnectionRefusedError):
            return "connection refused"
        if isinstance(cause, ssl.SSLCertVerificationError):
            return "its certificate is not trusted (a proxy, or a network that wants a sign-in?)"
        cause = cause.__cause__ or cause.__context__
    words = re.sub(r"(?<!^)(?=[A-Z])", " ", type(error).__name__).lower().removesuffix(" error")
    return _CUT if words in ("remote protocol", "read") else words
