"""The life of a server process: load the named models, serve until something stops it, clean up."""

import asyncio
import logging
import math
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from starlette.types import ASGIApp

from llmchat.memory_estimate import available_ram
from llmchat.server.access_control import OWNER
from llmchat.server.app import create_app
from llmchat.server.catalog import Catalog
from llmchat.server.chat_files import ChatFiles
from llmchat.server.conversation_store import ConversationStore
from llmchat.server.documents import ServedDocuments
from llmchat.server.graceful_server import GracefulServer
from llmchat.server.keys import Keys
from llmchat.server.metrics import Metrics
from llmchat.server.pool import FOREVER, Pool
from llmchat.server.responses_api.store import ResponseStore
from llmchat.server.serve_options import (
    LOOPBACK,
    ServeOptions,
    answers_without_key,
    check_access,
    host_names,
    key_file,
)
from llmchat.server.sockets import listening
from llmchat.server.state import ServerState
from llmchat.server.tools import ToolRunner, check_remote
from llmchat.settings import World, private_folder
from llmchat.tools.opening import open_toolbox

log = logging.getLogger("llmchat.server")
# The fraction of the free memory at the start that models may use by default.
_MEMORY_FRACTION = 0.8
_KEEP_ALIVE_S = 300.0
# A chat without a first message keeps its files for this long.
_FORGET_AFTER_S = 86_400.0


def serve(
    world: World, flags: Mapping[str, Any], options: ServeOptions, *, quiet: bool = False
) -> None:
    """Serve until a signal, `serve --stop` or the idle timeout ends it.

    Raises UsageError, before anything is loaded, if the server may not listen there.
    """
    logging.basicConfig(
        stream=world.stderr,
        format="%(asctime)s %(message)s",
        datefmt="%Y-%m-%d %H:%M:%S",
        level=logging.WARNING,
        force=True,
    )
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    keys = Keys(key_file(world, options), world.now)
    check_access(options, keys)
    with (
        _open_tools(world, options) as tools,
        _open_documents(world, options) as documents,
        listening(world, options) as sockets,
    ):
        asyncio.run(_serve(world, flags, options, keys, sockets, tools, documents))


@contextmanager
def _open_tools(world: World, options: ServeOptions) -> Iterator[ToolRunner | None]:
    """The tools that clients may run; MCP servers end with the block."""
    if options.tools is None:
        yield None
        return
    with open_toolbox(world, options.tools) as box:
        if options.host not in LOOPBACK:
            check_remote(box.tools, options.tools.options.allow)
        runner = ToolRunner(box)
        try:
            yield runner
        finally:
            runner.close()


@contextmanager
def _open_documents(world: World, options: ServeOptions) -> Iterator[ServedDocuments]:
    """The documents that requests may search. Without --history, the files of chats end with the
    server, as its conversations are in the browser.
    """
    with ExitStack() as ending:
        if options.history:
            root = world.data / "web-files"
            private_folder(root)
        else:
            root = Path(ending.enter_context(TemporaryDirectory(prefix="llmchat-files-")))
        documents = ServedDocuments(world, options.docs, ChatFiles(root))
        ending.callback(documents.close)
        yield documents


async def _serve(
    world: World,
    flags: Mapping[str, Any],
    options: ServeOptions,
    keys: Keys,
    sockets: Sequence[socket.socket],
    tools: ToolRunner | None,
    documents: ServedDocuments,
) -> None:
    state = make_state(world, flags, options, keys)
    state.tools, state.documents = tools, documents
    if state.conversations:
        forget_old_files(state.conversations, documents.files, world.now())
    for name in options.roles:
        state.catalog.spec(name)
    for name in options.models:
        async with state.pool.lease(name, timeout_s=math.inf):
            log.info("%s is ready", name)
    server = GracefulServer(make_app(state, options), state, options)
    host, port = sockets[0].getsockname()[:2]
    log.info("serving at http://%s:%d", f"[{host}]" if ":" in host else host, port)
    try:
        await server.serve(sockets=list(sockets))
    finally:
        await state.pool.close(0.0)
        state.responses.close()
        if state.conversations:
            state.conversations.close()


def make_state(
    world: World, flags: Mapping[str, Any], options: ServeOptions, keys: Keys
) -> ServerState:
    metrics = Metrics()
    catalog = Catalog(world, flags, options.models, options.adapters, options.slots, options.roles)
    pool = Pool(
        catalog.spec,
        metrics,
        budget=options.memory or int(available_ram() * _MEMORY_FRACTION),
        keep_s=_keep_alive(options),
        slots=options.slots,
        queue=options.queue,
        timeout_s=options.timeout_s,
    )
    return ServerState(
        catalog,
        pool,
        keys,
        metrics,
        trim=options.trim,
        log_prompts=options.log_prompts,
        conversations=_conversation_store(world, keys) if options.history else None,
        now=world.now,
        responses=ResponseStore(world.data / "responses.db" if options.history else None),
        roles=options.roles,
    )


def forget_old_files(store: ConversationStore, files: ChatFiles, now: float) -> None:
    """Forget the files of chats that were deleted, or never begun."""
    known: dict[str, set[str]] = {}

    def wanted(user: str, chat: str) -> bool:
        if user not in known:
            known[user] = {one.id for one in store.list(user)}
        return chat in known[user]

    files.sweep(wanted, now - _FORGET_AFTER_S)


def _keep_alive(options: ServeOptions) -> float:
    if options.keep_alive_s is not None:
        return options.keep_alive_s
    return FOREVER if options.models else _KEEP_ALIVE_S


def _conversation_store(world: World, keys: Keys) -> ConversationStore:
    # The first version of the file identified users by the names of their keys, or by their
    # addresses.
    renamed = {"127.0.0.1": OWNER, "::1": OWNER} | {key.name: key.user for key in keys.all()}
    return ConversationStore(world.data / "web.db", renamed_users=renamed, now=world.now)


def make_app(state: ServerState, options: ServeOptions) -> ASGIApp:
    return create_app(
        state,
        rate=options.rate,
        max_body=options.max_body,
        body_timeout_s=options.body_timeout_s,
        hosts=host_names(options),
        origins=options.cors,
        keyless=answers_without_key(options, state.keys),
    )
