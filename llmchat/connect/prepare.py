"""Prepares the settings of a client: checks the model, and fills in what the server offers."""

import shlex

from msgspec import Struct

from llmchat.connect.clients import Client, Values, filled
from llmchat.connect.models import Offered, offered, problems
from llmchat.connect.setup import Part, parts
from llmchat.engines.openai_api.connection import Connection
from llmchat.errors import Mismatch
from llmchat.settings import World

# For clients that need a number where nothing reports the window.
_ASSUMED_WINDOW = 4096
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class Prepared(Struct, frozen=True):
    """The settings of a client. run: the command that uses them. notes: what to know or to do."""

    client: Client
    model: Offered
    url: str
    parts: list[Part]
    run: str
    notes: list[str]


def prepare(
    world: World, client: Client, model: str | None, url: str, key: str, *, force: bool
) -> Prepared:
    """The settings of a client for this model at this address. Writes nothing.

    Raises Mismatch if the model does not suffice for the client, unless `force`.
    """
    connection = Connection(url, key)
    try:
        found = offered(world, connection, model)
    finally:
        connection.close()
    lacks = problems(client, found)
    if lacks and not force:
        raise Mismatch(lacks[0], _way_out(client, found))
    values = _values(world, found, connection, key)
    run = str(filled(client.run, {"model": found.name}))
    notes = [*lacks, *_notes(client, found, connection)]
    return Prepared(client, found, connection.base, parts(client, values, world), run, notes)


def _values(world: World, model: Offered, connection: Connection, key: str) -> Values:
    window = model.window or _ASSUMED_WINDOW
    return Values(
        model=model.name,
        url=connection.base,
        root=connection.root,
        window=window,
        output=min(window // 4, 8192),
        home=str(world.home),
        key=key or "none",
    )


def _way_out(client: Client, model: Offered) -> str:
    if model.longest >= client.window > model.window:
        serve = f"llmchat serve -m {shlex.quote(model.given)} --context {client.window}"
        return f"`{serve}` enlarges it; --force continues anyway"
    return "choose another model with -m; --force continues anyway"


def _notes(client: Client, model: Offered, connection: Connection) -> list[str]:
    notes = [client.notes] if client.notes else []
    if not model.window:
        notes.append(
            f"the window of {model.name} is not known yet; the settings assume"
            f" {_ASSUMED_WINDOW:,} tokens"
        )
    if not model.running:
        notes.append(f"no server answers at {connection.base}; {_start(model, connection)}")
    return notes


def _start(model: Offered, connection: Connection) -> str:
    """How to start the server that is missing."""
    host, _, port = connection.host.rpartition(":")
    if host not in _LOOPBACK:
        return "check the address in --url"
    more = f" --port {port}" if port != "8000" else ""
    return f"start it with `llmchat serve -m {shlex.quote(model.given)}{more}`"
