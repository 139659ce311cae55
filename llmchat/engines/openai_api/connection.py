"""HTTP to a server that speaks OpenAI's API: its address, the key, tries again before the first byte, errors in one line.

Nothing here knows prompts. The key is sent to the server and shown to nobody, not even where the server quotes it.
"""

import json
import random
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from llmchat.errors import (
    ContextOverflow,
    LlmchatError,
    ModelNotFound,
    NetworkError,
    NotAuthorised,
    UsageError,
)

if TYPE_CHECKING:
    import httpx2

TRIES = 4
FIRST_WAIT_S = 0.5
# A server that asks for more patience than this is told to the user instead.
LONGEST_WAIT_S = 60.0
CONNECT_TIMEOUT_S = 10.0
# A long prompt on a slow machine is read in silence.
READ_TIMEOUT_S = 600.0
_LATER = (429, 502, 503, 504)
_TOO_LONG = (
    "context_length_exceeded",
    "exceed_context_size",
    "maximum context length",
    "context size",
    "context window",
    "too many tokens",
)


class Connection:
    """A server at `url` (with or without `/v1`). wait: sleeps so many seconds."""

    def __init__(self, url: str, key: str = "", *, wait: Callable[[float], object] = time.sleep):
        import httpx2

        address = url.strip() if "://" in url else f"http://{url.strip()}"
        for end in ("/chat/completions", "/completions", "/models", "/"):
            address = address.removesuffix(end)
        try:
            parsed = httpx2.URL(address)
        except httpx2.InvalidURL as error:
            raise UsageError(
                f"`{url}` is no address: {error}", "--url http://localhost:8000/v1"
            ) from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise UsageError(f"`{url}` is no address of a server", "--url http://localhost:8000/v1")
        # vLLM, llama-server and Ollama keep OpenAI's paths under /v1, and others of their own beside it.
        self.base = address if parsed.path.strip("/") else f"{address.rstrip('/')}/v1"
        self.root = self.base.removesuffix("/v1")
        self.host = f"{parsed.host}:{parsed.port}" if parsed.port else parsed.host
        self._key = key.strip()
        if not self._key.isascii() or not self._key.isprintable():
            raise NotAuthorised("OPENAI_API_KEY holds characters that no key has", "copy it again")
        self._wait = wait
        self._client: httpx2.Client | None = None

    def __repr__(self) -> str:
        return f"Connection({self.host})"

    def get(self, address: str, tries: int = TRIES) -> Any:
        """JSON from a path under /v1, or from a whole address."""
        with self._open("GET", address, None, tries) as response:
            return self._json(response)

    def post(self, address: str, body: dict[str, Any], tries: int = TRIES) -> Any:
        with self._open("POST", address, body, tries) as response:
            return self._json(response)

    @contextmanager
    def stream(self, address: str, body: dict[str, Any]) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Content type and bytes of an answer as they come. Leaving the block hangs up, which stops the server's work."""
        with self._open("POST", address, body, TRIES) as response:
            yield response.headers.get("content-type", ""), self._bytes(response)

    def error_of(self, status: int, body: Any) -> LlmchatError:
        """What an error of the server means to the user."""
        told = body.get("error", body) if isinstance(body, dict) else body
        message = told.get("message") or told.get("detail") if isinstance(told, dict) else told
        kind = f"{told.get('code', '')} {told.get('type', '')}" if isinstance(told, dict) else ""
        said = self._cleaned(str(message or "")) or f"HTTP status {status}"
        if any(mark in f"{kind} {said}".lower() for mark in _TOO_LONG):
            return ContextOverflow(
                f"{self.host} says: {said}",
                "a smaller window with --context, or `/new`, makes it fit",
            )
        if status in (401, 403):
            hint = "is it the right key?" if self._key else "OPENAI_API_KEY holds the key"
            return NotAuthorised(
                f"{self.host} refuses {'the key' if self._key else 'who has no key'}: {said}", hint
            )
        if status == 404:
            return ModelNotFound(
                f"{self.host} says: {said}", "--url names the server, --model one of its models"
            )
        if 300 <= status < 500 and status != 429:
            return UsageError(f"{self.host} refuses this: {said}")
        return NetworkError(f"{self.host} says: {said}")

    def close(self) -> None:
        """Hang up. The next request opens a new connection."""
        if self._client is not None:
            self._client.close()
            self._client = None

    @contextmanager
    def _open(
        self, method: str, address: str, body: dict[str, Any] | None, tries: int
    ) -> Iterator["httpx2.Response"]:
        response = self._ask(
            method, address if "://" in address else f"{self.base}/{address}", body, tries
        )
        try:
            yield response
        finally:
            response.close()

    def _ask(
        self, method: str, address: str, body: dict[str, Any] | None, tries: int
    ) -> "httpx2.Response":
        """The response to a request, its body still to be read. Tried again while nothing of it has come."""
        import httpx2

        pause = FIRST_WAIT_S
        for left in range(tries - 1, -1, -1):
            later = 0.0
            try:
                client = self._connected()
                response = client.send(
                    client.build_request(method, address, json=body), stream=True
                )
            except (
                httpx2.ConnectError,
                httpx2.ConnectTimeout,
                httpx2.RemoteProtocolError,
                httpx2.ReadError,
                httpx2.WriteError,
            ) as error:
                if not left or _about_tls(error):
                    raise self._unreachable(error) from error
            except (httpx2.TransportError, httpx2.TooManyRedirects) as error:
                raise self._unreachable(error) from error
            else:
                if response.is_success:
                    return response
                told, later = (
                    self._read_error(response),
                    _retry_after(response.headers.get("retry-after", "")),
                )
                if (
                    not left
                    or response.status_code not in _LATER
                    or later > LONGEST_WAIT_S
                    or "insufficient_quota" in str(told)
                ):
                    error_ = self.error_of(response.status_code, told)
                    if later > LONGEST_WAIT_S:
                        error_.hint = f"it says to come back in {later:,.0f} s"
                    raise error_
            self._wait(later or pause * random.uniform(0.8, 1.2))
            pause *= 2
        raise AssertionError("the last try returns or raises")

    def _connected(self) -> "httpx2.Client":
        import httpx2

        if self._client is None:
            headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
            timeout = httpx2.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
            try:
                self._client = httpx2.Client(headers=headers, timeout=timeout)
            except (
                OSError,
                ValueError,
                ImportError,
            ) as error:  # a certificate file or a proxy in the environment that cannot be used
                raise NetworkError(
                    f"the connection to {self.host} cannot be set up: {error}"
                ) from error
        return self._client

    def _bytes(self, response: "httpx2.Response") -> Iterator[bytes]:
        import httpx2

        try:
            yield from response.iter_bytes()
        except httpx2.ReadTimeout as error:
            raise NetworkError(
                f"{self.host} has said nothing for {READ_TIMEOUT_S:.0f} s"
            ) from error
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise NetworkError(
                f"the connection to {self.host} broke in the middle of the answer", "ask again"
            ) from error

    def _json(self, response: "httpx2.Response") -> Any:
        text = b"".join(self._bytes(response))
        try:
            return json.loads(text)
        except ValueError as error:
            raise NetworkError(
                f"{self.host} answers something that is not JSON",
                "is the address that of an OpenAI-compatible API?",
            ) from error

    def _read_error(self, response: "httpx2.Response") -> Any:
        if response.has_redirect_location:
            response.close()
            return f"the address has moved to {self._cleaned(response.headers['location'])}"
        text = b"".join(self._bytes(response))
        response.close()
        try:
            return json.loads(text)
        except ValueError:
            # A page of a proxy, most often: its first line in a short form.
            plain = text.decode("utf-8", "replace").strip()
            return "" if plain.startswith("<") else plain[:200]

    def _unreachable(self, error: Exception) -> NetworkError:
        import httpx2

        reason = self._cleaned(str(error))
        if _about_tls(error):
            return NetworkError(
                f"the TLS connection to {self.host} cannot be trusted: {reason}",
                "SSL_CERT_FILE names the certificate of an own authority; http:// in the address if the server speaks no TLS",
            )
        if isinstance(error, httpx2.ReadTimeout):
            return NetworkError(f"{self.host} has said nothing for {READ_TIMEOUT_S:.0f} s")
        if isinstance(error, httpx2.ProxyError):
            return NetworkError(
                f"the proxy on the way to {self.host} fails: {reason}",
                "NO_PROXY names hosts that need none",
            )
        return NetworkError(
            f"{self.host} cannot be reached: {reason or type(error).__name__}",
            "is the server running, and --url right?",
        )

    def _cleaned(self, text: str) -> str:
        text = text.replace(self._key, "***") if self._key else text
        return " ".join(text.split())[:400]


def _about_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError) or "SSL" in str(error) or "CERTIFICATE" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _retry_after(value: str) -> float:
    """Seconds of a Retry-After header: a number, or a date (RFC 9110, 10.2.3). 0 where there is none that can be read."""
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0.0
