"""Errors in OpenAI's form, `{"error": {"message", "type", "param", "code"}}`, and their statuses.

https://platform.openai.com/docs/guides/error-codes. An unexpected error becomes a 500 that reveals
nothing about the server.
"""

import math
from typing import TYPE_CHECKING, Any

from llmchat.errors import (
    ContextOverflow,
    IntegrityError,
    LlmchatError,
    Mismatch,
    ModelNotFound,
    NetworkError,
    NotAuthorised,
    OutOfResources,
    UsageError,
)

if TYPE_CHECKING:
    from starlette.responses import JSONResponse


class Refusal(LlmchatError):
    """A request that is refused. kind, param and code are OpenAI's `type`, `param` and `code`."""

    status = 400
    kind = "invalid_request_error"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ):
        super().__init__(message)
        self.param = param
        self.code = code
        self.headers = headers or {}


class BadRequest(Refusal):
    pass


class Unsupported(BadRequest):
    """A field, or a value of it, that the server or the model does not support."""

    def __init__(self, message: str, param: str):
        super().__init__(message, param=param, code="unsupported_parameter")


class Unauthorised(Refusal):
    status = 401

    def __init__(self, message: str):
        super().__init__(message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


class Forbidden(Refusal):
    status = 403
    kind = "permission_error"


class UnknownModel(Refusal):
    status = 404

    def __init__(self, message: str):
        super().__init__(message, param="model", code="model_not_found")


class RequestTimeout(Refusal):
    status = 408

    def __init__(self) -> None:
        super().__init__("the request body did not arrive in time")


class TooLarge(Refusal):
    status = 413


class Busy(Refusal):
    """Too many requests at once. retry_after_s: when to try again."""

    status = 429
    kind = "rate_limit_error"

    def __init__(self, message: str, retry_after_s: float):
        headers = {"Retry-After": str(math.ceil(retry_after_s))}
        super().__init__(message, code="rate_limit_exceeded", headers=headers)


class Unavailable(Refusal):
    status = 503
    kind = "server_error"


class Stopping(Unavailable):
    def __init__(self) -> None:
        headers = {"Retry-After": "5"}
        super().__init__("the server is shutting down", code="stopping", headers=headers)


class DeadlineExceeded(Refusal):
    status = 504
    kind = "server_error"

    def __init__(self, timeout_s: float):
        super().__init__(f"the answer took longer than {timeout_s:g} seconds", code="timeout")


# Errors of other parts of llmchat, most specific first, with their status, type and code.
_STATUSES: tuple[tuple[type[LlmchatError], int, str, str | None], ...] = (
    (ContextOverflow, 400, "invalid_request_error", "context_length_exceeded"),
    (ModelNotFound, 404, "invalid_request_error", "model_not_found"),
    (OutOfResources, 503, "server_error", "insufficient_memory"),
    (Mismatch, 400, "invalid_request_error", None),
    (UsageError, 400, "invalid_request_error", None),
    (NotAuthorised, 502, "server_error", "upstream_refused"),
    (NetworkError, 502, "server_error", "upstream_failed"),
    (IntegrityError, 500, "server_error", "damaged_files"),
    (LlmchatError, 500, "server_error", None),
)


def describe_error(error: Exception) -> tuple[int, dict[str, str], dict[str, Any]]:
    """The status, headers and body of the response for an error."""
    if isinstance(error, Refusal):
        body = error_body(error.message, error.kind, error.param, error.code)
        return error.status, error.headers, body
    for error_type, status, kind, code in _STATUSES:
        if isinstance(error, error_type):
            headers = {"Retry-After": "5"} if status == 503 else {}
            param = "messages" if code == "context_length_exceeded" else None
            return status, headers, error_body(error.message, kind, param, code)
    message = "internal error; the server's log has the details"
    return 500, {}, error_body(message, "server_error", None, "internal_error")


def error_body(
    message: str, kind: str, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_response(error: Exception, *, close: bool = False) -> "JSONResponse":
    """close: end the connection, because the rest of the request was not read."""
    # Here, so that a batch checks requests without the packages of a server.
    from starlette.responses import JSONResponse

    status, headers, body = describe_error(error)
    return JSONResponse(body, status, headers | ({"Connection": "close"} if close else {}))
