"""A loopback server with OpenAI's API: scripted behaviour, or one of our engines posing as vLLM."""

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from msgspec import Struct

from llmchat.conversation import Message
from llmchat.engines import Chunk, Engine, Sampling
from llmchat.prompt import Prompt


class Asked(Struct):
    """A request that came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class Told(Struct):
    """What is said to it. pieces: the body as it is sent, each piece at once."""

    pieces: Iterable[bytes] = ()
    status: int = 200
    kind: str = "text/event-stream"
    headers: dict[str, str] = {}
    # Without the end that says that nothing is missing.
    cut: bool = False


App = Callable[[Asked], Told]


def json_of(value: Any, status: int = 200, **headers: str) -> Told:
    return Told([json.dumps(value).encode()], status, "application/json", headers)


def sse(*values: Any, done: bool = True) -> list[bytes]:
    """Values as events, and the mark of the end."""
    return [
        *(f"data: {json.dumps(value)}\n\n".encode() for value in values),
        *([b"data: [DONE]\n\n"] if done else []),
    ]


def said(text: str, reason: str | None = None) -> dict[str, Any]:
    """An event of both kinds of answer."""
    return {
        "choices": [{"index": 0, "text": text, "delta": {"content": text}, "finish_reason": reason}]
    }


@contextmanager
def serving(app: App) -> Iterator[tuple[str, list[Asked]]]:
    """The address under which `app` answers, and what it was asked so far."""
    asked: list[Asked] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

        def _answer(self, body: dict[str, Any]) -> None:
            request = Asked(self.command, self.path, dict(self.headers.items()), body)
            asked.append(request)
            told = app(request)
            with suppress(BrokenPipeError, ConnectionResetError):
                self.send_response(told.status)
                for name, value in {
                    "content-type": told.kind,
                    "transfer-encoding": "chunked",
                    **told.headers,
                }.items():
                    self.send_header(name, value)
                self.end_headers()
                for piece in told.pieces:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                    self.wfile.flush()
                if not told.cut:
                    self.wfile.write(b"0\r\n\r\n")
                self.close_connection = told.cut

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    )
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def engine_app(engine: Engine, name: str = "tiny") -> App:
    """vLLM's API around an engine; one answer at a time."""
    busy = threading.Lock()

    def app(request: Asked) -> Told:
        body = request.body
        if request.path == "/v1/models":
            return json_of(
                {
                    "object": "list",
                    "data": [{"id": name, "owned_by": "vllm", "max_model_len": engine.context}],
                }
            )
        if request.path == "/tokenize":
            prompt = _prompt(body, body.get("add_special_tokens", False))
            return json_of(
                {"tokens": engine.encode(prompt), "count": 0, "max_model_len": engine.context}
            )
        prompt = _prompt(body, "prompt" in body)
        if len(engine.encode(prompt)) >= engine.context:
            message = f"This model's maximum context length is {engine.context} tokens."
            return json_of(
                {"error": {"message": message, "type": "BadRequestError", "code": 400}}, 400
            )
        sampling = Sampling(
            temperature=body["temperature"],
            top_p=body["top_p"],
            top_k=max(0, body["top_k"]),
            max_tokens=body.get("max_tokens", 0),
            seed=body["seed"],
            stops=tuple(body.get("stop", ())),
        )

        def pieces() -> Iterator[bytes]:
            with busy, closing(engine.stream(prompt, sampling)) as events:
                for event in events:
                    if isinstance(event, Chunk):
                        yield from sse(said(event.text), done=False)
                    else:
                        usage = {
                            "prompt_tokens": event.prompt_tokens,
                            "completion_tokens": event.reply_tokens,
                            "prompt_tokens_details": {"cached_tokens": event.cached_tokens},
                        }
                        yield from sse(said("", event.reason), {"choices": [], "usage": usage})

        return Told(pieces())

    return app


def _prompt(body: dict[str, Any], bos: bool) -> Prompt:
    if "prompt" in body:
        return Prompt(body["prompt"], (), bos=bos)
    text = "".join(f"{message['role']}: {message['content']}\n" for message in body["messages"])
    return Prompt(
        text + "assistant:",
        tuple(Message(message["role"], message["content"]) for message in body["messages"]),
        bos=True,
    )
