"""Bodies of requests: JSON to the request's type. Large ones are read in a thread, one at a time, clients by turns.

The event loop carries every stream: a body of megabytes that it read by itself would hold up all of them.
"""

import json
import math
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from llmchat.server.compatibility import MAX_NESTING, check_nesting
from llmchat.server.prompt_workers import PromptWorkers

# Up to so many bytes a body is read faster than a thread is asked.
SMALL = 32_768


def decoded(body: bytes, kind: type[BaseModel]) -> BaseModel:
    """Raises JSONDecodeError, and RequestValidationError with the one problem that came furthest: of the ways in which a value may be written
    that is the one that was meant."""
    value = _parsed(body)
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        nearest = max(
            error.errors(include_url=False, include_context=False),
            key=lambda problem: len(problem["loc"]),
        )
        raise RequestValidationError(
            [{**nearest, "loc": ("body", *nearest["loc"]), "input": None}]
        ) from None


def _parsed(body: bytes) -> Any:
    """Raises JSONDecodeError, and HTTPException for JSON that is nested too deep."""
    try:
        value = json.loads(body)
        # Most bodies cannot be, by their brackets.
        if body.count(b"[") + body.count(b"{") > MAX_NESTING:
            check_nesting(value)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"the body cannot be read as JSON: {error}") from None
    return value


class _OffloadedRequest(Request):
    """A request whose body becomes a `kind` at once. problem: why it did not."""

    gate: PromptWorkers
    kind: type[BaseModel]
    problem: RequestValidationError | None = None

    async def json(self) -> Any:
        body = await self.body()
        if len(body) <= SMALL:
            return _parsed(body)
        try:
            return await self.gate.run(
                self.state.client, math.inf, lambda: decoded(body, self.kind)
            )
        except RequestValidationError as error:
            # FastAPI takes what is raised here for JSON that cannot be read.
            self.problem = error
            return None


def route_class(gate: PromptWorkers) -> type[APIRoute]:
    """Routes that read the bodies of their requests by way of this gate."""

    class Route(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handler = super().get_route_handler()
            kind: Any = self.body_field and self.body_field.field_info.annotation
            if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
                return handler

            async def read_aside(request: Request) -> Response:
                aside = _OffloadedRequest(request.scope, request.receive)
                aside.gate, aside.kind = gate, kind
                try:
                    return await handler(aside)
                except RequestValidationError as error:
                    raise (aside.problem or error) from None

            return read_aside

    return Route
