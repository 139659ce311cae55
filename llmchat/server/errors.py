"""Errors in OpenAI's form: `{"error": {"message", "type", "param", "code"}}` with the status that its clients expect.

https://platform.openai.com/docs/guides/error-codes. What is not known is a 500 that tells nothing of the inside.
"""

import math
from typing import Any

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


class Refusal(LlmchatError):
    """A request that is not served. kind, param and code are OpenAI's `type`, `param` and `code`."""

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


class TooLarge(Refusal):
    status = 413


class Busy(Refusal):
    """Too many at once. retry_after_s: when it is worth another try."""

    status = 429
    kind = "rate_limit_error"

    def __init__(self, message: str, retry_after_s: float):
        super().__init__(
            message,
            code="rate_limit_exceeded",
            headers={"Retry-After": str(math.ceil(retry_after_s))},
        )


class Unavailable(Refusal):
    status = 503
    kind = "server_error"


class Stopping(Unavailable):
    def __init__(self) -> None:
        super().__init__(
            "the server is about to stop", code="stopping", headers={"Retry-After": "5"}
        )


class DeadlineExceeded(Refusal):
    status = 504
    kind = "server_error"

    def __init__(self, timeout_s: float):
        super().__init__(f"the answer took longer than {timeout_s:g} seconds", code="timeout")


# What a room of llmchat raises → status, type, code.
_OF_ROOMS: tuple[tuple[type[LlmchatError], tuple[int, str, str | None]], ...] = (
    (ContextOverflow, (400, "invalid_request_error", "context_length_exceeded")),
    (ModelNotFound, (404, "invalid_request_error", "model_not_found")),
    (OutOfResources, (503, "server_error", "insufficient_memory")),
    (Mismatch, (400, "invalid_request_error", None)),
    (UsageError, (400, "invalid_request_error", None)),
    (NotAuthorised, (502, "server_error", "upstream_refused")),
    (NetworkError, (502, "server_error", "upstream_failed")),
    (IntegrityError, (500, "server_error", "damaged_files")),
    (LlmchatError, (500, "server_error", None)),
)


def describe_error(error: Exception) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Status, headers and body for an error."""
    if isinstance(error, Refusal):
        return error.status, error.headers, body(error.message, error.kind, error.param, error.code)
    for kind, (status, name, code) in _OF_ROOMS:
        if isinstance(error, kind):
            headers = {"Retry-After": "5"} if status == 503 else {}
            return (
                status,
                headers,
                body(
                    error.message,
                    name,
                    "messages" if code == "context_length_exceeded" else None,
                    code,
                ),
            )
    return (
        500,
        {},
        body(
            "the server made a mistake; its log says more", "server_error", None, "internal_error"
        ),
    )


def body(
    message: str, kind: str, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
