"""The web page at `/`: static files without a build step, and their HTTP headers.

The page only uses this server's API, and loads nothing from other servers. Starlette's StaticFiles
would derive media types from the system's table and ETags from modification times, and could serve
a page whose files belong to two versions.
"""

import hashlib
import json
import re
from pathlib import Path

from fastapi import FastAPI
from msgspec import Struct
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from llmchat.server.api import Generation
from llmchat.settings.sampling import PARAMETERS, SAMPLING_SETTINGS
from llmchat.settings.types import base_type

# Scripts cannot turn text into markup (require-trusted-types-for), except in the sanitiser.
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
    # Browsers revalidate every file, so that they never mix two versions of the page.
    "Cache-Control": "no-cache",
}
# The system's table of media types differs between machines.
_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


# The change of a number with an arrow key.
_STEP = 0.01
_STEPS = {"temperature": 0.05}
# The parameters that the page has a field for.
NUMBERS = tuple(name for name in PARAMETERS if base_type(SAMPLING_SETTINGS[name]) in (int, float))


class File(Struct, frozen=True):
    content: bytes
    type: str
    etag: str


def files() -> dict[str, File]:
    """All files of the page, by their paths in this folder."""
    folder = Path(__file__).parent
    contents = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.suffix in _TYPES
    }
    contents["sampling.js"] = _sampling_script().encode()
    return {name: _file(name, content) for name, content in contents.items()}


def _file(name: str, content: bytes) -> File:
    kind = f"{_TYPES[Path(name).suffix]}; charset=utf-8"
    return File(content, kind, f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def _sampling_script() -> str:
    """`sampling.js`: the sampling parameters, each with the range that the API accepts."""
    properties = Generation.model_json_schema()["properties"]
    ranges = []
    for name in NUMBERS:
        number = properties[name]["anyOf"][0]
        least = number.get("minimum", number.get("exclusiveMinimum", 0) + _STEP)
        step = 1 if number["type"] == "integer" else _STEPS.get(name, _STEP)
        ranges.append([name, _label(name), least, number["maximum"], step])
    return (
        f"// name, label, smallest, largest, step\nexport const SAMPLING = {json.dumps(ranges)};\n"
    )


def _label(name: str) -> str:
    """The label of a field: `Repetition penalty`, or `Top-p` if the last word is one letter."""
    return re.sub("_(.)$", r"-\1", name).replace("_", " ").capitalize()


def mount(app: FastAPI) -> None:
    """Serve the page at `/` and its files at `/page/`. The files are read once."""
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
