"""HTTP to a server with OpenAI's API: address, key, retries before the first byte, one-line errors.

It knows nothing of prompts. The key is sent to the server and never shown, even if the server
quotes it.
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
# A server that asks for a longer pause is reported to the user instead.
LONGEST_WAIT_S = 60.0
CONNECT_TIMEOUT_S = 10.0
# A server sends nothing while it reads a long prompt.
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
                f"invalid address `{url}`: {error}", "--url http://localhost:8000/v1"
            ) from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise UsageError(f"invalid server address `{url}`", "--url http://localhost:8000/v1")
        # vLLM, llama-server and Ollama have OpenAI's paths under /v1 and their own ones outside it.
        self.base = address if parsed.path.strip("/") else f"{address.rstrip('/')}/v1"
        self.root = self.base.removesuffix("/v1")
        self.host = f"{parsed.host}:{parsed.port}" if parsed.port else parsed.host
        self._key = key.strip()
        if not self._key.isascii() or not self._key.isprintable():
            raise NotAuthorised("OPENAI_API_KEY holds invalid characters", "copy it again")
        self._wait = wait
        self._client: httpx2.Client | None = None

    def __repr__(self) -> str:
        return f"Connection({self.host})"

    def get(self, address: str, tries: int = TRIES) -> Any:
        """JSON from a path under /v1, or from a complete address."""
        with self._open("GET", address, None, tries) as response:
            return self._json(response)

    def post(self, address: str, body: dict[str, Any], tries: int = TRIES) -> Any:
        with self._open("POST", address, body, tries) as response:
            return self._json(response)

    @contextmanager
    def stream(self, address: str, body: dict[str, Any]) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Content type and bytes of an answer as they arrive.

        Leaving the block closes the connection, which stops the server's work.
        """
        with self._open("POST", address, body, TRIES) as response:
            yield response.headers.get("content-type", ""), self._bytes(response)

    def error_of(self, status: int, body: Any) -> LlmchatError:
        """The error that a server's response stands for."""
        kind, message = _kind_and_message(body)
        text = self._cleaned(message) or f"HTTP status {status}"
        if any(mark in f"{kind} {text}".lower() for mark in _TOO_LONG):
            return ContextOverflow(
                f"{self.host} reports: {text}",
                "a smaller window with --context, or `/new`, makes it fit",
            )
        if status in (401, 403):
            if self._key:
                return NotAuthorised(f"{self.host} rejects the key: {text}", "is it the right key?")
            return NotAuthorised(
                f"{self.host} requires a key: {text}", "put the key into OPENAI_API_KEY"
            )
        if status == 404:
            return ModelNotFound(
                f"{self.host} reports: {text}", "--url names the server, --model one of its models"
            )
        if 300 <= status < 500 and status != 429:
            return UsageError(f"{self.host} rejects the request: {text}")
        return NetworkError(f"{self.host} reports: {text}")

    def close(self) -> None:
        """Close the connection. The next request opens a new one."""
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
        """The response to a request, whose body is still to be read.

        A request is repeated only while nothing of its response has arrived.
        """
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
                later = _retry_after(response.headers.get("retry-after", ""))
                self._raise_unless_temporary(response, later, left)
            self._wait(later or pause * random.uniform(0.8, 1.2))
            pause *= 2
        raise AssertionError("the last try returns or raises")

    def _raise_unless_temporary(self, response: "httpx2.Response", later: float, left: int) -> None:
        """later: seconds that the server asks to wait; left: the number of tries that remain."""
        body = self._read_error(response)
        temporary = response.status_code in _LATER and "insufficient_quota" not in str(body)
        if left and temporary and later <= LONGEST_WAIT_S:
            return
        error = self.error_of(response.status_code, body)
        if later > LONGEST_WAIT_S:
            error.hint = f"the server asks to wait {later:,.0f} s"
        raise error

    def _connected(self) -> "httpx2.Client":
        import httpx2

        if self._client is None:
            headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
            timeout = httpx2.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
            try:
                self._client = httpx2.Client(headers=headers, timeout=timeout)
            except (OSError, ValueError, ImportError) as error:
                # A certificate file or a proxy in the environment that cannot be used.
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
                f"{self.host} has sent nothing for {READ_TIMEOUT_S:.0f} s"
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
                f"{self.host} answered with something other than JSON",
                "check that the address is that of an OpenAI-compatible API",
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
            # Usually the page of a proxy.
            plain = text.decode("utf-8", "replace").strip()
            return "" if plain.startswith("<") else plain[:200]

    def _unreachable(self, error: Exception) -> NetworkError:
        import httpx2

        reason = self._cleaned(str(error))
        if _about_tls(error):
            return NetworkError(
                f"the TLS connection to {self.host} cannot be trusted: {reason}",
                "SSL_CERT_FILE names the certificate of a private authority; use http:// for a"
                " server without TLS",
            )
        if isinstance(error, httpx2.ReadTimeout):
            return NetworkError(f"{self.host} has sent nothing for {READ_TIMEOUT_S:.0f} s")
        if isinstance(error, httpx2.ProxyError):
            return NetworkError(
                f"the proxy to {self.host} fails: {reason}",
                "NO_PROXY names hosts that need none",
            )
        return NetworkError(
            f"{self.host} cannot be reached: {reason or type(error).__name__}",
            "check that the server runs, and the address in --url",
        )

    def _cleaned(self, text: str) -> str:
        text = text.replace(self._key, "***") if self._key else text
        return " ".join(text.split())[:400]


def _kind_and_message(body: Any) -> tuple[str, str]:
    """Code and type, and the message, of the body of an error response."""
    error = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(error, dict):
        return "", str(error or "")
    kind = f"{error.get('code', '')} {error.get('type', '')}"
    return kind, str(error.get("message") or error.get("detail") or "")


def _about_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError) or "SSL" in str(error) or "CERTIFICATE" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _retry_after(value: str) -> float:
    """Seconds of a Retry-After header, which is a number or a date (RFC 9110, 10.2.3).

    0 if it is missing or invalid.
    """
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0.0
