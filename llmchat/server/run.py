"""Sockets under the app, and the life of a server: load what was named, listen, stop gracefully."""

import asyncio
import contextlib
import fcntl
import logging
import math
import os
import resource
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from msgspec import Struct

from llmchat.background.client import alive, reachable, socket_file
from llmchat.errors import UsageError
from llmchat.memory_estimate import available_ram
from llmchat.server import local_peer
from llmchat.server.app import create_app
from llmchat.server.catalog import Catalog
from llmchat.server.conversations import ConversationStore
from llmchat.server.head_timeout import HeadTimeoutProtocol
from llmchat.server.keys import Keys
from llmchat.server.metrics import Metrics
from llmchat.server.middleware import OWNER, App
from llmchat.server.pool import FOREVER, Pool
from llmchat.server.state import ServerState
from llmchat.settings import World, private_folder

log = logging.getLogger("llmchat.server")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
# Of the memory that is free at the start, what models may take by themselves; the rest is for the program and for other programs.
_SHARE = 0.8
_CONNECTIONS = 1000
# Of the files that this process may have open, what connections may take.
_OF_FILES = 0.5
_SWEEP_S = 1.0
# After the grace, for the errors that end the streams which are still open.
_LAST_WORDS_S = 5


class ServeOptions(Struct, frozen=True):
    """What `llmchat serve` was told. memory: bytes, 0 for a share of what is free; keep_alive_s None: for ever for the models that were named, five
    minutes for others; idle_s: end after so long without a request, 0 for never; grace_s: for what runs when the server stops; history: keep
    the web page's conversations here."""

    models: tuple[str, ...] = ()
    adapters: Mapping[str, Path] = {}
    host: str = "127.0.0.1"
    port: int = 8000
    slots: int = 16
    queue: int = 64
    memory: int = 0
    keep_alive_s: float | None = None
    timeout_s: float = 600.0
    grace_s: float = 30.0
    idle_s: float = 0.0
    rate: int = 0
    max_body: int = 4_000_000
    body_timeout_s: float = 60.0
    key_file: Path | None = None
    cors: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    trim: bool = False
    log_prompts: bool = False
    history: bool = False


def key_file(world: World, options: ServeOptions) -> Path:
    return options.key_file or world.config / "keys.json"


def serve(
    world: World, flags: Mapping[str, Any], options: ServeOptions, *, quiet: bool = False
) -> None:
    """Serve until a signal, `serve --stop` or the idle time ends it. Raises UsageError before anything is loaded where it may not listen."""
    logging.basicConfig(
        stream=world.stderr,
        format="%(asctime)s %(message)s",
        datefmt="%Y-%m-%d %H:%M:%S",
        level=logging.WARNING,
        force=True,
    )
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    keys = Keys(key_file(world, options))
    _check_address(options, keys)
    with _listening(world, options) as sockets:
        asyncio.run(_serve(world, flags, options, keys, sockets))


async def _serve(
    world: World,
    flags: Mapping[str, Any],
    options: ServeOptions,
    keys: Keys,
    sockets: Sequence[socket.socket],
) -> None:
    state = make_state(world, flags, options, keys)
    for name in options.models:
        async with state.pool.lease(name, timeout_s=math.inf):
            log.info("%s is ready", name)
    server = GracefulServer(app_of(state, options), state, options)
    host, port = sockets[0].getsockname()[:2]
    log.info("serving at http://%s:%d", f"[{host}]" if ":" in host else host, port)
    try:
        await server.serve(sockets=list(sockets))
    finally:
        await state.pool.close(0.0)
        if state.conversations:
            state.conversations.close()


def make_state(
    world: World, flags: Mapping[str, Any], options: ServeOptions, keys: Keys
) -> ServerState:
    metrics = Metrics()
    catalog = Catalog(world, flags, options.models, options.adapters, options.slots)
    keep_s = (
        options.keep_alive_s
        if options.keep_alive_s is not None
        else FOREVER
        if options.models
        else 300.0
    )
    pool = Pool(
        catalog.spec,
        metrics,
        budget=options.memory or int(available_ram() * _SHARE),
        keep_s=keep_s,
        slots=options.slots,
        queue=options.queue,
        timeout_s=options.timeout_s,
    )
    kept = _conversations(world, keys) if options.history else None
    return ServerState(
        catalog,
        pool,
        keys,
        metrics,
        trim=options.trim,
        log_prompts=options.log_prompts,
        conversations=kept,
    )


def _conversations(world: World, keys: Keys) -> ConversationStore:
    # An earlier version kept them by a key's name, or by the address of whoever had none.
    before = {"127.0.0.1": OWNER, "::1": OWNER} | {key.name: key.user for key in keys.all()}
    return ConversationStore(world.data / "web.db", before=before)


