"""The state that all requests of one server share."""

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from llmchat.server.catalog import Catalog
from llmchat.server.conversation_store import ConversationStore
from llmchat.server.documents import ServedDocuments
from llmchat.server.keys import Keys
from llmchat.server.metrics import Metrics
from llmchat.server.pool import Pool
from llmchat.server.prompt_workers import PromptWorkers
from llmchat.server.responses_api.store import ResponseStore
from llmchat.server.roles import ServedRole
from llmchat.server.tools import ToolRunner


@dataclass
class ServerState:
    """trim: whether to drop the oldest messages of conversations that do not fit the context
    window, if the request does not specify it. log_prompts: whether to log prompts.

    conversations: the web page's conversations, if the server stores them; tools: those that
    clients may run, if the server was started with tools; documents: what requests may search;
    roles: those that the server offers, by the names of their models;
    responses: those that requests continue, in memory if the server keeps no history;
    prompt_workers: where prompts are rendered and tokenised; stop: set to shut down gracefully.
    now: the time of day; last_used: on the clock of time.monotonic.
    """

    catalog: Catalog
    pool: Pool
    keys: Keys
    metrics: Metrics
    trim: bool = False
    log_prompts: bool = False
    conversations: ConversationStore | None = None
    tools: ToolRunner | None = None
    documents: ServedDocuments | None = None
    now: Callable[[], float] = time.time
    last_used: float = field(default_factory=time.monotonic)
    prompt_workers: PromptWorkers = field(default_factory=PromptWorkers)
    responses: ResponseStore = field(default_factory=ResponseStore)
    roles: Mapping[str, ServedRole] = field(default_factory=dict)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.started = self.now()


def new_id(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex}"
