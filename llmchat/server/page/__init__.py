"""The web page at `/`: static files without a build step, and the headers they are served with.

The page talks to the OpenAI-compatible API alone, loads nothing from elsewhere, and runs no script but its own files.
"""

import hashlib
import re
from pathlib import Path

from fastapi import FastAPI
from msgspec import Struct
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

# Scripts may not turn text into markup (require-trusted-types-for), but for the sanitiser.
CONTENT_SECURITY_POLICY = "; ".join((
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types dompurify",
))  # fmt: skip
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Browsers ask each time whether a file has changed, so that a page is never made of two versions.
    "Cache-Control": "no-cache",
}
# Not the system's own table, which differs between machines.
_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


class File(Struct, frozen=True):
    content: bytes
    type: str
    etag: str


def files() -> dict[str, File]:
    """Every file of the page by its path in this folder."""
    folder = Path(__file__).parent
    return {
        path.relative_to(folder).as_posix(): File(
            content := path.read_bytes(),
            f"{_TYPES[path.suffix]}; charset=utf-8",
            f'"{hashlib.sha256(content).hexdigest()[:32]}"',
        )
        for path in sorted(folder.rglob("*"))
        if path.suffix in _TYPES
    }


def mount(app: FastAPI) -> None:
    """Serve the page at `/` and its files under `/page/`. They are read once."""
    known = files()

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def index(request: Request) -> Response:
        return _answer(request, known["index.html"])

    @app.api_route("/page/{name:path}", methods=["GET", "HEAD"], include_in_schema=False)
    async def file(request: Request, name: str) -> Response:
        if name not in known:
            raise HTTPException(404)
        return _answer(request, known[name])


def _answer(request: Request, file: File) -> Response:
    headers = {**HEADERS, "ETag": file.etag}
    if file.etag in re.findall(r'"[^"]*"', request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.type)