def app_of(state: ServerState, options: ServeOptions) -> App:
    return create_app(
        state,
        rate=options.rate,
        max_body=options.max_body,
        body_timeout_s=options.body_timeout_s,
        hosts=_names(options),
        origins=options.cors,
        keyless=_keyless(options, state.keys),
    )


class GracefulServer(uvicorn.Server):
    """Stops by a signal or by `state.stop`: refuses what is new, finishes what runs, for at most grace_s seconds."""

    def __init__(self, app: App, state: ServerState, options: ServeOptions):
        config = uvicorn.Config(
            app,  # type: ignore[arg-type]
            http=HeadTimeoutProtocol,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=_most_connections(),
            h11_max_incomplete_event_size=64 * 1024,
            timeout_graceful_shutdown=round(options.grace_s) + _LAST_WORDS_S,
        )
        super().__init__(config)
        self._state = state
        self._idle_s = options.idle_s
        self._grace_s = options.grace_s
        self._swept = 0.0

    async def on_tick(self, counter: int) -> bool:
        now = time.monotonic()
        if now - self._swept >= _SWEEP_S:
            self._swept = now
            await self._state.pool.sweep()
        if self._state.pool.busy:
            self._state.used = now
        idle = bool(self._idle_s) and now - self._state.used > self._idle_s
        return await super().on_tick(counter) or self._state.stop.is_set() or idle

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._state.stop.set()
        self._state.pool.drain()
        cutting = asyncio.get_running_loop().call_later(self._grace_s, self._state.pool.cut)
        await super().shutdown(sockets)
        cutting.cancel()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """The first signal stops gracefully, the second at once. Unlike uvicorn's own, it is not raised again at the end."""
        self.force_exit = self.should_exit
        self.should_exit = True


def _most_connections() -> int:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        _CONNECTIONS
        if files == resource.RLIM_INFINITY
        else min(_CONNECTIONS, int(files * _OF_FILES))
    )


def _check_address(options: ServeOptions, keys: Keys) -> None:
    if options.history and not local_peer.SUPPORTED and not keys.all():
        raise UsageError(
            "without an API key --history cannot tell the users of this machine apart on this system",
            "`llmchat serve keys add NAME` makes a key; without --history conversations stay in the browser",
        )
    if options.host not in _LOOPBACK and not keys.all():
        raise UsageError(
            f"{options.host} can be reached from other machines, and there is no API key",
            "`llmchat serve keys add NAME` makes one; without --host only this machine is served",
        )


def _keyless(options: ServeOptions, keys: Keys) -> bool:
    """Whether it was started to answer without a key: on this machine's own address, with no key made yet. Keys that cannot be read are keys."""
    try:
        return options.host in _LOOPBACK and not keys.all()
    except UsageError:
        return False


def _names(options: ServeOptions) -> frozenset[str] | None:
    """The names the server answers to. One that others reach is protected by its keys, and may be called anything."""
    if options.host not in _LOOPBACK and not options.names:
        return None
    return frozenset(
        {"localhost", "127.0.0.1", "[::1]", options.host, *(name.lower() for name in options.names)}
    )


@contextlib.contextmanager
def _listening(world: World, options: ServeOptions) -> Iterator[list[socket.socket]]:
    """The TCP socket, and the Unix socket unless another server of this user has it."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(_tcp(options))]
        with _alone(socket_file(world)):
            if not alive(world):
                sockets.append(stack.enter_context(_unix(socket_file(world))))
        yield sockets


@contextlib.contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Of servers that start at the same time one alone looks whether the socket is free, and takes it."""
    private_folder(file.parent)
    with open(os.open(file.with_suffix(".lock"), os.O_WRONLY | os.O_CREAT, 0o600), "wb") as lock:
        # Some network file systems have no locks.
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _tcp(options: ServeOptions) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((options.host, options.port))
        # From here on clients may come; they wait until the models are loaded.
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise UsageError(
            f"cannot listen on {options.host}:{options.port}: {error.strerror}",
            "--port names another",
        ) from error
    return listener


@contextlib.contextmanager
def _unix(file: Path) -> Iterator[socket.socket]:
    """A Unix socket that only this user may open; it is removed at the end."""
    private_folder(file.parent)
    file.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        with reachable(file) as address:
            listener.bind(address)
    finally:
        os.umask(before)
    listener.listen(128)
    own = file.stat().st_ino
    try:
        yield listener
    finally:
        listener.close()
        with contextlib.suppress(FileNotFoundError):
            if file.stat().st_ino == own:
                file.unlink()
